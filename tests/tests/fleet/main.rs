//! Hosts that open their gates together, over real etcd members with mutual TLS.
//!
//! [`opening`]: what is told, and what a host makes of it. [`revoking`]: that revoked is revoked. [`cut_off`]: hosts without
//! the engine, and how they come back. [`harmed`]: an engine that loses members, revisions or everything. [`forged`]: what
//! others than hosts of the fleet write. [`replayed`]: packets that open once. [`told`]: what a service
//! says of others' grants. [`watched`]: what commands, metrics and `check`
//! say. [`lab`]: the members themselves.
//!
//! That something does not arrive is shown without waiting for a time: what was written later has arrived.

mod cut_off;
mod forged;
mod harmed;
mod lab;
mod opening;
mod replayed;
mod revoking;
mod told;
mod watched;

use knockgate_tests::{fleet::Fleet, gate_config::ALICE, lab::Source};

/// The port of the gate `ssh`.
const SSH: &str = "22/tcp";

/// Knocks at a host as alice, and asserts that her port is open at once.
#[track_caller]
fn alice_knocks(fleet: &Fleet, nth: usize, who: Source) {
    let host = &fleet.hosts[nth];
    host.scenario.knock(who, ALICE);
    host.scenario.open(who, SSH);
}

/// Opens a gate everywhere but at the host `from` for somebody whom no row uses otherwise: what was written before that has
/// arrived then.
#[track_caller]
fn told_everything(fleet: &Fleet, from: usize) {
    use std::sync::atomic::{AtomicU8, Ordering};
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let source = format!("203.0.113.{}", COUNT.fetch_add(1, Ordering::Relaxed));
    fleet.hosts[from]
        .in_fleet(&format!("allow {source} --gate ssh --fleet"))
        .exits(0);
    for host in &fleet.hosts {
        host.has_grant(&format!("{source}/32"), "ssh");
    }
}
