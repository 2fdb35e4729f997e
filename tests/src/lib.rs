//! The library of the end-to-end suites.
//!
//! **From outside.** Rows of the suites are written with a [`scenario`]: a [`lab`] (two network namespaces, one with
//! `knockgate` and one with its clients), the services that a gate protects, and methods to act and to expect.
//!
//! - [`gate_config`] writes the configuration of a gate.
//! - [`run`] runs commands and keeps their output, [`observe`] reads counters, grants, sessions and events, [`killed`]
//!   kills a command half-way.
//! - [`attempt`] tries ports as a client does; [`service`] and [`sshd`] are the servers.
//!   [`http`] asks a server for a page.
//! - [`wire`] sends frames without the IP stack, [`flood`] as many as possible, [`tap`] captures what arrives.
//! - [`network`] changes a namespace, [`tun`] makes a device without a link header, [`path`] delays and reorders
//!   frames.
//! - [`fleet`] builds etcd members and several hosts that open their gates together.
//! - [`manager`] hears what the service reports to systemd.
//! - [`foreign`] attaches and pins BPF objects that are not knockgate's.
//! - [`need`] reports whether this machine can run the suites; [`version`] makes another version of knockgate.
//!
//! Namespaces and frames come from the crate `netlab`, which the bench and the demo use too.
//!
//! **Packet by packet.** A [`system`] under test is the program in the kernel, or the same decisions on the host.
//! [`fixtures`] has a row for each behaviour: packets and their expected verdicts. [`model`] implements the rules a
//! second time, slowly and plainly; [`oracle`] compares it with a system on random [`stream`]s of [`datagram`]s, some of
//! which are [`sealed`] with the keys of the [`keyring`].
//! [`interpreter`] counts the instructions that a packet takes.

pub mod attempt;
pub mod datagram;
pub mod fixtures;
pub mod fleet;
pub mod flood;
pub mod foreign;
pub mod fwknop;
pub mod gate_config;
pub mod http;
pub mod interpreter;
pub mod ipsec;
pub mod keyring;
pub mod keys;
pub mod killed;
pub mod lab;
pub mod links;
pub mod manager;
pub mod model;
pub mod need;
pub mod neighbour;
pub mod network;
pub mod observe;
pub mod oracle;
pub mod path;
pub mod pppoe;
pub mod run;
pub mod scenario;
pub mod sealed;
pub mod service;
pub mod sshd;
pub mod stream;
pub mod system;
pub mod tap;
pub mod tun;
pub mod version;
pub mod wire;

use std::{env, time::Duration};

/// Returns whether suites are to try what takes too long for every change, as `cargo xtask release` has them do.
pub fn is_thorough() -> bool {
    env::var_os("KNOCKGATE_THOROUGH").is_some()
}

/// Returns a duration in ns, as the kernel counts time.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("tests use times below 500 years")
}
