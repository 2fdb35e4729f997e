//! Rules in nft's JSON schema (libnftables-json(5)).

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;

use super::{
    Common, Family, Found, Ports, Rule,
    chains::{Chains, Demand, Met},
    protocol_of,
};
use crate::values::Protocol;

/// What a ruleset says, beside the rules that iptables has made.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub found: Found,
    /// Rules of iptables that change destinations: nft does not print to what.
    pub of_iptables: usize,
}

/// A chain, by its family, its table's name and its own.
type Name<'d> = (&'d str, &'d str, &'d str);

/// Reads what `nft -j list ruleset` has printed.
pub fn read(text: &[u8]) -> serde_json::Result<Ruleset> {
    let document: Value = serde_json::from_slice(text)?;
    let mut ruleset = Ruleset::default();
    let objects = document["nftables"].as_array();
    let objects = objects.map(Vec::as_slice).unwrap_or_default();
    let met = met(objects);
    for rule in objects.iter().map(|object| &object["rule"]) {
        let statements = rule["expr"].as_array().map(Vec::as_slice);
        let demands = chain_of(rule, "chain").and_then(|chain| met.get(&chain));
        let (Some(statements), Some(demands)) = (statements, demands) else {
            continue;
        };
        let of = |key| statements.iter().find_map(|statement| statement.get(key));
        if let Some(target) = of("dnat").or_else(|| of("redirect")) {
            let family = family_of(rule).or_else(|| family_of(target));
            let Some(rules) = rules(statements, target, family) else {
                ruleset.found.not_understood += 1;
                continue;
            };
            for rule in rules {
                let ways = demands.iter().filter_map(|demand| rule.under(*demand));
                ruleset.found.published.extend(ways);
            }
            continue;
        }
        let is_target = |statement: &Value| {
            let name = statement["xt"]["name"].as_str();
            matches!(name, Some("DNAT" | "REDIRECT" | "NETMAP"))
        };
        ruleset.of_iptables += usize::from(statements.iter().any(is_target));
    }
    Ok(ruleset)
}

/// Returns the chains that packets come to as they arrive. Of a chain without a hook that the elements of a map lead to, or no rule, that
/// is not known, and any packet may come there.
fn met(objects: &[Value]) -> Met<Name<'_>> {
    let mut chains = Chains::default();
    for rule in objects.iter().map(|object| &object["rule"]) {
        let Some((family, table, from)) = chain_of(rule, "chain") else {
            continue;
        };
        let statements = rule["expr"].as_array().map(Vec::as_slice);
        for statement in statements.into_iter().flatten() {
            let mut targets = Vec::new();
            add_targets(statement, &mut targets);
            for demand in demands(statements.unwrap_or_default()) {
                for to in &targets {
                    chains.add_jump((family, table, from), (family, table, *to), demand);
                }
            }
        }
    }
    let mut mapped = BTreeSet::new();
    for map in objects.iter().map(|object| &object["map"]) {
        if let Some((family, table, _)) = chain_of(map, "name") {
            let mut targets = Vec::new();
            add_targets(map, &mut targets);
            mapped.extend(targets.into_iter().map(|to| (family, table, to)));
        }
    }
    let roots = objects.iter().filter_map(|object| {
        let chain = &object["chain"];
        let name = chain_of(chain, "name")?;
        let is_root = match chain["hook"].as_str() {
            Some(hook) => hook == "prerouting",
            None => mapped.contains(&name) || !chains.leads_to(&name),
        };
        is_root.then(|| (name, Demand::default()))
    });
    chains.met(roots)
}

/// Returns the name of a chain, of the chain itself or of one of its rules; `key`: where its own is.
fn chain_of<'d>(object: &'d Value, key: &str) -> Option<Name<'d>> {
    let of = |key: &str| object[key].as_str();
    Some((of("family")?, of("table")?, of(key)?))
}

/// Adds the chains to which a statement jumps, also in the elements of a map.
fn add_targets<'d>(statement: &'d Value, targets: &mut Vec<&'d str>) {
    match statement {
        Value::Object(members) => {
            for (key, value) in members {
                let is_jump = matches!(key.as_str(), "jump" | "goto");
                targets.extend(value["target"].as_str().filter(|_| is_jump));
                add_targets(value, targets);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                add_targets(element, targets);
            }
        }
        _ => {}
    }
}

/// Returns which destinations these statements match: one of these demands. Those that cannot be read may be any.
fn demands(statements: &[Value]) -> Vec<Demand> {
    let mut addresses = vec![None];
    let mut to_host = false;
    for matched in statements.iter().map(|statement| &statement["match"]) {
        to_host |= is_for_local(matched);
        let is_equal = matches!(matched["op"].as_str(), Some("==" | "in"));
        if is_equal
            && is_destination(&matched["left"]["payload"])
            && let Some(networks) = each(&matched["right"], network_of)
        {
            addresses = networks.into_iter().map(Some).collect();
        }
    }
    let demand = |address| Demand { address, to_host };
    addresses.into_iter().map(demand).collect()
}

/// Returns whether a match is `fib daddr type local`.
fn is_for_local(matched: &Value) -> bool {
    let fib = &matched["left"]["fib"];
    let flags = &fib["flags"];
    let mut flags = flags.as_array().into_iter().flatten().chain([flags]);
    matched["op"] == "=="
        && fib["result"] == "type"
        && flags.any(|flag| flag == "daddr")
        && matched["right"] == "local"
}

fn is_destination(payload: &Value) -> bool {
    matches!(payload["protocol"].as_str(), Some("ip" | "ip6")) && payload["field"] == "daddr"
}

/// Returns a rule for each set of ports and each address that these statements match; `None`: that is not understood.
fn rules(statements: &[Value], target: &Value, family: Option<Family>) -> Option<Vec<Rule>> {
    let (mut ports, mut protocols) = (None, Vec::new());
    let mut interface = None;
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
                each(right, network_of)?;
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
    // Without a port, it takes every port, or those of packets that other rules have led to its chain.
    let ports = ports?;
    if protocols.is_empty() {
        protocols = vec![Protocol::Tcp, Protocol::Udp];
    }
    let common = Common {
        family: family.or_else(|| to.map(Family::of)),
        interface,
        to,
        to_ports,
    };
    Some(common.rules(&ports, &protocols, &demands(statements)))
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

/// Returns the family of a table's rule, or of a target in a table for both.
fn family_of(object: &Value) -> Option<Family> {
    match object["family"].as_str()? {
        "ip" => Some(Family::V4),
        "ip6" => Some(Family::V6),
        _ => None,
    }
}
