//! `firewall-cmd`, with a rich rule or a port.

use super::{Effect, is_source, opens};

pub(super) fn effect(arguments: &[&str]) -> Effect {
    let mut found = None;
    for (nth, word) in arguments.iter().enumerate() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, value),
            None => (*word, arguments.get(nth + 1).copied().unwrap_or_default()),
        };
        match option {
            "--add-rich-rule" => found = Some(rich(value)),
            "--add-port" => {
                found = Some(match value.split_once('/') {
                    Some((ports, protocol)) => opens(&[protocol], ports),
                    None => Effect::Unknown(format!("{value:?} names no protocol")),
                });
            }
            "--add-service" => found = Some(service(value)),
            option if option.starts_with("--remove-") => return Effect::Closes,
            _ => {}
        }
    }
    found.unwrap_or_else(|| Effect::Unknown("it adds no rule that accepts packets".to_owned()))
}

/// `rule family="ipv4" source address="%IP%" port port="22" protocol="tcp" accept`.
fn rich(rule: &str) -> Effect {
    let rule = rule.replace(['"', '\''], " ");
    let words: Vec<&str> = rule
        .split([' ', '='])
        .filter(|word| !word.is_empty())
        .collect();
    let (mut port, mut protocol, mut named, mut accepts) = (None, None, None, false);
    let mut rest = words.into_iter();
    while let Some(word) = rest.next() {
        match word {
            "rule" | "source" => {}
            "family" | "priority" => {
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
            other => {
                return Effect::OnCondition(format!(
                    "the rule's condition `{other}` would be lost"
                ));
            }
        }
    }
    match (accepts, named, port, protocol) {
        (true, Some(name), ..) => service(name),
        (true, None, Some(port), Some(protocol)) => opens(&[protocol], port),
        (true, ..) => Effect::Unknown(
            "it opens every port, and a gate lists its ports: write them under `protect`"
                .to_owned(),
        ),
        _ => Effect::Unknown("it is no rule that accepts packets".to_owned()),
    }
}

fn service(name: &str) -> Effect {
    match opens(&["tcp"], name) {
        Effect::Opens(ports) => Effect::Opens(ports),
        _ => Effect::Unknown(format!(
            "which ports the service {name:?} has is in firewalld's own files"
        )),
    }
}
