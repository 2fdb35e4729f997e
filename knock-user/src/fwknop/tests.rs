//! Packets that fwknop's client has made, and what becomes of changed ones.

use std::net::IpAddr;

use knock_common::knock::fwknop::Outcome;
use proptest::{prelude::*, test_runner::Config as Runs};
use tempfile::TempDir;

use super::{
    keyring::{Accepted, Keyring, Opening, Refused},
    packet::{self, Content},
    seen::{Fingerprint, KEPT, Seen},
};
use crate::config::Config;

/// Made by fwknop client 2.6.10.
const VECTORS: &str = include_str!("vectors.tsv");

/// A packet, with the keys that it was made by.
struct Vector {
    name: &'static str,
    key: &'static str,
    hmac_key: &'static str,
    digest: &'static str,
    mode: &'static str,
    packet: &'static str,
    message: &'static str,
}

fn vectors() -> impl Iterator<Item = Vector> {
    let rows = VECTORS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .skip(1);
    rows.map(|row| {
        let cells: Vec<_> = row.split('\t').collect();
        let [name, key, hmac_key, digest, _, mode, packet, message] = cells[..] else {
            panic!("{row}");
        };
        Vector {
            name,
            key,
            hmac_key,
            digest,
            mode,
            packet,
            message,
        }
    })
}

fn vector(name: &str) -> Vector {
    vectors()
        .find(|vector| vector.name == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

const SOURCE: &str = "10.1.2.3";
/// Not long after the packets were made.
const NOW: u64 = 1_795_399_830;

impl Vector {
    /// The section of its keys, with these lines besides.
    fn section(&self, more: &str) -> String {
        let key = match self.key.strip_prefix("pass:") {
            Some(passphrase) => format!("key = {passphrase:?}"),
            None => format!("key_base64 = {:?}", self.key),
        };
        let (hmac_key, digest) = match self.hmac_key {
            // It has none, but every key must.
            "-" => ("bm9uZQ==", "sha256"),
            hmac_key => (hmac_key, self.digest),
        };
        format!(
            "[[gate.fwknop]]\nuser = 'alice'\n{key}\nhmac_key_base64 = {hmac_key:?}\n\
             hmac_digest_type = '{digest}'\n{more}"
        )
    }

    fn time(&self) -> u64 {
        let time = self.message.split(':').nth(2);
        time.and_then(|time| time.parse().ok()).expect("a time")
    }
}

fn config(gates: &str) -> Config {
    Config::parse(gates, "k.toml").expect("valid").0
}

fn keyring(config: &Config) -> Keyring {
    let (ring, missing) = Keyring::new(config, |_, key| Some(key.secrets.clone()));
    assert!(missing.is_empty());
    ring
}

/// One gate for 22/tcp with the key of a vector.
fn gate_of(vector: &Vector) -> Config {
    config(&format!(
        "[[gate]]\nname = 'ssh'\nprotect = ['22/tcp']\n{}",
        vector.section("")
    ))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

/// A memory in a folder that goes with it.
struct Memory {
    seen: Seen,
    _folder: TempDir,
}

impl Memory {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            seen: Seen::load(folder.path().join("seen.fwknop"), NOW),
            _folder: folder,
        }
    }
}

/// Judges a packet by filter and keys.
fn judged(
    ring: &Keyring,
    payload: &[u8],
    source: &str,
    now: u64,
    memory: &mut Memory,
) -> Result<Accepted, Outcome> {
    let source = ip(source);
    let refused = |refused: Refused| refused.outcome;
    ring.filter(payload, source).map_err(refused)?;
    ring.judge(payload, source, now, &mut memory.seen)
        .map_err(refused)
}

#[test]
fn every_packet_of_the_client_is_read_or_refused_by_name() {
    let mut accepted = 0;
    for vector in vectors() {
        let Vector { name, mode, .. } = vector;
        let ring = keyring(&gate_of(&vector));
        let now = vector.time() + 30;
        let mut memory = Memory::new();
        let found = judged(&ring, vector.packet.as_bytes(), SOURCE, now, &mut memory);
        let expected = match (mode, name) {
            ("cbc", "nohmac_pass") => Err(Outcome::NoHmac),
            ("legacy", _) => Err(Outcome::Legacy),
            ("cbc", "nat" | "timeout_nat") => Err(Outcome::Nat),
            ("cbc", "local_nat" | "timeout_local_nat") => Err(Outcome::LocalNat),
            ("cbc", "command") => Err(Outcome::Command),
            ("cbc", _) => Ok(()),
            _ => Err(Outcome::Unreadable),
        };
        assert_eq!(
            found.as_ref().map(|_| ()).map_err(|outcome| *outcome),
            expected,
            "{name}"
        );
        let Ok(request) = found.map(|found| found.request) else {
            continue;
        };
        accepted += 1;
        assert_eq!(
            request.timeout.is_some(),
            name == "timeout_access",
            "{name}"
        );
        assert_eq!(request.address.is_none(), name == "access_src0", "{name}");
        assert!(
            request
                .ports
                .contains(&Some("22/tcp".parse().expect("a port"))),
            "{name}"
        );
    }
    assert_eq!(accepted, 17);
}

#[test]
fn what_is_decrypted_is_what_the_client_has_encrypted() {
    for vector in vectors().filter(|vector| vector.mode == "cbc" && vector.hmac_key != "-") {
        let config = gate_of(&vector);
        let key = &config.gates[0].fwknop[0];
        let code = packet::Code::new(key.hmac_digest_type, &key.secrets.hmac_key);
        let text = code.verified(vector.packet.as_bytes()).expect(vector.name);
        let message = Content::Message(vector.message.to_owned());
        assert_eq!(
            packet::content(&key.secrets.key, text),
            message,
            "{}",
            vector.name
        );
        // Another key of the cipher.
        let other = packet::content(b"another", text);
        assert_ne!(other, message, "{}", vector.name);
    }
}

#[test]
fn a_packet_is_accepted_once() {
    let vector = vector("access");
    let ring = keyring(&gate_of(&vector));
    let mut memory = Memory::new();
    let mut judge = |now| judged(&ring, vector.packet.as_bytes(), SOURCE, now, &mut memory).err();
    assert_eq!(judge(NOW), None);
    assert_eq!(judge(NOW), Some(Outcome::Replay));
    assert_eq!(judge(vector.time() + 120), Some(Outcome::Replay));
    assert_eq!(judge(vector.time() + 100_000), Some(Outcome::Replay));
}

#[test]
fn its_time_decides() {
    let vector = vector("access");
    let ring = keyring(&gate_of(&vector));
    let time = vector.time();
    for (now, stale) in [
        (time - 121, true),
        (time - 120, false),
        (time + 120, false),
        (time + 121, true),
        (0, true),
    ] {
        let mut memory = Memory::new();
        let found = judged(&ring, vector.packet.as_bytes(), SOURCE, now, &mut memory).err();
        assert_eq!(
            found,
            stale.then_some(Outcome::Stale),
            "{}",
            now.cast_signed() - time.cast_signed()
        );
    }
    // One that came too early is not accepted when its time has come.
    let mut memory = Memory::new();
    for (now, outcome) in [(time - 200, Outcome::Stale), (time, Outcome::Replay)] {
        let found = judged(&ring, vector.packet.as_bytes(), SOURCE, now, &mut memory).err();
        assert_eq!(found, Some(outcome));
    }
}

#[test]
fn form_and_source_are_looked_at_first() {
    let vector = vector("access");
    let section = vector.section("source = ['10.1.0.0/16', '2001:db8::/32']\n");
    let ring = keyring(&config(&format!(
        "[[gate]]\nname = 'ssh'\nprotect = ['22/tcp']\n{section}"
    )));
    let packet = vector.packet.to_owned();
    let with_prefix = format!("U2FsdGVkX1{packet}");
    let gpg = format!("EMA{}", "a".repeat(500));
    let too_long = "8".repeat(1501);
    let (short, newline) = (packet[..139].to_owned(), format!("{packet}\n"));
    for (payload, source, expected) in [
        (&packet, SOURCE, None),
        (&packet, "10.2.0.1", Some(Outcome::Source)),
        (&packet, "2001:db9::1", Some(Outcome::Source)),
        (&packet, "2001:db8::1", None),
        (&with_prefix, SOURCE, Some(Outcome::Malformed)),
        (&newline, SOURCE, Some(Outcome::Malformed)),
        (&short, SOURCE, Some(Outcome::Malformed)),
        (&too_long, SOURCE, Some(Outcome::Malformed)),
        (&gpg, SOURCE, Some(Outcome::Gpg)),
        (
            &packet.replace('=', "").replacen('a', "-", 1),
            SOURCE,
            Some(Outcome::Malformed),
        ),
    ] {
        let found = judged(&ring, payload.as_bytes(), source, NOW, &mut Memory::new()).err();
        assert_eq!(found, expected, "{payload} from {source}");
    }
}

/// The openings of a packet, by the names of gates, users and addresses.
fn openings(
    config: &Config,
    name: &str,
    source: &str,
) -> Result<Vec<(String, String, String)>, Outcome> {
    let ring = keyring(config);
    let packet = vector(name).packet.as_bytes();
    let accepted = judged(&ring, packet, source, NOW, &mut Memory::new())?;
    let openings = ring.openings(&accepted, ip(source), config)?;
    let named = |Opening {
                     gate,
                     user,
                     address,
                 }| (gate, user, address.to_string());
    Ok(openings.into_iter().map(named).collect())
}

fn one(gate: &str, user: &str, address: &str) -> (String, String, String) {
    (gate.to_owned(), user.to_owned(), address.to_owned())
}

#[test]
fn ports_lead_to_the_gates_that_guard_them_and_have_the_key() {
    let access = vector("access");
    let key = access.section("");
    // `access_multi` asks for tcp/22, udp/53 and tcp/443.
    let ssh = |keys: &str| format!("[[gate]]\nname = 'ssh'\nprotect = ['22/tcp']\n{keys}");
    let web =
        |keys: &str| format!("[[gate]]\nname = 'web'\nprotect = ['53/udp', '443/tcp']\n{keys}");
    let bobs = key.replace("'alice'", "'bob'");
    let others = key.replace("hmac_key_base64 = \"O", "hmac_key_base64 = \"P");
    let both = config(&format!("{}{}", ssh(&key), web(&bobs)));
    assert_eq!(
        openings(&both, "access", SOURCE),
        Ok(vec![one("ssh", "alice", "10.1.2.3")])
    );
    for (gates, expected) in [
        (
            format!("{}{}", ssh(&key), web(&bobs)),
            Ok(vec![
                one("ssh", "alice", "10.1.2.3"),
                one("web", "bob", "10.1.2.3"),
            ]),
        ),
        (format!("{}{}", ssh(&key), web("")), Err(Outcome::Gate)),
        (format!("{}{}", ssh(&key), web(&others)), Err(Outcome::Gate)),
        (ssh(&key), Err(Outcome::Gate)),
    ] {
        assert_eq!(
            openings(&config(&gates), "access_multi", SOURCE),
            expected,
            "{gates}"
        );
    }
    let wide = format!("[[gate]]\nname = 'all'\nprotect = ['22/tcp', '53/udp', '443/tcp']\n{key}");
    assert_eq!(
        openings(&config(&wide), "access_multi", SOURCE),
        Ok(vec![one("all", "alice", "10.1.2.3")])
    );
}

#[test]
fn who_passes_is_named_or_where_it_comes_from_and_must_be_allowed_to_knock() {
    let access = vector("access");
    let gate = |lines: &str, more: &str| {
        let section = access.section(more);
        config(&format!(
            "[[gate]]\nname = 'ssh'\nprotect = ['22/tcp']\n{lines}{section}"
        ))
    };
    let strict = gate("", "require_source_address = true\n");
    let usual = gate("", "");
    let named = Ok(vec![one("ssh", "alice", "10.1.2.3")]);
    assert_eq!(openings(&usual, "access", "192.0.2.7"), named);
    assert_eq!(openings(&strict, "access", "192.0.2.7"), named);
    for source in ["192.0.2.7", "2001:db8::7"] {
        let passes = Ok(vec![one("ssh", "alice", source)]);
        assert_eq!(openings(&usual, "access_src0", source), passes);
        assert_eq!(
            openings(&strict, "access_src0", source),
            Err(Outcome::Address)
        );
    }
    let restricted = gate("sources = ['10.1.0.0/16']\n", "");
    assert_eq!(openings(&restricted, "access", "10.1.9.9"), named);
    assert_eq!(
        openings(&restricted, "access", "192.0.2.7"),
        Err(Outcome::Source)
    );
    let elsewhere = gate("sources = ['192.0.2.0/24']\n", "");
    assert_eq!(
        openings(&elsewhere, "access", "192.0.2.7"),
        Err(Outcome::Source)
    );
}

#[test]
fn a_key_that_is_gone_accepts_nothing_more() {
    let access = vector("access");
    let before = keyring(&gate_of(&access));
    let packet = access.packet.as_bytes();
    let accept = || judged(&before, packet, SOURCE, NOW, &mut Memory::new()).expect("accepted");
    assert!(
        keyring(&gate_of(&access))
            .again(&before, accept())
            .is_some()
    );
    assert!(
        keyring(&gate_of(&vector("pass32")))
            .again(&before, accept())
            .is_none()
    );
}

#[test]
fn a_message_says_no_more_than_it_may() {
    use super::message::read;
    let message = |kind: &str, asked: &str, rest: &str| {
        let asked = base64::Engine::encode(&base64::prelude::BASE64_STANDARD_NO_PAD, asked);
        format!("1234567890123456:YWxpY2U:1795399800:3.0.0:{kind}:{asked}{rest}")
    };
    for (kind, asked, rest, outcome) in [
        ("1", "10.0.0.1,tcp/22", ":60", Outcome::Message),
        ("3", "10.0.0.1,tcp/22", "", Outcome::Message),
        ("3", "10.0.0.1,tcp/22", ":-1", Outcome::Message),
        ("3", "10.0.0.1,tcp/22", ":+1", Outcome::Message),
        ("3", "10.0.0.1,tcp/22", ":65537", Outcome::Message),
        ("7", "10.0.0.1,tcp/22", "", Outcome::Message),
        ("", "10.0.0.1,tcp/22", "", Outcome::Message),
        ("1", "10.0.0.1", "", Outcome::Message),
        ("1", "10.0.0,tcp/22", "", Outcome::Message),
        ("1", "::1,tcp/22", "", Outcome::Message),
        ("1", "10.0.0.1,tcp/22,", "", Outcome::Message),
        ("1", "10.0.0.1,tcp/65536", "", Outcome::Message),
        ("1", "10.0.0.1,tcp/+22", "", Outcome::Message),
        ("1", "10.0.0.1,sctp/22", "", Outcome::Message),
        ("1", "10.0.0.1,22/tcp", "", Outcome::Message),
        ("0", "10.0.0.1,id", "", Outcome::Command),
        ("4", "10.0.0.1,tcp/22", ":x:60", Outcome::Nat),
        ("6", "10.0.0.1,tcp/22", ":x:60", Outcome::LocalNat),
    ] {
        assert_eq!(
            read(&message(kind, asked, rest)),
            Err(outcome),
            "{kind} {asked} {rest}"
        );
    }
    let read = |kind, asked, rest| read(&message(kind, asked, rest)).expect("right");
    assert_eq!(read("3", "10.0.0.1,tcp/22", ":0").timeout, None);
    assert_eq!(read("3", "10.0.0.1,tcp/22", ":65536").timeout, Some(65_536));
    assert_eq!(
        read("1", "10.0.0.1,icmp/0,none/0,tcp/0", "").ports,
        [None, None, None]
    );
    assert_eq!(read("1", "0.0.0.0,udp/1", "").address, None);
}

#[test]
fn what_another_host_has_accepted_is_a_copy_here() {
    let vector = vector("access");
    let (ring, payload) = (keyring(&gate_of(&vector)), vector.packet.as_bytes());
    let mut there = Memory::new();
    assert!(judged(&ring, payload, SOURCE, NOW, &mut there).is_ok());
    let print = there.seen.fingerprint(payload).expect("it was accepted");
    let mut here = Memory::new();
    here.seen.hear(print, NOW);
    assert_eq!(
        judged(&ring, payload, SOURCE, NOW, &mut here).err(),
        Some(Outcome::Replay)
    );
    // What nobody would accept any more, or for a long time, takes no room.
    for time in [NOW - KEPT - 1, NOW + KEPT + 1] {
        let mut here = Memory::new();
        here.seen.hear(Fingerprint { time, ..print }, NOW);
        assert!(!here.seen.has(payload), "{time}");
    }
}

proptest! {
    #![proptest_config(Runs::with_cases(256))]

    /// Whatever is changed in a packet, it is refused, and is not taken for one that was accepted.
    #[test]
    fn a_packet_with_any_bit_changed_is_refused(
        which in 0..3_usize,
        place in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let vector = vector(["access", "hmac_sha1", "hmac_sha3_512"][which]);
        let ring = keyring(&gate_of(&vector));
        let mut payload = vector.packet.as_bytes().to_vec();
        let at = place.index(payload.len());
        payload[at] ^= 1 << bit;
        let mut memory = Memory::new();
        prop_assert!(judged(&ring, vector.packet.as_bytes(), SOURCE, NOW, &mut memory).is_ok());
        let found = judged(&ring, &payload, SOURCE, NOW, &mut memory).err();
        prop_assert!(matches!(found, Some(Outcome::Forged | Outcome::Malformed)), "{found:?}");
    }

    /// Nothing that can arrive makes it panic, and nothing is accepted.
    #[test]
    fn junk_is_refused(
        payload in prop::collection::vec(
            prop_oneof![9 => prop::sample::select(b"89+/EIabcZ0".to_vec()), 1 => any::<u8>()],
            0..1600,
        ),
    ) {
        let config = gate_of(&vector("access"));
        let ring = keyring(&config);
        prop_assert!(judged(&ring, &payload, SOURCE, NOW, &mut Memory::new()).is_err());
        let key = &config.gates[0].fwknop[0].secrets.key;
        prop_assert!(!matches!(packet::content(key, &payload), Content::Message(_)));
        prop_assert_eq!(packet::bare(key, &payload), None);
    }

    /// A message of any text is read or refused.
    #[test]
    fn any_message_is_read_or_refused(text in "[0-9]{16}:[A-Za-z0-9:,./=]{0,80}") {
        let _ = super::message::read(&text);
        let _ = super::message::time(&text);
    }
}
