//! What a command does to a firewall: iptables, nft, ufw, firewall-cmd, and the helper of knockd's example.

mod firewalld;
mod iptables;
mod nft;
mod ufw;

use std::collections::BTreeSet;

use crate::values::{Port, Protocol};

/// What stands for the source's address in a command.
pub(super) const SOURCE: &str = "%IP%";

/// Most ports of one range that become ports of a gate.
const LARGEST_RANGE: u32 = 64;

/// What a command comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// It lets the source, or everyone, reach these ports.
    Opens(BTreeSet<Port>),
    /// It takes back what another has done.
    Closes,
    /// It lets the source in under a condition that a gate cannot have.
    OnCondition(String),
    /// It changes the firewall in a way that no gate stands for.
    Unknown(String),
    /// It has nothing to do with a firewall.
    Other,
}

/// Returns what a command does.
pub(super) fn effect(words: &[String]) -> Effect {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (program, arguments) = match words.as_slice() {
        ["sudo" | "/usr/bin/sudo", program, arguments @ ..] | [program, arguments @ ..] => {
            (*program, arguments)
        }
        [] => return Effect::Other,
    };
    match program.rsplit('/').next().unwrap_or(program) {
        "iptables" | "ip6tables" | "iptables-nft" | "ip6tables-nft" | "iptables-legacy"
        | "ip6tables-legacy" => iptables::effect(arguments),
        "nft" => nft::effect(arguments),
        "ufw" => ufw::effect(arguments),
        "firewall-cmd" => firewalld::effect(arguments),
        "knock_add" => helper(arguments),
        "knock_del" => Effect::Closes,
        "ipset" => Effect::Unknown(
            "which ports the members of a set may reach is in rules elsewhere".to_owned(),
        ),
        _ => Effect::Other,
    }
}

/// The helper of knockd's example: `knock_add -i -c INPUT -p tcp -d 443 -f %IP%`.
fn helper(arguments: &[&str]) -> Effect {
    let value = |option: &str| {
        let at = arguments.iter().position(|word| *word == option)?;
        arguments.get(at + 1).copied()
    };
    match (value("-p"), value("-d"), value("-f")) {
        (Some(protocol), Some(port), Some(SOURCE)) => opens(&[protocol], port),
        _ => Effect::Unknown("it names no protocol, port and source".to_owned()),
    }
}

/// Returns the effect of a rule that lets the source reach ports: `22`, `80,443`, `6000:6010`, `ssh`.
fn opens(protocols: &[&str], ports: &str) -> Effect {
    let mut found = BTreeSet::new();
    for part in ports.split(',') {
        let numbers = match range(part.trim()) {
            Ok(numbers) => numbers,
            Err(why) => return Effect::Unknown(why),
        };
        for protocol in protocols {
            let protocol = match *protocol {
                "tcp" | "6" => Protocol::Tcp,
                "udp" | "17" => Protocol::Udp,
                other => return Effect::Unknown(format!("a gate has no ports of {other}")),
            };
            found.extend(numbers.clone().map(|number| Port { number, protocol }));
        }
    }
    Effect::Opens(found)
}

fn range(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let (first, last) = text
        .split_once([':', '-'])
        .filter(|(first, _)| first.bytes().all(|byte| byte.is_ascii_digit()))
        .unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if u32::from(last.saturating_sub(first)) >= LARGEST_RANGE {
        return Err(format!(
            "{text} are too many ports: a gate lists each by itself"
        ));
    }
    Ok(first..=last)
}

/// Services by the names that such rules use most.
const SERVICES: [(&str, u16); 14] = [
    ("ssh", 22),
    ("smtp", 25),
    ("domain", 53),
    ("http", 80),
    ("pop3", 110),
    ("imap", 143),
    ("imap2", 143),
    ("https", 443),
    ("submission", 587),
    ("imaps", 993),
    ("pop3s", 995),
    ("openvpn", 1194),
    ("mysql", 3306),
    ("postgresql", 5432),
];

fn number(text: &str) -> Result<u16, String> {
    let service = SERVICES.iter().find(|(name, _)| *name == text);
    match (service, text.parse()) {
        (Some((_, number)), _) => Ok(*number),
        (None, Ok(number)) if number > 0 => Ok(number),
        (None, _) => Err(format!("{text:?} is no number of a port")),
    }
}

/// Whether a word stands for the source's address alone.
fn is_source(word: &str) -> bool {
    let address = word.strip_suffix("/32").or(word.strip_suffix("/128"));
    address.unwrap_or(word) == SOURCE
}

#[cfg(test)]
mod tests;
