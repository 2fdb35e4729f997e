//! Rules as `iptables-save` and `ip6tables-save` print them.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    Common, Family, Found, Ports, Rule,
    chains::{Chains, Demand},
    protocol_of,
};
use crate::values::Protocol;

/// The chain of each table that packets come to as they arrive.
const ARRIVING: &str = "PREROUTING";

/// Targets that change destinations.
const CHANGING: [&str; 3] = ["DNAT", "REDIRECT", "NETMAP"];

/// Reads what the program of this family has printed.
pub fn read(text: &str, family: Family) -> Found {
    let mut table = "";
    let mut lines = Vec::new();
    let mut dropped = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(rule) = line.strip_prefix("-A ") {
            match table {
                "nat" => lines.extend(Line::read(rule)),
                "raw" => dropped.extend(dropped_from_others(rule)),
                _ => {}
            }
        }
    }
    // The others are targets that a module has.
    let with_rules: BTreeSet<&str> = lines.iter().map(|line| line.chain).collect();
    let mut chains = Chains::default();
    for line in lines.iter().filter(|line| with_rules.contains(line.target)) {
        chains.add_jump(line.chain, line.target, line.demand());
    }
    let met = chains.met([(ARRIVING, Demand::default())]);
    let mut found = Found::default();
    for line in lines.iter().filter(|line| CHANGING.contains(&line.target)) {
        let Some(demands) = met.get(line.chain) else {
            continue;
        };
        let Some(rules) = line.rules(family) else {
            found.not_understood += 1;
            continue;
        };
        for rule in rules {
            let ways = demands.iter().filter_map(|demand| rule.under(*demand));
            found.published.extend(ways);
        }
    }
    found.published.retain(|rule| {
        let at = (rule.address, rule.protocol, rule.ports);
        !dropped
            .iter()
            .any(|(address, protocol, port)| at == (Some(*address), *protocol, Ports::one(*port)))
    });
    found
}

/// Returns whether one of these programs has printed rules that change destinations and are in the kernel's nftables. It says so
/// in a comment, and prints no table that has rules which nft alone can read.
pub fn is_of_nftables(text: &str) -> bool {
    text.contains("(nf_tables)") && text.lines().any(|line| line == "*nat")
}

/// Reads a rule that drops what other hosts send to a port at a loopback address, as Docker makes them since version 28 for
/// a port that is published there.
fn dropped_from_others(rule: &str) -> Option<(IpNet, Protocol, u16)> {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let [
        ARRIVING,
        "-d",
        address,
        "!",
        "-i",
        "lo",
        "-p",
        protocol,
        "-m",
        _,
        "--dport",
        port,
        "-j",
        "DROP",
    ] = words[..]
    else {
        return None;
    };
    Some((
        address.parse().ok()?,
        protocol_of(protocol)?,
        port.parse().ok()?,
    ))
}

/// A rule that has a target.
struct Line<'l> {
    chain: &'l str,
    target: &'l str,
    options: Vec<Given<'l>>,
}

/// An option of a rule, with the word behind it.
struct Given<'l> {
    name: &'l str,
    value: &'l str,
    /// A `!` is before it.
    not: bool,
}

impl<'l> Line<'l> {
    /// Reads the words after `-A`; `None`: a rule that only counts.
    fn read(rule: &'l str) -> Option<Self> {
        let mut words = rule.split_whitespace();
        let chain = words.next()?;
        let mut options = Vec::new();
        let mut not = false;
        while let Some(word) = words.next() {
            if word == "--comment" {
                skip_comment(&mut words);
            } else if word == "!" {
                not = true;
            } else if word.starts_with('-') {
                let not = std::mem::take(&mut not);
                let value = words.clone().next().unwrap_or_default();
                options.push(Given {
                    name: word,
                    value,
                    not,
                });
            }
        }
        let is_target = |option: &&Given<'_>| ["-j", "-g"].contains(&option.name);
        let target = options.iter().find(is_target)?.value;
        Some(Self {
            chain,
            target,
            options,
        })
    }

    /// Returns which destinations the rule is for. Any but one network, or a network that cannot be read, is any.
    fn demand(&self) -> Demand {
        let mut demand = Demand::default();
        for Given { name, value, .. } in self.options.iter().filter(|option| !option.not) {
            match *name {
                "-d" => demand.address = value.parse().ok(),
                "--dst-type" => demand.to_host |= *value == "LOCAL",
                _ => {}
            }
        }
        demand
    }

    /// Returns a rule for each part of the ports that are listed; `None`: it is not understood.
    fn rules(&self, family: Family) -> Option<Vec<Rule>> {
        // Another address for each.
        if self.target == "NETMAP" {
            return None;
        }
        let demand = self.demand();
        let mut interface = None;
        let (mut to, mut to_ports) = (None, None);
        let mut protocols = vec![Protocol::Tcp, Protocol::Udp];
        let mut ports = None;
        for Given { name, value, not } in &self.options {
            match *name {
                "-d" if !not && demand.address.is_none() => return None,
                "-p" | "--dport" | "--dports" | "--ports" if *not => return None,
                "-p" => {
                    protocols = match *value {
                        "tcp" | "udp" => protocol_of(value).into_iter().collect(),
                        // No port of a gate.
                        _ => Vec::new(),
                    };
                }
                "-i" => {
                    let name = Some((*value).to_owned());
                    interface = name.filter(|name| !not && !name.ends_with('+'));
                }
                "--dport" | "--dports" | "--ports" => {
                    let listed: Option<Vec<_>> =
                        value.split(',').map(|part| range(part, ':')).collect();
                    ports = Some(listed?);
                }
                "--to-destination" => (to, to_ports) = destination(value)?,
                "--to-ports" => to_ports = Some(range(value, '-')?),
                _ => {}
            }
        }
        let common = Common {
            family: Some(family),
            interface,
            to,
            to_ports,
        };
        // Without a port, it takes every port, or those of packets that other rules have led to its chain.
        Some(common.rules(&ports?, &protocols, &[demand]))
    }
}

/// A comment of several words stands between quotes; what is in it is no option.
fn skip_comment<'w>(words: &mut impl Iterator<Item = &'w str>) {
    let Some(first) = words.next() else { return };
    let ends = |word: &str| word.ends_with('"') && !word.ends_with("\\\"");
    if first.starts_with('"') && !(first.len() > 1 && ends(first)) {
        let _ = words.find(|word| ends(word));
    }
}

/// Reads `172.17.0.2:80`, `172.17.0.2`, `172.17.0.2:80-89`, `[fd00::2]:80`, `:80`.
fn destination(text: &str) -> Option<(Option<IpAddr>, Option<Ports>)> {
    if let Ok(address) = text.parse() {
        return Some((Some(address), None));
    }
    let (address, ports) = text.rsplit_once(':')?;
    // A range of destinations, or a shift of the ports, is for a balancer.
    let ports = range(ports, '-')?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if address.is_empty() {
        return Some((None, Some(ports)));
    }
    Some((Some(address.parse().ok()?), Some(ports)))
}

fn range(text: &str, separator: char) -> Option<Ports> {
    let (first, last) = text.split_once(separator).unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(Ports { first, last })
}
