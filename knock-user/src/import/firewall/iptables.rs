//! `iptables` and `ip6tables`.

use super::{Effect, Families, admits_new, condition, is_source, not_for_this_host, opens};

/// Modules and options that say no more than a grant does.
const HARMLESS_MODULES: [&str; 6] = ["tcp", "udp", "state", "conntrack", "multiport", "comment"];

pub(super) fn effect(arguments: &[&str]) -> Effect {
    let (mut protocol, mut ports, mut target, mut source) = (None, None, None, None);
    let mut families = Families::BOTH;
    let mut rest = arguments.iter().copied();
    while let Some(option) = rest.next() {
        match option {
            "-D" | "--delete" | "-F" | "--flush" => return Effect::Closes,
            "-A" | "--append" | "-I" | "--insert" => {
                if let Some(why) = rest.next().and_then(not_for_this_host) {
                    return Effect::Unknown(why);
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
            "--state" | "--ctstate" => match rest.next() {
                Some(states) if admits_new(states) => {}
                states => return condition(&format!("{option} {}", states.unwrap_or_default())),
            },
            "--comment" | "-W" | "--wait-interval" => {
                rest.next();
            }
            // A rule of the other family is refused.
            "-4" => families = Families::V4,
            "-6" => families = Families::V6,
            "-w" | "--wait" | "--syn" | "-v" | "-n" => {}
            number if number.parse::<u32>().is_ok() => {}
            other => return condition(other),
        }
    }
    match (target, source, ports) {
        (Some("ACCEPT"), source, Some(ports)) if source.is_none_or(is_source) => {
            // Without -p, iptables itself refuses --dport; TCP is what was meant.
            opens(Some(protocol.unwrap_or("tcp")), ports).only(families)
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
