//! A fleet: etcd members with mutual TLS, hosts that open their gates together, and one client.
//!
//! ```text
//!   switch: a bridge in a namespace of its own
//!     ├─ lan0  10.79.1.1, .2, .3   members, each in its namespace
//!     ├─ lan0  10.79.0.1 ── host h1 ── wan0  10.77.0.1 ── client  10.77.1.2 …
//!     ├─ lan0  10.79.0.2 ── host h2 ── wan0  10.77.0.1 ── client  10.77.1.2 …
//!     └─ lan0  10.79.0.3 ── host h3 ── wan0  10.77.0.1 ── client  10.77.1.2 …
//! ```
//!
//! Each host is a [`Scenario`](crate::scenario::Scenario) with a client of its own, and all have the same addresses, as hosts behind one anycast address
//! have: to a host, the client of another is its own. A host is cut off at the switch, which tells neither end.

pub mod certificates;
pub mod engine;
mod host;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
};

use crate::need;

pub use self::{certificates::Authority, engine::Engine, host::Host};

/// The name of every fleet here.
pub const NAME: &str = "test";

/// The interface of hosts and members at the switch.
pub const LAN: &str = "lan0";

/// Held while a fleet runs: its dozen of processes tell each other twice a second that they live, which several fleets at a
/// time would be late with on a small machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Members and hosts. Dropping it ends all of them.
pub struct Fleet {
    // Before the engine: their services use it.
    pub hosts: Vec<Host>,
    pub engine: Engine,
}

impl Fleet {
    /// Runs `row` with three members and this many hosts, whose services do not run yet. Skips it, with a message, if this
    /// machine cannot build them.
    pub fn run(hosts: u8, row: impl FnOnce(&Self)) {
        Self::run_with(&[], hosts, row);
    }

    /// As [`Fleet::run`]; `tools`: programs that the row needs besides.
    pub fn run_with(tools: &[&str], hosts: u8, row: impl FnOnce(&Self)) {
        let tools = [&["etcd", "etcdctl"], tools].concat();
        if !need::met(&tools) {
            return;
        }
        // A row that has failed has left nothing behind.
        let _only = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = Engine::new(3);
        let built = (1..=hosts).map(|number| Host::build(number, &engine));
        let Some(hosts) = built.collect::<Option<Vec<Host>>>() else {
            return;
        };
        // The fleet's key, by the command, and copied as people do.
        if let [first, others @ ..] = hosts.as_slice() {
            let file = first.file("fleet.key");
            let made = first.knockgate(&format!("fleet key new {}", file.display()));
            made.exits(0);
            for other in others {
                other.copy_key(first);
            }
        }
        row(&Self { hosts, engine });
    }

    /// Starts the members, then the services of all hosts, and waits until each has joined the fleet.
    #[track_caller]
    pub fn start(&self) {
        self.engine.start();
        for host in &self.hosts {
            host.serve();
        }
        for host in &self.hosts {
            host.joined();
        }
    }
}

/// The address of a host at the switch.
fn address_of_host(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 79, 0, number).into()
}

/// The address of a member at the switch.
fn address_of_member(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 79, 1, number).into()
}
