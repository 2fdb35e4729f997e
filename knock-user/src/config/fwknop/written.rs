//! The sections as they are written: their keys, and what they must not say.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::{Fwknop, Key, Secrets};
use crate::config::{
    draft::{Draft, DraftGate},
    kinds::{NAME, NETWORK, PORT},
    reader::{Field, Reader},
    schema::put,
    section::{
        Presence::{Alternative, Optional, Required},
        Row, Section,
    },
    source::{Findings, Located, Span, values},
};
use crate::values::{Port, Protocol};

/// What the format takes as a key of its cipher, in bytes: the client refuses a longer one.
const LONGEST_KEY: usize = 32;
/// The longest key that a client makes for its HMAC, in bytes.
const LONGEST_HMAC_KEY: usize = 128;
/// Shorter passphrases can be guessed by whoever has recorded a packet.
const SHORTEST_SAFE: usize = 20;
const FEWEST_REFUSALS: u32 = 100;
const MOST_REFUSALS: u32 = 10_000_000;
/// The keys of the examples, as they stand in files that `init` writes and in the documentation.
const EXAMPLE_KEY: &str = r#""bm90IGEga2V5LCBidXQgYW4gZXhhbXBsZSBvZiBvbmU=""#;
const EXAMPLE_HMAC_KEY: &str = r#""bm90IGEga2V5IGVpdGhlciwgYW5kIG5vdCB0byBiZSB1c2Vk""#;

/// `[fwknop]` as written.
#[derive(Clone, Default)]
pub(in crate::config) struct DraftFwknop {
    pub(in crate::config) ports: Vec<Located<Port>>,
    pub(in crate::config) refusals: u32,
}

/// A `[[gate.fwknop]]` as written.
#[derive(Clone, Default)]
pub(in crate::config) struct DraftKey {
    /// Where the section begins.
    pub(in crate::config) header: Span,
    /// Empty where it could not be read.
    pub(in crate::config) user: Located<String>,
    key: Given,
    hmac_key: Given,
    rest: Key,
}

/// A secret, in one of the two ways to write it.
#[derive(Clone, Default)]
struct Given {
    passphrase: Option<Located<Zeroizing<Vec<u8>>>>,
    base64: Option<Located<Zeroizing<Vec<u8>>>>,
    /// It is there, but could not be read.
    is_bad: bool,
}

pub(in crate::config) const FWKNOP: Section<DraftFwknop> = Section {
    title: "[fwknop]",
    place: "in [fwknop]",
    about: "Where clients of fwknop send their packets to, if a gate has keys for them. `knockgate run` verifies these.",
    rows: &[
        Row::new(
            "ports",
            Optional(r#"["62201/udp"]"#),
            "The UDP ports that clients of fwknop send to.",
            |reader, field, fwknop| {
                put(
                    &mut fwknop.ports,
                    reader.set(field, &PORT).map(|list| list.items),
                );
            },
        ),
        Row::new(
            "refusals",
            Optional("100000"),
            "How many wrong packets a second may be looked at closely; what comes beyond that is dropped unread.",
            |reader, field, fwknop| {
                let number = reader.number(field, FEWEST_REFUSALS..=MOST_REFUSALS);
                put(&mut fwknop.refusals, number);
            },
        ),
    ],
};

pub(in crate::config) const KEYS: Section<DraftKey> = Section {
    title: "[[gate.fwknop]]",
    place: "in [[gate.fwknop]]",
    about: "One such section for each client of fwknop that may open this gate. Only the service (`knockgate run`) reads
its packets.",
    rows: &[
        Row::new(
            "user",
            Required(r#""alice""#),
            "Whose client this is; no other client of this gate has the name.",
            |reader, field, key| put(&mut key.user, reader.one(field, &NAME)),
        ),
        Row::new(
            "source",
            Optional("[]"),
            r#"Networks that its packets may come from, such as ["198.51.100.0/24"]; empty: every network."#,
            |reader, field, key| {
                let networks = reader.set(field, &NETWORK);
                put(&mut key.rest.source, networks.map(|it| values(it.items)));
            },
        ),
        Row::new(
            "key_base64",
            Alternative(EXAMPLE_KEY, "key"),
            "The client's KEY_BASE64, which `fwknop --key-gen` draws.",
            |reader, field, key| key.key.read_base64(reader, field, LONGEST_KEY),
        ),
        Row::new(
            "key",
            Optional(r#""""#),
            "The client's KEY, a passphrase, in place of key_base64. A drawn key is stronger.",
            |reader, field, key| key.key.read_passphrase(reader, field, LONGEST_KEY),
        ),
        Row::new(
            "hmac_key_base64",
            Alternative(EXAMPLE_HMAC_KEY, "hmac_key"),
            "The client's HMAC_KEY_BASE64, which `fwknop --key-gen` draws too.",
            |reader, field, key| key.hmac_key.read_base64(reader, field, LONGEST_HMAC_KEY),
        ),
        Row::new(
            "hmac_key",
            Optional(r#""""#),
            "The client's HMAC_KEY, a passphrase, in place of hmac_key_base64.",
            |reader, field, key| key.hmac_key.read_passphrase(reader, field, LONGEST_HMAC_KEY),
        ),
        Row::new(
            "hmac_digest_type",
            Optional(r#""sha256""#),
            r#"The client's HMAC_DIGEST_TYPE: "md5", "sha1", "sha256", "sha384", "sha512", "sha3_256" or "sha3_512"."#,
            |reader, field, key| put(&mut key.rest.hmac_digest_type, reader.choice(field)),
        ),
        Row::new(
            "require_source_address",
            Optional("false"),
            "true: a packet has to name the address that is to pass; `fwknop -s` and IPv6 are refused.",
            |reader, field, key| put(&mut key.rest.require_source_address, reader.boolean(field)),
        ),
    ],
};

/// Keys of `[[gate.fwknop]]` that are no secrets: messages may show their values.
pub(in crate::config) const SHOWN: [&str; 4] = [
    "user",
    "source",
    "hmac_digest_type",
    "require_source_address",
];

impl Given {
    fn read_base64(&mut self, reader: &mut Reader<'_, '_>, field: Field<'_, '_>, longest: usize) {
        let decoded = |text: &str| BASE64_STANDARD.decode(text).ok();
        let expected = format!("1 to {longest} bytes in base64, as `fwknop --key-gen` prints them");
        self.base64 = self.read(reader, field, decoded, longest, &expected);
    }

    fn read_passphrase(
        &mut self,
        reader: &mut Reader<'_, '_>,
        field: Field<'_, '_>,
        longest: usize,
    ) {
        let bytes = |text: &str| Some(text.as_bytes().to_vec());
        let expected = format!("a passphrase of 1 to {longest} bytes");
        self.passphrase = self.read(reader, field, bytes, longest, &expected);
    }

    /// Reads one of the two; an empty string stands for none. What a message says of it never has the value.
    fn read(
        &mut self,
        reader: &mut Reader<'_, '_>,
        field: Field<'_, '_>,
        bytes: impl FnOnce(&str) -> Option<Vec<u8>>,
        longest: usize,
        expected: &str,
    ) -> Option<Located<Zeroizing<Vec<u8>>>> {
        let text = field.value.get_ref().as_str();
        if text == Some("") {
            return None;
        }
        let value = text.and_then(bytes).map(Zeroizing::new);
        let value = value.filter(|value| (1..=longest).contains(&value.len()));
        if value.is_none() {
            self.is_bad = true;
            let message = format!("`{}` must be {expected}", field.key);
            reader.findings.error("bad-key", field.span(), message);
        }
        value.map(|value| Located {
            value,
            span: field.span(),
        })
    }

    /// Reports where there is none, or both. `name`: of the passphrase's key in the file.
    fn check(&self, findings: &mut Findings<'_>, header: Span, name: &str) {
        match (&self.passphrase, &self.base64) {
            (Some(passphrase), Some(_)) => {
                let message = format!(
                    "`{name}` and `{name}_base64` are two ways to write one key: leave one of them out"
                );
                findings.error("two-keys", passphrase.span, message);
            }
            (None, None) if !self.is_bad => {
                let message = format!(
                    "[[gate.fwknop]] has no `{name}_base64`: add the client's, or its passphrase as `{name}`"
                );
                findings.error("missing-key", header, message);
            }
            _ => {}
        }
    }

    /// Warns of a secret that can be guessed.
    fn lint(&self, findings: &mut Findings<'_>) {
        let what = match (&self.passphrase, &self.base64) {
            (Some(given), _) if given.value.len() < SHORTEST_SAFE => {
                Some((given.span, "a passphrase this short can be guessed"))
            }
            (_, Some(given)) if is_example(&given.value) => {
                Some((given.span, "this is the example of the documentation"))
            }
            (_, Some(given)) if given.value.len() < SHORTEST_SAFE => {
                Some((given.span, "a key this short can be guessed"))
            }
            _ => None,
        };
        if let Some((span, what)) = what {
            let message = format!(
                "{what}, by whoever has recorded one packet: have `fwknop --key-gen` draw keys"
            );
            findings.warning("guessable-key", span, message);
        }
    }

    fn value(self) -> Zeroizing<Vec<u8>> {
        let given = self.base64.or(self.passphrase);
        given.map(|given| given.value).unwrap_or_default()
    }
}

fn is_example(key: &[u8]) -> bool {
    let written = format!("\"{}\"", BASE64_STANDARD.encode(key));
    [EXAMPLE_KEY, EXAMPLE_HMAC_KEY].contains(&written.as_str())
}

impl DraftFwknop {
    /// Forgets where the ports stand: the defaults stand nowhere.
    pub(in crate::config) fn nowhere(mut self) -> Self {
        for port in &mut self.ports {
            port.span = Span::default();
        }
        self
    }

    pub(in crate::config) fn into_fwknop(self) -> Fwknop {
        Fwknop {
            ports: values(self.ports),
            refusals: self.refusals,
        }
    }
}

impl DraftKey {
    pub(in crate::config) fn into_key(self) -> Key {
        let secrets = Secrets {
            key: self.key.value(),
            hmac_key: self.hmac_key.value(),
        };
        Key {
            user: self.user.value,
            tag: secrets.tag(),
            secrets,
            ..self.rest
        }
    }
}

fn keys(draft: &Draft) -> impl Iterator<Item = (&DraftGate, &DraftKey)> {
    let gates = draft.gates.iter();
    gates.flat_map(|gate| gate.fwknop.iter().map(move |key| (gate, key)))
}

/// Reports errors of keys, and ports that other uses contradict.
pub(in crate::config) fn contradictions(findings: &mut Findings<'_>, draft: &Draft) {
    for gate in &draft.gates {
        let users = gate.fwknop.iter().map(|key| &key.user);
        let read = users.filter(|user| !user.value.is_empty());
        findings.duplicates(read, "duplicate-user", |user, line| {
            format!(
                "{} has a client of fwknop of user {user:?} already, on line {line}: give this one another name",
                gate.label()
            )
        });
    }
    for (_, key) in keys(draft) {
        key.key.check(findings, key.header, "key");
        key.hmac_key.check(findings, key.header, "hmac_key");
    }
    same_keys(findings, draft);
    if keys(draft).next().is_none() {
        return;
    }
    if draft.fwknop.ports.is_empty() {
        let header = keys(draft).next().map(|(_, key)| key.header);
        let message = "[[gate.fwknop]] needs a port that its client sends to: set `ports` of [fwknop], or leave that out";
        findings.error("empty-list", header.unwrap_or_default(), message.to_owned());
    }
    ports(findings, draft);
}

/// Reports two clients of one gate with the same secrets: which of them it was could not be told.
fn same_keys(findings: &mut Findings<'_>, draft: &Draft) {
    for gate in &draft.gates {
        let mut seen: HashMap<(&[u8], &[u8]), Span> = HashMap::new();
        for key in &gate.fwknop {
            let secret = |given: &'_ Given| given.base64.is_some() || given.passphrase.is_some();
            if !(secret(&key.key) && secret(&key.hmac_key)) {
                continue;
            }
            let pair = (bytes(&key.key), bytes(&key.hmac_key));
            if let Some(first) = seen.get(&pair) {
                let line = findings.source.line_of(*first);
                let message = format!(
                    "{} has these keys already, in the section of line {line}: each client needs its own",
                    gate.label()
                );
                findings.error("same-keys", key.header, message);
            } else {
                seen.insert(pair, key.header);
            }
        }
    }
}

fn bytes(given: &Given) -> &[u8] {
    let given = given.base64.as_ref().or(given.passphrase.as_ref());
    given.map_or(&[], |given| &given.value)
}

fn ports(findings: &mut Findings<'_>, draft: &Draft) {
    let mut used: HashMap<Port, (String, Span)> = HashMap::new();
    for port in &draft.knock.ports {
        let why = "it takes authenticated knocks".to_owned();
        used.insert(port.value, (why, port.span));
    }
    for gate in &draft.gates {
        for step in gate.knocks.iter().flat_map(|knock| &knock.sequence.items) {
            let why = "it is a knock of a sequence".to_owned();
            used.entry(step.value).or_insert((why, step.span));
        }
        for port in &gate.protect {
            let why = format!("{} guards it", gate.label());
            used.insert(port.value, (why, port.span));
        }
    }
    for Located { value: port, span } in &draft.fwknop.ports {
        if port.protocol != Protocol::Udp {
            let message = format!(
                "{port} cannot be a port of fwknop's: its clients send UDP; write {}/udp",
                port.number
            );
            findings.error("fwknop-port-conflict", *span, message);
        } else if let Some((why, at)) = used.get(port) {
            let place = if *span == Span::default() {
                // The default, which stands nowhere.
                *at
            } else {
                *span
            };
            let line = findings.source.line_of(*at);
            let message = format!(
                "{port} cannot be a port of fwknop's: {why}, on line {line}; choose another one"
            );
            findings.error("fwknop-port-conflict", place, message);
        }
    }
}

pub(in crate::config) fn lint(findings: &mut Findings<'_>, draft: &Draft) {
    for (_, key) in keys(draft) {
        key.key.lint(findings);
        key.hmac_key.lint(findings);
    }
}
