//! fwknop's `access.conf`, by the rules of version 2.6.
//!
//! A stanza admits who sends one packet that is made with its key. A sequence is in clear and can be sent again by
//! whoever has seen it, so none is put in the key's place: the gates of this file are opened by `allow` alone, until
//! knocks can be authenticated.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{
    Fate, Imported, Report,
    gates::{Entry, Gates, Refusal},
};
use crate::config::Port;

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
    for (nth, stanza) in (1..).zip(stanzas) {
        let line = stanza.line;
        let mut of_stanza = Report::default();
        let written = match entry(nth, stanza, &mut of_stanza) {
            Some(entry) => write(entry, line, &draw()?, &mut gates, &mut of_stanza),
            None => false,
        };
        report.add_section(of_stanza, line, "stanza", written);
    }
    let configuration = (!gates.is_empty()).then(|| gates.text());
    Ok(Imported {
        configuration,
        report: report.in_order(),
    })
}

/// Adds a stanza to the gates, with a sequence as a comment, and returns whether it could be.
fn write(
    mut entry: Entry,
    line: usize,
    sequence: &[Port],
    gates: &mut Gates,
    report: &mut Report,
) -> bool {
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
    match gates.add(entry) {
        Ok(added) => {
            let text = format!("as gate {:?}, without a knock", added.gate);
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

const WAITS: &str = "this waits for authenticated knocks";

/// Turns a stanza into a gate without knocks.
fn entry(nth: usize, stanza: Stanza, report: &mut Report) -> Option<Entry> {
    let Stanza { line, values } = stanza;
    let (mut sources, mut protect, mut open_for) = (Some(Vec::new()), BTreeSet::new(), None);
    let mut refused = false;
    for Value { line, key, value } in values {
        let (fate, text) = match key.as_str() {
            "SOURCE" => {
                sources = networks(&value);
                match &sources {
                    Some(list) if list.is_empty() => (Fate::Carried, "as sources = []: every network".into()),
                    Some(list) => (Fate::Carried, format!("as sources, {} of them", list.len())),
                    None => (Fate::Invalid, "it is no list of addresses and networks".into()),
                }
            }
            "OPEN_PORTS" => match ports(&value) {
                Some(ports) => {
                    let listed: Vec<_> = ports.iter().map(Port::to_string).collect();
                    protect = ports;
                    (Fate::Carried, format!("as protect = {listed:?}"))
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
                "a knock cannot ask for another time than the gate's open_for".into(),
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
                    "a gate guards its ports at every address; the key `addresses` is for the whole host".into(),
                )
            }
            "KEY" | "KEY_BASE64" | "HMAC_KEY" | "HMAC_KEY_BASE64" | "HMAC_DIGEST_TYPE"
            | "ENCRYPTION_MODE" | "REQUIRE_USERNAME" | "REQUIRE_SOURCE" | "REQUIRE_SOURCE_ADDRESS"
            | "ACCESS_EXPIRE" | "ACCESS_EXPIRE_EPOCH" => (Fate::NotCarried, WAITS.into()),
            key if key.starts_with("GPG_") => (
                Fate::NotCarried,
                "GnuPG keys have no counterpart; authenticated knocks will have keys of their own".into(),
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
    let name = format!("stanza-{nth}");
    Some(Entry {
        origin: format!("The stanza of line {line}"),
        name,
        protect,
        open_for: Some(open_for.unwrap_or(ACCESS_TIMEOUT)),
        sources: sources?,
        knock: None,
        hooks: Vec::new(),
        comment: String::new(),
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

    #[test]
    fn a_stanza_is_a_gate_without_knocks() {
        let imported = imported(
            "SOURCE: 10.1.2.3/8, 192.0.2.7, 198.51.100.9/255.255.255.0;\nOPEN_PORTS tcp/22, udp/1194\nKEY secret\n\
             FW_ACCESS_TIMEOUT 60\n",
        );
        let text = imported.configuration.expect("a gate");
        let (config, _) = Config::parse(&text, "imported").expect("it passes check");
        let [gate] = config.gates.as_slice() else {
            panic!("{config:?}");
        };
        let sources: Vec<_> = gate.sources.iter().map(IpNet::to_string).collect();
        assert_eq!(sources, ["10.0.0.0/8", "192.0.2.7/32", "198.51.100.0/24"]);
        assert_eq!(gate.open_for.as_secs(), 60);
        assert!(gate.knocks.is_empty() && gate.protect.len() == 2);
        assert!(text.contains("# sequence = [\"7431/udp\""), "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert!(!imported.report.is_weaker(), "{:?}", imported.report);
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
