//! `iptables` and `ip6tables`.

use super::{Effect, is_source, opens};

/// Modules and options that say no more than a grant does.
const HARMLESS_MODULES: [&str; 7] = [
    "tcp",
    "udp",
    "state",
    "conntrack",
    "multiport",
    "comment",
    "set",
];

pub(super) fn effect(arguments: &[&str]) -> Effect {
    let (mut protocol, mut ports, mut target, mut source) = (None, None, None, None);
    let mut rest = arguments.iter().copied();
    while let Some(option) = rest.next() {
        match option {
            "-D" | "--delete" | "-F" | "--flush" => return Effect::Closes,
            "-A" | "--append" | "-I" | "--insert" => {
                let chain = rest.next().unwrap_or_default();
                if chain == "OUTPUT" {
                    return unknown("it lets packets out, which a gate does not look at");
                }
            }
            "-t" | "--table" => match rest.next() {
                Some("filter") => {}
                _ => return unknown("it changes or redirects packets, which a gate does not do"),
            },
            "-s" | "--source" | "--src" => source = rest.next(),
            "-p" | "--protocol" | "--proto" => protocol = rest.next(),
            "--dport" | "--dports" | "--destination-port" | "--destination-ports" => {
                ports = rest.next();
            }
            "-j" | "--jump" => target = rest.next(),
            "-m" | "--match" => match rest.next() {
                Some(module) if HARMLESS_MODULES.contains(&module) => {}
                module => return condition(&format!("-m {}", module.unwrap_or_default())),
            },
            "--comment" | "--state" | "--ctstate" | "-W" | "--wait-interval" => {
                rest.next();
            }
            "-w" | "--wait" | "--syn" | "-4" | "-6" | "-v" | "-n" => {}
            number if number.parse::<u32>().is_ok() => {}
            other => return condition(other),
        }
    }
    match (target, source, ports) {
        (Some("ACCEPT"), source, Some(ports)) if source.is_none_or(is_source) => {
            // Without -p, iptables itself refuses --dport; TCP is what was meant.
            opens(&[protocol.unwrap_or("tcp")], ports)
        }
        (Some("ACCEPT"), Some(source), None) if is_source(source) => {
            unknown("it opens every port, and a gate lists its ports: write them under `protect`")
        }
        (Some("ACCEPT"), ..) => unknown("it does not let in the source that knocked"),
        _ => unknown("it is no rule that accepts packets"),
    }
}

fn unknown(why: &str) -> Effect {
    Effect::Unknown(why.to_owned())
}

fn condition(what: &str) -> Effect {
    Effect::OnCondition(format!("the rule's condition `{what}` would be lost"))
}
