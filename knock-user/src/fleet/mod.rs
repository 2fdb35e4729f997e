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

use crate::config::Config;

/// Returns a short hash of what the hosts of a fleet should have in common: gates, and who may open them. Sequences are no
/// part of it: they are so short that a hash would tell them.
pub fn configuration_hash(config: &Config) -> String {
    let mut text = String::new();
    for gate in &config.gates {
        let mut users: Vec<&str> = gate.users().collect();
        users.sort_unstable();
        let mut protect: Vec<String> = gate.protect.iter().map(ToString::to_string).collect();
        protect.sort_unstable();
        let _ = writeln!(
            text,
            "{} {protect:?} {users:?} {:?} {:?} {:?} {:?} {:?}",
            gate.name,
            gate.protect_at,
            gate.open_for,
            gate.grant_to,
            gate.sources,
            gate.connections
        );
    }
    let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    base16ct::lower::encode_string(&hash[..6])
}
