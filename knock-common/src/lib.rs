//! What knockgate decides, and the types that cross between the kernel program and user space.
//!
//! Everything here is plain `no_std` code over plain data. It is compiled twice: into the kernel
//! program, where [`Kernel`] is implemented by BPF maps, and for the host, where tests implement it
//! with ordinary collections. A packet takes this way:
//!
//! 1. [`frame`] reads Ethernet and VLAN tags where there are any, IPv4 or IPv6, and the two ports;
//! 2. [`verdict`] looks up what role the destination port plays and decides;
//! 3. [`knock`] advances a source through the automaton of all sequences, from where it was
//!    according to [`progress`];
//! 4. [`grant`] and [`session`] keep who may pass, and which flows began with permission, behind
//!    [`presence`], a filter for those who have no grant;
//! 5. [`answer`] makes what a gate that rejects sends back;
//! 6. [`table`] holds the layout of every kernel table, [`event`] that of the reports, and [`report`] says
//!    how many of these there may be.
//!
//! Times are nanoseconds of `CLOCK_MONOTONIC` as `bpf_ktime_get_coarse_ns` reads it (since Linux
//! 5.11; it moves in steps of one timer tick, 1 to 10 ms). Ports are in host byte order, addresses
//! are byte arrays in network order.
#![cfg_attr(not(any(test, feature = "host")), no_std)]
#![expect(
    clippy::inline_always,
    reason = "in the kernel program a call costs as much as the function it would call"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the casts take the low bits on purpose; From and TryFrom are used where it matters"
)]

pub mod address;
pub mod answer;
pub mod event;
pub mod frame;
pub mod grant;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod kernel;
pub mod knock;
pub mod presence;
pub mod progress;
pub mod report;
#[cfg(test)]
mod reuse;
pub mod scattered;
pub mod session;
pub mod table;
pub mod verdict;

pub use address::Address;
pub use kernel::{Kernel, Table};
pub use verdict::{Reason, Verdict, judge};
