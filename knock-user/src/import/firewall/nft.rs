//! `nft`, its rules as words of one command.

use super::{Effect, is_source, opens};

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
    // Family, table and chain; the family may be left out.
    let skip = match rule.first() {
        Some(&("inet" | "ip" | "ip6" | "bridge" | "netdev" | "arp")) => 3,
        _ => 2,
    };
    let mut rest = rule.iter().copied().skip(skip);
    while let Some(word) = rest.next() {
        match word {
            "ip" | "ip6" => match (rest.next(), rest.next()) {
                (Some("saddr"), Some(source)) if is_source(source) => {}
                (Some(what), Some(value)) => return condition(&format!("{word} {what} {value}")),
                _ => return condition(word),
            },
            "tcp" | "udp" => match (rest.next(), rest.next()) {
                (Some("dport"), Some(list)) => (protocol, ports) = (Some(word), Some(list)),
                (Some(what), _) => return condition(&format!("{word} {what}")),
                _ => return condition(word),
            },
            "ct" => {
                // The state of a connection, such as `ct state new`.
                rest.nth(1);
            }
            "position" | "index" | "handle" | "comment" => {
                rest.next();
            }
            "counter" => {}
            "accept" => accepts = true,
            other => return condition(other),
        }
    }
    match (accepts, protocol, ports) {
        (true, Some(protocol), Some(ports)) => opens(&[protocol], ports),
        (true, ..) => Effect::Unknown(
            "it opens every port, and a gate lists its ports: write them under `protect`"
                .to_owned(),
        ),
        _ => Effect::Unknown("it is no rule that accepts packets".to_owned()),
    }
}

fn condition(what: &str) -> Effect {
    Effect::OnCondition(format!("the rule's condition `{what}` would be lost"))
}
