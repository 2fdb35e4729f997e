//! Rules as `iptables-save` and `ip6tables-save` print them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Found, Ports, Rule};
use crate::values::Protocol;

/// Reads what one of these programs has printed.
pub fn read(text: &str) -> Found {
    let mut found = Found::default();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(rule) = line.strip_prefix("-A ").filter(|_| table == "nat") {
            let words: Vec<&str> = rule.split_whitespace().collect();
            let jumps_to = |target: &str| words.windows(2).any(|pair| pair == ["-j", target]);
            if jumps_to("DNAT") || jumps_to("REDIRECT") {
                match rules(&words) {
                    Some(rules) => found.published.extend(rules),
                    None => found.not_understood += 1,
                }
            }
        }
    }
    found
}

/// Returns whether one of these programs has printed rules that change destinations and are in the kernel's nftables. It says so
/// in a comment, and prints no table that has rules which nft alone can read.
pub fn is_of_nftables(text: &str) -> bool {
    text.contains("(nf_tables)") && text.lines().any(|line| line == "*nat")
}

/// Returns a rule for each part of the ports that a line lists; `None`: it is not understood.
fn rules(words: &[&str]) -> Option<Vec<Rule>> {
    let (mut address, mut interface) = (None, None);
    let (mut to, mut to_ports) = (None, None);
    let mut protocols = vec![Protocol::Tcp, Protocol::Udp];
    let mut ports = None;
    let mut negated = false;
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        if word == "!" {
            negated = true;
            continue;
        }
        let not = std::mem::take(&mut negated);
        match word {
            "-p" => {
                protocols = match words.next()? {
                    _ if not => return None,
                    "tcp" => vec![Protocol::Tcp],
                    "udp" => vec![Protocol::Udp],
                    // No port of a gate.
                    _ => Vec::new(),
                };
            }
            "-d" => {
                let network = words.next()?.parse::<IpNet>().ok()?;
                // Any but one network: as any.
                address = Some(network).filter(|_| !not);
            }
            "-i" => {
                let name = words.next()?.to_owned();
                interface = Some(name).filter(|name| !not && !name.ends_with('+'));
            }
            "--dport" | "--dports" | "--ports" => {
                let listed = words.next()?;
                if not {
                    return None;
                }
                let listed: Option<Vec<_>> =
                    listed.split(',').map(|part| range(part, ':')).collect();
                ports = Some(listed?);
            }
            "--to-destination" => (to, to_ports) = destination(words.next()?)?,
            "--to-ports" => to_ports = Some(range(words.next()?, '-')?),
            "--comment" => skip_comment(&mut words),
            _ => {}
        }
    }
    let mut rules = Vec::new();
    // Without a port, another rule has decided which packets come here.
    for ports in ports? {
        for protocol in &protocols {
            rules.push(Rule {
                protocol: *protocol,
                ports,
                address,
                interface: interface.clone(),
                to,
                to_ports,
            });
        }
    }
    Some(rules)
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
