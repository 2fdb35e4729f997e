//! A stanza: ports, and who may ask for them.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{
    file::{Stanza, Value},
    keys::Keys,
};
use crate::{
    import::{
        Fate, Report,
        gates::{Client, Entry},
    },
    values::Port,
};

/// fwknopd's own, in seconds.
const ACCESS_TIMEOUT: u64 = 30;

/// What a stanza comes to.
pub(super) struct Parts {
    line: usize,
    pub(super) ports: BTreeSet<Port>,
    open_for: u64,
    source: Vec<IpNet>,
    client: Option<Client>,
}

impl Parts {
    /// Returns the gate of one of its ports.
    pub(super) fn entry(&self, port: Port) -> Entry {
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

/// Reads a stanza.
pub(super) fn parts(nth: usize, stanza: Stanza, report: &mut Report) -> Option<Parts> {
    let Stanza { line, values } = stanza;
    let (mut source, mut open, mut open_for) = (None, None, None);
    // `None`: the list cannot be read.
    let mut restricted = Some(BTreeSet::new());
    let mut keys = Keys::new(format!("stanza-{nth}"));
    let mut lines_of_client = Vec::new();
    let mut refused = false;
    for Value { line, key, value } in values {
        if let Some((fate, text)) = keys.read(&key, &value) {
            lines_of_client.push(line);
            report.add(line, &key, fate, text);
            continue;
        }
        let (fate, text) = match key.as_str() {
            "SOURCE" => {
                source = networks(&value).map(|networks| (line, networks));
                if source.is_some() {
                    continue;
                }
                (
                    Fate::Invalid,
                    "it is no list of IPv4 addresses and networks".into(),
                )
            }
            "OPEN_PORTS" => {
                open = ports(&value).map(|ports| (line, ports));
                if open.is_some() {
                    continue;
                }
                (
                    Fate::Invalid,
                    "it is no list such as tcp/22, udp/1194".into(),
                )
            }
            "RESTRICT_PORTS" => {
                restricted = ports(&value);
                match &restricted {
                    Some(_) => (
                        Fate::Carried,
                        "as ports that have no gate for this stanza".into(),
                    ),
                    None => (
                        Fate::Invalid,
                        "it is no list such as tcp/22, udp/1194".into(),
                    ),
                }
            }
            "FW_ACCESS_TIMEOUT" => match value.parse() {
                Ok(seconds) if seconds > 0 => {
                    open_for = Some(seconds);
                    (Fate::Carried, format!("as open_for = \"{seconds}s\""))
                }
                _ => (Fate::Invalid, "it is no number of seconds above 0".into()),
            },
            "DESTINATION" if value.eq_ignore_ascii_case("any") => {
                (Fate::Carried, "as addresses = []: every address".into())
            }
            "DESTINATION" => {
                refused = true;
                (
                    Fate::Weaker,
                    "set the gate's `protect_at`, or `addresses` for the whole host, by hand"
                        .into(),
                )
            }
            key => (Fate::NotCarried, no_counterpart(key).into()),
        };
        report.add(line, &key, fate, text);
    }
    let (source_line, source) = source?;
    let restricted = restricted?;
    let Some((line_of_ports, open)) = open else {
        let text =
            "without OPEN_PORTS, each packet names the ports to open, and a gate lists its own";
        report.add(line, "stanza", Fate::NotCarried, text);
        return None;
    };
    let ports = &open - &restricted;
    let listed: Vec<_> = ports.iter().map(Port::to_string).collect();
    let (fate, text) = if ports.is_empty() {
        (Fate::NotCarried, "RESTRICT_PORTS has all of them".into())
    } else {
        (Fate::Carried, format!("as a gate for each of {listed:?}"))
    };
    report.add(line_of_ports, "OPEN_PORTS", fate, text);
    if refused {
        report.add(line, "stanza", Fate::Weaker, "see its lines");
        return None;
    }
    let client = keys.client(source.clone(), line, report);
    let key = if client.is_some() {
        "source"
    } else {
        "sources"
    };
    let text = match source.len() {
        0 => format!("as {key} = []: every network"),
        many => format!("as {key}, {many} of them"),
    };
    report.add(source_line, "SOURCE", Fate::Carried, text);
    if client.is_none() {
        report.withdraw(&lines_of_client, "its stanza has no client here");
    }
    Some(Parts {
        line,
        ports,
        open_for: open_for.unwrap_or(ACCESS_TIMEOUT),
        client,
        source,
    })
}

/// Returns what to do in place of a line that has no counterpart.
fn no_counterpart(key: &str) -> &'static str {
    match key {
        "MAX_FW_TIMEOUT" => {
            "a packet can ask for a shorter time than the gate's open_for, and for no longer one"
        }
        key if key.starts_with("GPG_") => {
            "packets made with GnuPG are refused: give the client KEY_BASE64 and HMAC_KEY_BASE64"
        }
        "ENABLE_CMD_EXEC"
        | "ENABLE_CMD_SUDO_EXEC"
        | "CMD_EXEC_USER"
        | "CMD_EXEC_GROUP"
        | "CMD_SUDO_EXEC_USER"
        | "CMD_SUDO_EXEC_GROUP" => {
            "a packet cannot bring a command to run; a hook runs one that the configuration names"
        }
        "CMD_CYCLE_CLOSE" | "CMD_CYCLE_TIMER" => {
            "write the command as a [[gate.hook]], with {source} for its address"
        }
        "FORCE_SNAT" | "FORCE_MASQUERADE" | "DISABLE_DNAT" | "ENABLE_NAT" => {
            "knockgate does not redirect packets: leave that to nftables, and guard the port before it"
        }
        _ => "it has no counterpart",
    }
}

/// Returns the networks of a list; none of them stands for every network. fwknopd reads IPv4 alone.
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
                Ipv4Net::with_netmask(address.parse().ok()?, mask.parse().ok()?).ok()?
            }
            Some(_) => part.parse().ok()?,
            None => Ipv4Net::from(part.parse::<Ipv4Addr>().ok()?),
        };
        found.push(IpNet::from(network.trunc()));
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
