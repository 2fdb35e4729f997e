//! Rules in nft's JSON schema (libnftables-json(5)).

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{Found, Ports, Rule};
use crate::values::Protocol;

/// What a ruleset says, beside the rules that iptables has made.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub found: Found,
    /// Rules of iptables that change destinations: nft does not print to what.
    pub of_iptables: usize,
}

/// Reads what `nft -j list ruleset` has printed.
pub fn read(text: &[u8]) -> serde_json::Result<Ruleset> {
    let document: Value = serde_json::from_slice(text)?;
    let mut ruleset = Ruleset::default();
    let objects = document["nftables"].as_array().into_iter().flatten();
    for statements in objects.filter_map(|object| object["rule"]["expr"].as_array()) {
        let of = |key| statements.iter().find_map(|statement| statement.get(key));
        if let Some(target) = of("dnat").or_else(|| of("redirect")) {
            match rules(statements, target) {
                Some(rules) => ruleset.found.published.extend(rules),
                None => ruleset.found.not_understood += 1,
            }
            continue;
        }
        let is_target = |statement: &Value| {
            let name = statement["xt"]["name"].as_str();
            matches!(name, Some("DNAT" | "REDIRECT"))
        };
        ruleset.of_iptables += usize::from(statements.iter().any(is_target));
    }
    Ok(ruleset)
}

/// Returns a rule for each set of ports and each address that these statements match; `None`: that is not understood.
fn rules(statements: &[Value], target: &Value) -> Option<Vec<Rule>> {
    let (mut ports, mut protocols) = (None, Vec::new());
    let (mut addresses, mut interface) = (vec![None], None);
    for statement in statements {
        let matched = &statement["match"];
        let (left, right) = (&matched["left"], &matched["right"]);
        let is_equal = matches!(matched["op"].as_str(), Some("==" | "in"));
        let payload = &left["payload"];
        match (payload["protocol"].as_str(), payload["field"].as_str()) {
            (Some(protocol), Some("dport")) => {
                if !is_equal {
                    return None;
                }
                ports = Some(each(right, ports_of)?);
                if let Some(protocol) = protocol_of(protocol) {
                    protocols = vec![protocol];
                }
            }
            (Some("ip" | "ip6"), Some("daddr")) => {
                if !is_equal {
                    return None;
                }
                addresses = each(right, network_of)?.into_iter().map(Some).collect();
            }
            _ => {}
        }
        match left["meta"]["key"].as_str() {
            Some("l4proto") if is_equal && protocols.is_empty() => {
                protocols = each(right, |value| protocol_of(value.as_str()?))?;
            }
            Some("iifname" | "iif") if is_equal => {
                let name = right.as_str().filter(|name| !name.ends_with('*'));
                interface = name.map(str::to_owned);
            }
            _ => {}
        }
    }
    let to = match target.get("addr") {
        None => None,
        Some(address) => Some(address.as_str()?.parse::<IpAddr>().ok()?),
    };
    let to_ports = match target.get("port") {
        None => None,
        Some(port) => Some(ports_of(port)?),
    };
    let mut rules = Vec::new();
    // Without a port, another rule has decided which packets come here.
    let ports = ports?;
    if protocols.is_empty() {
        protocols = vec![Protocol::Tcp, Protocol::Udp];
    }
    for ports in ports {
        for protocol in &protocols {
            for address in &addresses {
                rules.push(Rule {
                    protocol: *protocol,
                    ports,
                    address: *address,
                    interface: interface.clone(),
                    to,
                    to_ports,
                });
            }
        }
    }
    Some(rules)
}

/// Reads a value, or the elements of an anonymous set; `None`: one is not understood.
fn each<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    match value["set"].as_array() {
        Some(elements) => elements.iter().map(read).collect(),
        None => Some(vec![read(value)?]),
    }
}

fn ports_of(value: &Value) -> Option<Ports> {
    let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
    if let Some(port) = number(value) {
        return Some(Ports::one(port));
    }
    let [first, last] = value["range"].as_array()?.as_slice() else {
        return None;
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(Ports { first, last })
}

fn network_of(value: &Value) -> Option<IpNet> {
    if let Some(text) = value.as_str() {
        return Some(text.parse::<IpAddr>().ok()?.into());
    }
    let prefix = &value["prefix"];
    let address: IpAddr = prefix["addr"].as_str()?.parse().ok()?;
    IpNet::new(address, u8::try_from(prefix["len"].as_u64()?).ok()?).ok()
}

fn protocol_of(name: &str) -> Option<Protocol> {
    match name {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}
