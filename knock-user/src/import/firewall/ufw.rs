//! `ufw allow from %IP% to any port 22 proto tcp`, and its short form.

use super::{Effect, OUTWARD, condition, is_source, opens};

pub(super) fn effect(arguments: &[&str]) -> Effect {
    let (mut ports, mut protocol, mut allows) = (None, None, false);
    let mut rest = arguments.iter().copied();
    while let Some(word) = rest.next() {
        match word {
            "delete" => return Effect::Closes,
            "allow" => allows = true,
            "limit" => return condition("limit"),
            "insert" | "comment" => {
                rest.next();
            }
            "--force" | "prepend" | "rule" | "log" | "log-all" => {}
            "out" => return Effect::Unknown(OUTWARD.into()),
            "in" => {
                if rest.clone().next() == Some("on") {
                    return condition("in on");
                }
            }
            "proto" => protocol = rest.next(),
            "from" => match rest.next() {
                Some(source) if source == "any" || is_source(source) => {
                    if rest.clone().next() == Some("port") {
                        return condition("from … port");
                    }
                }
                _ => return Effect::Unknown("it does not let in the source that knocked".into()),
            },
            "to" => match rest.next() {
                Some("any") => {}
                other => return condition(&format!("to {}", other.unwrap_or_default())),
            },
            "port" => ports = rest.next(),
            // The short form, such as `allow 22/tcp`.
            other if allows && ports.is_none() => match other.split_once('/') {
                Some((list, of)) => (ports, protocol) = (Some(list), Some(of)),
                None => ports = Some(other),
            },
            other if allows => return condition(other),
            _ => break,
        }
    }
    match (allows, ports, protocol) {
        (true, Some(ports), protocol) => opens(protocol, ports),
        (true, None, _) => Effect::Unknown(
            "it opens every port, and a gate lists its ports: write them under `protect`".into(),
        ),
        _ => Effect::Unknown("it is no rule that allows packets".into()),
    }
}
