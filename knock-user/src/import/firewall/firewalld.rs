//! `firewall-cmd`, with a rich rule or a port.

use super::{Effect, Families, condition, is_source, opens, seconds};

/// Services whose only port is the one over TCP that /etc/services has.
const TCP_SERVICES: [&str; 10] = [
    "ssh",
    "smtp",
    "http",
    "pop3",
    "imap",
    "https",
    "imaps",
    "pop3s",
    "mysql",
    "postgresql",
];

pub(super) fn effect(arguments: &[&str]) -> Effect {
    let (mut found, mut lasts, mut other) = (None, None, None);
    let mut rest = arguments.iter().copied();
    while let Some(word) = rest.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word, None),
        };
        let mut value = || value.or_else(|| rest.next()).unwrap_or_default();
        match option {
            "--add-rich-rule" => found = Some(rich(value())),
            "--add-port" => {
                let value = value();
                found = Some(match value.split_once('/') {
                    Some((ports, protocol)) => opens(Some(protocol), ports),
                    None => Effect::Unknown(format!("{value:?} names no protocol")),
                });
            }
            "--add-service" => found = Some(service(value())),
            "--timeout" => {
                let value = value();
                lasts = match seconds(value) {
                    // As without it.
                    Some(0) => None,
                    Some(seconds) => Some(seconds),
                    None => return Effect::Unknown(format!("{value:?} is no length of time")),
                };
            }
            "--zone" => {
                value();
            }
            "--permanent" | "--quiet" | "-q" => {}
            option if option.starts_with("--remove-") => return Effect::Closes,
            option => other = Some(option),
        }
    }
    match (found, other) {
        (Some(Effect::Opens(_)), Some(option)) => condition(option),
        (Some(Effect::Opens(mut opening)), None) => {
            opening.lasts = lasts;
            Effect::Opens(opening)
        }
        (Some(effect), _) => effect,
        (None, _) => Effect::Unknown("it adds no rule that accepts packets".to_owned()),
    }
}

/// `rule family="ipv4" source address="%IP%" port port="22" protocol="tcp" accept`.
fn rich(rule: &str) -> Effect {
    let rule = rule.replace(['"', '\''], " ");
    let words: Vec<&str> = rule
        .split([' ', '='])
        .filter(|word| !word.is_empty())
        .collect();
    let (mut port, mut protocol, mut named, mut accepts) = (None, None, None, false);
    let mut families = Families::BOTH;
    let mut rest = words.into_iter();
    while let Some(word) = rest.next() {
        match word {
            "rule" | "source" => {}
            "family" => match rest.next() {
                Some("ipv4") => families = Families::V4,
                Some("ipv6") => families = Families::V6,
                family => return condition(&format!("family {}", family.unwrap_or_default())),
            },
            "priority" => {
                rest.next();
            }
            "address" => {
                if !rest.next().is_some_and(is_source) {
                    return Effect::Unknown(
                        "it does not let in the source that knocked".to_owned(),
                    );
                }
            }
            "port" => match rest.next() {
                // The keyword, then its value.
                Some("port") => port = rest.next(),
                other => port = other,
            },
            "protocol" => protocol = rest.next(),
            "service" => {
                rest.next();
                named = rest.next();
            }
            "accept" => accepts = true,
            other => return condition(other),
        }
    }
    match (accepts, named, port, protocol) {
        (true, Some(name), ..) => service(name).only(families),
        (true, None, Some(port), Some(protocol)) => opens(Some(protocol), port).only(families),
        (true, ..) => Effect::Unknown(
            "it opens every port, and a gate lists its ports: write them under `protect`"
                .to_owned(),
        ),
        _ => Effect::Unknown("it is no rule that accepts packets".to_owned()),
    }
}

fn service(name: &str) -> Effect {
    if TCP_SERVICES.contains(&name) {
        opens(Some("tcp"), name)
    } else if name == "openvpn" {
        opens(Some("udp"), name)
    } else {
        Effect::Unknown(format!(
            "which ports the service {name:?} has is in firewalld's own files"
        ))
    }
}
