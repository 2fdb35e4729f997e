//! `nft`, its rules as words of one command.

use super::{Effect, Families, admits_new, condition, is_source, not_for_this_host, opens};

pub(super) fn effect(arguments: &[&str]) -> Effect {
    // A rule may come as one quoted word, and braces stand beside numbers.
    let line = arguments
        .join(" ")
        .replace(['{', '}', '"'], " ")
        .replace(" , ", ",")
        .replace(", ", ",");
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["delete" | "flush" | "destroy", ..] => Effect::Closes,
        ["add" | "create", "element", ..] => Effect::Unknown(
            "which ports the members of a set may reach is in rules elsewhere".to_owned(),
        ),
        ["add" | "insert", "rule", rule @ ..] => accept(rule),
        _ => Effect::Unknown("it is no rule that accepts packets".to_owned()),
    }
}

/// `inet filter input ip saddr %IP% tcp dport 22 accept`.
fn accept(rule: &[&str]) -> Effect {
    let (mut ports, mut protocol, mut accepts) = (None, None, false);
    // Family, table and chain. Without a family it is IPv4's.
    let (mut families, skip) = match rule.first() {
        Some(&"inet") => (Families::BOTH, 3),
        Some(&"ip") => (Families::V4, 3),
        Some(&"ip6") => (Families::V6, 3),
        Some(family @ &("bridge" | "netdev" | "arp")) => return condition(family),
        _ => (Families::V4, 2),
    };
    if let Some(why) = rule.get(skip - 1).copied().and_then(not_for_this_host) {
        return Effect::Unknown(why);
    }
    let mut rest = rule.iter().copied().skip(skip);
    while let Some(word) = rest.next() {
        match word {
            "ip" | "ip6" => match (rest.next(), rest.next()) {
                (Some("saddr"), Some(source)) if is_source(source) => {
                    let family = if word == "ip" {
                        Families::V4
                    } else {
                        Families::V6
                    };
                    families = families.and(family);
                }
                (Some(what), Some(value)) => return condition(&format!("{word} {what} {value}")),
                _ => return condition(word),
            },
            "tcp" | "udp" => match (rest.next(), rest.next()) {
                (Some("dport"), Some(list)) => (protocol, ports) = (Some(word), Some(list)),
                (Some(what), _) => return condition(&format!("{word} {what}")),
                _ => return condition(word),
            },
            "ct" => match (rest.next(), rest.next()) {
                (Some("state"), Some(states)) if admits_new(states) => {}
                (what, value) => {
                    let words = [Some(word), what, value].into_iter().flatten();
                    return condition(&words.collect::<Vec<_>>().join(" "));
                }
            },
            "position" | "index" | "handle" | "comment" => {
                rest.next();
            }
            "counter" => {}
            "accept" => accepts = true,
            other => return condition(other),
        }
    }
    match (accepts, protocol, ports) {
        (true, Some(protocol), Some(ports)) => opens(Some(protocol), ports).only(families),
        (true, ..) => Effect::Unknown(
            "it opens every port, and a gate lists its ports: write them under `protect`"
                .to_owned(),
        ),
        _ => Effect::Unknown("it is no rule that accepts packets".to_owned()),
    }
}
