//! Hosts that open their gates together, over etcd: a knock that one of them accepts opens the gate on all.
//!
//! A [`record`] is a name and a signed value. The [`engine`] keeps records and tells every host of them in one order;
//! [`etcd`] is the one there is. [`state`] decides what this host publishes, what it puts into its kernel tables and what it
//! ends: a value without clock, network or kernel. The service drives it; see `service/fleet`.
//!
//! What holds, whatever the engine does:
//!
//! - A grant of another host ends by this host's own clock, never later than its own `open_for` from its receipt, and never
//!   later than at the host that gave it. What is deleted in the engine opens nothing and closes nothing.
//! - A revocation ends every grant that was given before it, in the engine's order. A host publishes a grant only after it
//!   has put every revocation so far into its own tables, and only if the grant is still there; the engine refuses it if
//!   there is another revocation by then.
//! - Nothing that a host was told is told again by it.

pub mod engine;
pub mod etcd;
#[cfg(test)]
mod fake;
pub mod files;
pub mod keys;
pub mod once;
pub mod record;
pub mod state;

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::config::{Config, Gate};

/// Returns a short hash of what the hosts of a fleet should have in common: gates, and who may open them, in whatever order the
/// file has them. Sequences are no part of it: they are so short that a hash would tell them.
pub fn configuration_hash(config: &Config) -> String {
    let mut text = String::new();
    let mut gates: Vec<&Gate> = config.gates.iter().collect();
    gates.sort_unstable_by_key(|gate| &gate.name);
    for gate in gates {
        let _ = writeln!(
            text,
            "{} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            gate.name,
            sorted(gate.protect.iter().map(ToString::to_string)),
            sorted(gate.users()),
            sorted(gate.keys.iter().map(ToString::to_string)),
            sorted(&gate.protect_at),
            gate.open_for,
            gate.grant_to,
            sorted(&gate.sources),
            gate.connections
        );
    }
    let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    base16ct::lower::encode_string(&hash[..6])
}

/// Returns these in an order of their own.
fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort_unstable();
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_alike_where_the_same_may_open_the_same() {
        let hash = |gates: &[&str], sources: &str, user: &str| {
            let gate = |name: &&str| {
                format!(
                    "[[gate]]\nname = \"{name}\"\nprotect = [\"{}/tcp\"]\nsources = [{sources}]\n\
                     [[gate.knock]]\nuser = \"{user}\"\nkey = \"{user}/laptop\"\n",
                    name.len()
                )
            };
            let gates: String = gates.iter().map(gate).collect();
            let text = format!(
                "interfaces = [\"eth0\"]\n[knock]\nports = [\"4164/udp\"]\nkeys = \"/etc/keys\"\n{gates}"
            );
            let (config, _) = Config::parse(&text, "k.toml").expect("valid");
            configuration_hash(&config)
        };
        let (one, other) = ("\"192.0.2.0/24\"", "\"198.51.100.0/24\"");
        let usual = hash(&["ssh", "mail"], one, "alice");
        assert_eq!(usual, hash(&["mail", "ssh"], one, "alice"));
        let both = |one, other| hash(&["ssh"], &format!("{one}, {other}"), "alice");
        assert_eq!(both(one, other), both(other, one));
        // Who may open is told by the keys alone.
        for differs in [
            hash(&["ssh", "mail"], one, "bob"),
            hash(&["ssh", "mail"], other, "alice"),
            hash(&["ssh"], one, "alice"),
        ] {
            assert_ne!(usual, differs);
        }
    }
}
