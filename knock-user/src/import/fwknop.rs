//! fwknop's `access.conf`, by the rules of version 2.6.
//!
//! A stanza admits who sends one packet that is made with its keys. It becomes a client of fwknop at one gate for each of
//! its ports, so that a packet opens the ports that it asks for and no others. Where its keys cannot be used here, the
//! gates are there without a client, opened by `allow` alone: a sequence is in clear and can be sent again by whoever
//! has seen it, so none is put in a key's place.

use std::collections::BTreeSet;

use clap::ValueEnum as _;
use ipnet::IpNet;

use super::{
    Fate, Imported, Report,
    gates::{Client, Entry, Gates, Refusal},
};
use crate::{config::fwknop::HmacDigest, values::Port};

/// fwknopd's own, in seconds.
const ACCESS_TIMEOUT: u64 = 30;
const INTERFACE: &str = "eth0";

struct Stanza {
    line: usize,
    values: Vec<Value>,
}

struct Value {
    line: usize,
    key: String,
    value: String,
}

/// Turns the text of an `access.conf` into a configuration. `draw` makes the sequence that each gate has as a comment.
///
/// # Errors
/// Where `draw` fails.
pub fn import(
    text: &str,
    mut draw: impl FnMut() -> anyhow::Result<Vec<Port>>,
) -> anyhow::Result<Imported> {
    let mut report = Report::default();
    let stanzas = read(text, &mut report);
    let mut gates = Gates::default();
    gates.interfaces.push(INTERFACE.to_owned());
    let default = "as fwknopd's default, eth0; PCAP_INTF in fwknopd.conf may name another";
    report.add(0, "interface", Fate::Carried, default);
    let port = "as [fwknop] ports, the client's default, 62201/udp; PCAP_FILTER and UDPSERV_PORT in fwknopd.conf may name another";
    report.add(0, "port", Fate::Carried, port);
    for (nth, stanza) in (1..).zip(stanzas) {
        let line = stanza.line;
        let mut of_stanza = Report::default();
        let mut written = false;
        if let Some(parts) = parts(nth, stanza, &mut of_stanza) {
            for port in &parts.ports {
                written |= write(
                    parts.entry(*port),
                    line,
                    &draw()?,
                    &mut gates,
                    &mut of_stanza,
                );
            }
        }
        report.add_section(of_stanza, line, "stanza", written);
    }
    let configuration = (!gates.is_empty()).then(|| gates.text());
    Ok(Imported {
        configuration,
        report: report.in_order(),
    })
}

/// Adds one port of a stanza to the gates, and returns whether it could be. Where no client opens it, with a sequence as a
/// comment.
fn write(
    mut entry: Entry,
    line: usize,
    sequence: &[Port],
    gates: &mut Gates,
    report: &mut Report,
) -> bool {
    if entry.client.is_none() {
        let sequence: Vec<_> = sequence.iter().map(|port| format!("\"{port}\"")).collect();
        entry.comment = format!(
            "Opened by `knockgate allow SOURCE --gate {}` alone. A sequence is weaker than the key that it would\n\
             stand for: who has seen it can send it again. To accept that:\n\
             [[gate.knock]]\n\
             user     = \"{}\"\n\
             sequence = [{}]",
            entry.name,
            entry.name,
            sequence.join(", ")
        );
    }
    match gates.add(entry) {
        Ok(added) => {
            let text = if added.user.is_empty() {
                format!("as gate {:?}, without a client", added.gate)
            } else {
                format!("as client {:?} of gate {:?}", added.user, added.gate)
            };
            report.add(line, "stanza", Fate::Carried, text);
            return true;
        }
        Err(Refusal::Weaker(why)) => report.add(line, "stanza", Fate::Weaker, why),
        Err(Refusal::Impossible(why)) => report.add(line, "stanza", Fate::NotCarried, why),
    }
    false
}

/// Takes the file apart. A stanza begins with SOURCE.
fn read(text: &str, report: &mut Report) -> Vec<Stanza> {
    let mut stanzas: Vec<Stanza> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if key.starts_with('%') {
            let text = "other files are not followed: import each by itself";
            report.add(number, key, Fate::Invalid, text);
            continue;
        }
        let key = key.trim_end_matches(':').to_ascii_uppercase();
        let value = value.split(';').next().unwrap_or_default().trim();
        if key == "SOURCE" {
            stanzas.push(Stanza {
                line: number,
                values: Vec::new(),
            });
        }
        match stanzas.last_mut() {
            Some(stanza) => stanza.values.push(Value {
                line: number,
                key,
                value: value.to_owned(),
            }),
            None => report.add(
                number,
                "the line",
                Fate::Invalid,
                "it stands before any SOURCE",
            ),
        }
    }
    stanzas
}

/// What a stanza comes to.
struct Parts {
    line: usize,
    ports: BTreeSet<Port>,
    open_for: u64,
    source: Vec<IpNet>,
    client: Option<Client>,
}

impl Parts {
    /// Returns the gate of one of its ports.
    fn entry(&self, port: Port) -> Entry {
        let protocol = port.protocol;
        let sources = if self.client.is_some() {
            // Of the client, and not of the gate: others may share it.
            Vec::new()
        } else {
            self.source.clone()
        };
        Entry {
            origin: format!("The stanza of line {}", self.line),
            name: format!("{protocol}-{}", port.number),
            protect: BTreeSet::from([port]),
            open_for: Some(self.open_for),
            sources,
            knock: None,
            hooks: Vec::new(),
            client: self.client.clone(),
            comment: String::new(),
        }
    }
}

/// What is known of the client of a stanza.
struct Keys {
    user: String,
    key: Option<(&'static str, String)>,
    hmac_key: Option<(&'static str, String)>,
    digest: HmacDigest,
    require_source_address: bool,
    /// Why there can be none.
    refused: bool,
}

/// The value of a key that has not been set, as packages install it.
const PLACEHOLDER: &str = "__CHANGEME__";
const PLACEHOLDER_TEXT: &str =
    "it is the placeholder of a new installation: `fwknop --key-gen` draws keys";

impl Keys {
    /// Reads a line about the client, if it is one.
    fn read(&mut self, key: &str, value: &str) -> Option<(Fate, String)> {
        let carried = |as_key: &str| (Fate::Carried, format!("as {as_key}"));
        Some(match key {
            "KEY" | "KEY_BASE64" | "HMAC_KEY" | "HMAC_KEY_BASE64" if value == PLACEHOLDER => {
                (Fate::NotCarried, PLACEHOLDER_TEXT.into())
            }
            "KEY" | "KEY_BASE64" => {
                let name = if key == "KEY" { "key" } else { "key_base64" };
                self.key = Some((name, value.to_owned()));
                carried(name)
            }
            "HMAC_KEY" | "HMAC_KEY_BASE64" => {
                let name = if key == "HMAC_KEY" {
                    "hmac_key"
                } else {
                    "hmac_key_base64"
                };
                self.hmac_key = Some((name, value.to_owned()));
                carried(name)
            }
            "HMAC_DIGEST_TYPE" => {
                if let Ok(digest) = HmacDigest::from_str(value, true) {
                    self.digest = digest;
                    carried("hmac_digest_type")
                } else {
                    self.refused = true;
                    (Fate::Invalid, "it is no digest that fwknop has".into())
                }
            }
            "REQUIRE_SOURCE" | "REQUIRE_SOURCE_ADDRESS" => {
                self.require_source_address = is_yes(value);
                carried("require_source_address")
            }
            "REQUIRE_USERNAME" => {
                let names = super::name_of(value);
                if !names.is_empty() {
                    self.user = names;
                }
                let text = "a key belongs to one user, who is called so here; the name in a packet is not looked at";
                (Fate::NotCarried, text.into())
            }
            "ENCRYPTION_MODE" if value.eq_ignore_ascii_case("cbc") => {
                (Fate::Carried, "as the only mode".into())
            }
            "ENCRYPTION_MODE" => {
                self.refused = true;
                let text = "only CBC is read: have the client use it, and add its keys by hand";
                (Fate::NotCarried, text.into())
            }
            "ACCESS_EXPIRE" | "ACCESS_EXPIRE_EPOCH" => {
                self.refused = true;
                let text = "keys of fwknop's do not expire here, so the client is left out";
                (Fate::Weaker, text.into())
            }
            _ => return None,
        })
    }

    fn client(self, source: Vec<IpNet>, line: usize, report: &mut Report) -> Option<Client> {
        let Self {
            user,
            key,
            hmac_key,
            digest,
            require_source_address,
            refused,
        } = self;
        if hmac_key.is_none() {
            let text = "a client is let in only by a packet with an HMAC: add HMAC_KEY_BASE64 at both ends";
            report.add(line, "stanza without HMAC_KEY", Fate::NotCarried, text);
        }
        let digest = digest.to_possible_value();
        let client = Client {
            user,
            source,
            key: key?,
            hmac_key: hmac_key?,
            hmac_digest_type: digest.map_or_else(String::new, |word| word.get_name().to_owned()),
            require_source_address,
        };
        (!refused).then_some(client)
    }
}

fn is_yes(value: &str) -> bool {
    value.eq_ignore_ascii_case("y") || value.eq_ignore_ascii_case("yes")
}

/// Reads a stanza.
fn parts(nth: usize, stanza: Stanza, report: &mut Report) -> Option<Parts> {
    let Stanza { line, values } = stanza;
    let (mut sources, mut protect, mut open_for) = (Some(Vec::new()), BTreeSet::new(), None);
    let mut keys = Keys {
        user: format!("stanza-{nth}"),
        key: None,
        hmac_key: None,
        digest: HmacDigest::default(),
        require_source_address: false,
        refused: false,
    };
    let mut refused = false;
    for Value { line, key, value } in values {
        if let Some((fate, text)) = keys.read(&key, &value) {
            report.add(line, &key, fate, text);
            continue;
        }
        let (fate, text) = match key.as_str() {
            "SOURCE" => {
                sources = networks(&value);
                match &sources {
                    Some(list) if list.is_empty() => (Fate::Carried, "as source = []: every network".into()),
                    Some(list) => (Fate::Carried, format!("as source, {} of them", list.len())),
                    None => (Fate::Invalid, "it is no list of addresses and networks".into()),
                }
            }
            "OPEN_PORTS" => match ports(&value) {
                Some(ports) => {
                    let listed: Vec<_> = ports.iter().map(Port::to_string).collect();
                    protect = ports;
                    (Fate::Carried, format!("as a gate for each of {listed:?}"))
                }
                None => (Fate::Invalid, "it is no list such as tcp/22, udp/1194".into()),
            },
            "FW_ACCESS_TIMEOUT" => match value.parse() {
                Ok(seconds) if seconds > 0 => {
                    open_for = Some(seconds);
                    (Fate::Carried, format!("as open_for = \"{seconds}s\""))
                }
                _ => (Fate::Invalid, "it is no number of seconds above 0".into()),
            },
            "MAX_FW_TIMEOUT" => (
                Fate::NotCarried,
                "a packet can ask for a shorter time than the gate's open_for, and for no longer one".into(),
            ),
            "RESTRICT_PORTS" => (
                Fate::NotCarried,
                "a gate opens its own ports and no other".into(),
            ),
            "DESTINATION" if value.eq_ignore_ascii_case("any") => {
                (Fate::Carried, "as addresses = []: every address".into())
            }
            "DESTINATION" => {
                refused = true;
                (
                    Fate::Weaker,
                    "set the gate's `protect_at`, or `addresses` for the whole host, by hand".into(),
                )
            }
            key if key.starts_with("GPG_") => (
                Fate::NotCarried,
                "packets made with GnuPG are refused: give the client KEY_BASE64 and HMAC_KEY_BASE64".into(),
            ),
            "ENABLE_CMD_EXEC" | "ENABLE_CMD_SUDO_EXEC" | "CMD_EXEC_USER" | "CMD_EXEC_GROUP"
            | "CMD_SUDO_EXEC_USER" | "CMD_SUDO_EXEC_GROUP" => (
                Fate::NotCarried,
                "a packet cannot bring a command to run; a hook runs one that the configuration names".into(),
            ),
            "CMD_CYCLE_OPEN" | "CMD_CYCLE_CLOSE" | "CMD_CYCLE_TIMER" => (
                Fate::NotCarried,
                "write the command as a [[gate.hook]], with {source} for its address".into(),
            ),
            "FORCE_NAT" | "FORCE_SNAT" | "FORCE_MASQUERADE" | "DISABLE_DNAT" | "FORWARD_ALL"
            | "ENABLE_NAT" => (
                Fate::NotCarried,
                "knockgate does not redirect packets: leave that to nftables, and guard the port before it".into(),
            ),
            _ => (Fate::NotCarried, "it has no counterpart".into()),
        };
        report.add(line, &key, fate, text);
    }
    if protect.is_empty() {
        let text =
            "without OPEN_PORTS, each packet names the ports to open, and a gate lists its own";
        report.add(line, "stanza", Fate::NotCarried, text);
        return None;
    }
    if refused {
        report.add(line, "stanza", Fate::Weaker, "see its lines");
        return None;
    }
    let source = sources?;
    Some(Parts {
        line,
        ports: protect,
        open_for: open_for.unwrap_or(ACCESS_TIMEOUT),
        client: keys.client(source.clone(), line, report),
        source,
    })
}

/// Returns the networks of a list; none of them stands for every network.
fn networks(list: &str) -> Option<Vec<IpNet>> {
    if list.eq_ignore_ascii_case("any") {
        return Some(Vec::new());
    }
    let mut found = Vec::new();
    for part in list.split(',') {
        let part = part.trim();
        // fwknop takes a netmask in place of a length, and bits behind it.
        let network = match part.split_once('/') {
            Some((address, mask)) if mask.contains('.') => {
                IpNet::with_netmask(address.parse().ok()?, mask.parse().ok()?).ok()?
            }
            Some(_) => part.parse().ok()?,
            None => IpNet::from(part.parse::<std::net::IpAddr>().ok()?),
        };
        found.push(network.trunc());
    }
    found.dedup();
    Some(found)
}

/// Returns the ports of a list such as `tcp/22, udp/1194`.
fn ports(list: &str) -> Option<BTreeSet<Port>> {
    let parts = list.split(',').map(|part| {
        let (protocol, number) = part.trim().split_once('/')?;
        let number = number.parse().ok().filter(|number| *number > 0)?;
        let protocol = protocol.to_ascii_lowercase().parse().ok()?;
        Some(Port { number, protocol })
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn imported(text: &str) -> Imported {
        let drawn = ["7431/udp", "2214/tcp", "9120/udp"];
        import(text, || {
            Ok(drawn.map(|port| port.parse().expect("a port")).to_vec())
        })
        .expect("the sequence was given")
    }

    const KEYS: &str = "KEY_BASE64 c2VjcmV0LWtleS1vZi1hbi1leGFtcGxlLW9ubHktMDE=\n\
        HMAC_KEY_BASE64: c2VjcmV0LWhtYWMtb2YtYW4tZXhhbXBsZS1vbmx5LTA=;\nHMAC_DIGEST_TYPE SHA3_256\n";

    fn gates(imported: &Imported) -> Vec<crate::config::Gate> {
        let text = imported.configuration.as_deref().expect("a gate");
        let (config, _) = Config::parse(text, "imported").expect("it passes check");
        config.gates
    }

    #[test]
    fn a_stanza_is_a_client_at_a_gate_for_each_port() {
        let imported = imported(&format!(
            "SOURCE: 10.1.2.3/8, 192.0.2.7, 198.51.100.9/255.255.255.0;\nOPEN_PORTS tcp/22, udp/1194\n{KEYS}\
             FW_ACCESS_TIMEOUT 60\nREQUIRE_SOURCE_ADDRESS y\n"
        ));
        let gates = gates(&imported);
        let names: Vec<_> = gates.iter().map(|gate| gate.name.as_str()).collect();
        assert_eq!(names, ["tcp-22", "udp-1194"]);
        for gate in &gates {
            assert_eq!(gate.open_for.as_secs(), 60);
            assert!(gate.knocks.is_empty() && gate.sources.is_empty());
            let [key] = gate.fwknop.as_slice() else {
                panic!("{gate:?}");
            };
            let source: Vec<_> = key.source.iter().map(IpNet::to_string).collect();
            assert_eq!(source, ["10.0.0.0/8", "192.0.2.7/32", "198.51.100.0/24"]);
            assert_eq!(*key.secrets.key, *b"secret-key-of-an-example-only-01");
            assert_eq!(key.hmac_digest_type, HmacDigest::Sha3_256);
            assert!(key.require_source_address);
        }
        assert!(!imported.report.is_weaker(), "{:?}", imported.report);
        for remark in &imported.report.remarks {
            assert!(!remark.text.contains("c2VjcmV0"), "{remark:?}");
        }
    }

    #[test]
    fn stanzas_of_the_same_port_are_clients_of_one_gate() {
        let other = KEYS.replace("c2VjcmV0LWtleS", "b2VjcmV0LWtleS");
        let imported = imported(&format!(
            "SOURCE 10.0.0.0/8\nOPEN_PORTS tcp/22\nREQUIRE_USERNAME alice\n{KEYS}\
             SOURCE ANY\nOPEN_PORTS tcp/22\nREQUIRE_USERNAME alice\nFW_ACCESS_TIMEOUT 10\n{other}"
        ));
        let gates = gates(&imported);
        let [gate] = gates.as_slice() else {
            panic!("{gates:?}");
        };
        let clients: Vec<_> = gate
            .fwknop
            .iter()
            .map(|key| (&*key.user, key.source.len()))
            .collect();
        assert_eq!(clients, [("alice", 1), ("alice-2", 0)]);
        assert_eq!(gate.open_for.as_secs(), 10);
    }

    #[test]
    fn without_keys_that_can_be_used_there_is_no_client() {
        let hmac = "HMAC_KEY something-that-is-long-enough\n";
        for (lines, weaker) in [
            ("KEY secret\n".to_owned(), false),
            (hmac.to_owned(), false),
            (format!("KEY secret\n{hmac}ENCRYPTION_MODE CTR\n"), false),
            (format!("KEY __CHANGEME__\n{hmac}"), false),
            (
                format!("KEY secret\n{hmac}ACCESS_EXPIRE 12/31/2030\n"),
                true,
            ),
            ("GPG_DECRYPT_ID ABCD1234\n".to_owned(), false),
        ] {
            let imported = imported(&format!("SOURCE ANY\nOPEN_PORTS tcp/22\n{lines}"));
            let text = imported.configuration.as_deref().unwrap_or_default();
            assert!(text.contains("# sequence = [\"7431/udp\""), "{text}");
            assert!(gates(&imported)[0].fwknop.is_empty(), "{lines}");
            assert!(!text.contains("secret"), "{text}");
            assert_eq!(imported.report.is_weaker(), weaker, "{lines}");
        }
    }

    #[test]
    fn what_cannot_be_a_gate_is_left_out() {
        for (text, weaker) in [
            ("SOURCE ANY\nKEY x\n", false),
            (
                "SOURCE ANY\nOPEN_PORTS tcp/22\nDESTINATION 10.0.0.1\n",
                true,
            ),
            ("%include /etc/fwknop/more.conf\n", true),
            ("SOURCE nonsense\nOPEN_PORTS tcp/22\n", true),
        ] {
            let imported = imported(text);
            assert!(imported.configuration.is_none(), "{text}");
            assert_eq!(imported.report.is_weaker(), weaker, "{text}");
        }
    }
}
