//! What a command does to a firewall: iptables, nft, ufw, firewall-cmd, and the helper of knockd's example.

mod families;
mod firewalld;
mod iptables;
mod nft;
mod ufw;

use std::collections::BTreeSet;

pub(super) use self::families::Families;
use crate::values::{Port, Protocol};

/// What stands for the source's address in a command.
pub(super) const SOURCE: &str = "%IP%";

/// Most ports of one range that become ports of a gate.
const LARGEST_RANGE: u32 = 64;

/// What a command comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// It lets the source, or everyone, reach ports.
    Opens(Opening),
    /// It takes back what another has done.
    Closes,
    /// It lets the source in under a condition that a gate cannot have.
    OnCondition(String),
    /// It changes the firewall in a way that no gate stands for.
    Unknown(String),
    /// It has nothing to do with a firewall.
    Other,
}

/// Ports that a rule opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) ports: BTreeSet<Port>,
    /// Of the sources that it lets in.
    pub(super) families: Families,
    /// How long the rule is there, in seconds; `None`: until another command takes it back.
    pub(super) lasts: Option<u64>,
}

impl Effect {
    /// Returns the effect for sources of these families alone.
    fn only(mut self, families: Families) -> Self {
        if let Self::Opens(opening) = &mut self {
            opening.families = opening.families.and(families);
        }
        self
    }
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
        "iptables" | "iptables-nft" | "iptables-legacy" => {
            iptables::effect(arguments).only(Families::V4)
        }
        "ip6tables" | "ip6tables-nft" | "ip6tables-legacy" => {
            iptables::effect(arguments).only(Families::V6)
        }
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

/// The helper of knockd's example, which adds a rule by iptables: `knock_add -i -c INPUT -p tcp -d 443 -f %IP%`.
fn helper(arguments: &[&str]) -> Effect {
    let value = |option: &str| {
        let at = arguments.iter().position(|word| *word == option)?;
        arguments.get(at + 1).copied()
    };
    if let Some(why) = value("-c").and_then(not_for_this_host) {
        return Effect::Unknown(why);
    }
    match (value("-p"), value("-d"), value("-f")) {
        (Some(protocol), Some(port), Some(SOURCE)) => {
            opens(Some(protocol), port).only(Families::V4)
        }
        _ => Effect::Unknown("it names no protocol, port and source".to_owned()),
    }
}

const OUTWARD: &str = "it lets packets out, which a gate does not look at";

/// Returns why a rule of this chain does not let packets in to this host, if its name says so.
fn not_for_this_host(chain: &str) -> Option<String> {
    match chain.to_ascii_lowercase().as_str() {
        "output" => Some(OUTWARD.to_owned()),
        "forward" => Some(
            "it lets packets on to other hosts: a gate with `protect_at` guards ports there"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Returns the effect of a rule that lets the source reach ports: `22`, `80,443`, `6000:6010`, `ssh`. Without a protocol: TCP and
/// UDP, or those of the service that is named.
fn opens(protocol: Option<&str>, ports: &str) -> Effect {
    let protocol = match protocol {
        None => None,
        Some("tcp" | "6") => Some(Protocol::Tcp),
        Some("udp" | "17") => Some(Protocol::Udp),
        Some(other) => return Effect::Unknown(format!("a gate has no ports of {other}")),
    };
    let mut found = BTreeSet::new();
    for part in ports.split(',') {
        let (numbers, protocols) = match range(part.trim()) {
            Ok(range) => range,
            Err(why) => return Effect::Unknown(why),
        };
        for protocol in protocol.as_ref().map_or(protocols, std::slice::from_ref) {
            let protocol = *protocol;
            found.extend(numbers.clone().map(|number| Port { number, protocol }));
        }
    }
    Effect::Opens(Opening {
        ports: found,
        families: Families::BOTH,
        lasts: None,
    })
}

type Range = (std::ops::RangeInclusive<u16>, &'static [Protocol]);

/// Returns the numbers, and the protocols for which they are meant where none is named.
fn range(text: &str) -> Result<Range, String> {
    if let Some((_, number, protocols)) = SERVICES.iter().find(|(name, ..)| *name == text) {
        return Ok((*number..=*number, protocols));
    }
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
    Ok((first..=last, BOTH))
}

const TCP: &[Protocol] = &[Protocol::Tcp];
const BOTH: &[Protocol] = &[Protocol::Tcp, Protocol::Udp];

/// Services by the names that such rules use most, with the protocols that every /etc/services has for them.
const SERVICES: [(&str, u16, &[Protocol]); 14] = [
    ("ssh", 22, TCP),
    ("smtp", 25, TCP),
    ("domain", 53, BOTH),
    ("http", 80, TCP),
    ("pop3", 110, TCP),
    ("imap", 143, TCP),
    ("imap2", 143, TCP),
    ("https", 443, TCP),
    ("submission", 587, TCP),
    ("imaps", 993, TCP),
    ("pop3s", 995, TCP),
    ("openvpn", 1194, BOTH),
    ("mysql", 3306, TCP),
    ("postgresql", 5432, TCP),
];

fn number(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{text:?} is no number of a port")),
    }
}

/// Returns a length of time in seconds: `10`, `10s`, `5m`, `2h`, `1d`.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Whether a rule for connections in these states lets in new ones: `NEW`, `new,established`.
fn admits_new(states: &str) -> bool {
    states
        .split(',')
        .any(|state| state.eq_ignore_ascii_case("new"))
}

fn condition(what: &str) -> Effect {
    Effect::OnCondition(format!("the rule's condition `{what}` would be lost"))
}

/// Whether a word stands for the source's address alone.
fn is_source(word: &str) -> bool {
    let address = word.strip_suffix("/32").or(word.strip_suffix("/128"));
    address.unwrap_or(word) == SOURCE
}

#[cfg(test)]
mod tests;
