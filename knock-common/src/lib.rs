//! What knockgate decides, and the types that cross between the kernel program and user space.
//!
//! Everything here is plain `no_std` code over plain data. It is compiled twice: into the kernel
//! program, where [`Env`] is implemented by BPF maps and helpers, and for the host, where tests implement it
//! with ordinary collections (`testing`). What happens to a packet:
//!
//! 1. [`frame`] reads Ethernet and VLAN tags where there are any, IPv4 or IPv6, and the two ports;
//! 2. [`judge`](mod@judge) looks up the role of the destination port and decides on a [`verdict`];
//! 3. [`knock::sequence`] advances a source through the automaton of all sequences, from the state that
//!    [`knock::progress`] remembers;
//! 4. [`grant`] and [`session`] keep who may pass, and which flows began with permission, in tables whose keys are found by
//!    [`row`]s and [`set`]s; [`grant::filter`] stands in front of the grants, for the many sources that have none;
//! 5. [`reject`] makes the reply of a gate that rejects;
//! 6. [`report`] bounds the [`event`]s that go to user space.
//!
//! Each record that crosses to user space stands in the module that uses it; [`layout`] is their version.
//!
//! Times are nanoseconds of `CLOCK_MONOTONIC` as `bpf_ktime_get_coarse_ns` reads it (since Linux
//! 5.11; it moves in steps of one timer tick, 1 to 10 ms), or one tick later. Ports are in host byte order, except in a
//! [`PortPair`](frame::PortPair); addresses are byte arrays in network order.
#![cfg_attr(not(any(test, feature = "testing")), no_std)]
#![expect(
    clippy::inline_always,
    reason = "in the kernel program a call costs as much as the function it would call"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the casts take the low bits on purpose; From and TryFrom are used where it matters"
)]

#[cfg(target_endian = "big")]
compile_error!(
    "knockgate guards little-endian machines alone: its kernel program is built for these. The client can be built for this \
     machine, with `--no-default-features --features client`"
);

#[macro_use]
mod named;
#[macro_use]
mod record;

pub mod address;
pub mod cursor;
pub mod env;
pub mod event;
pub mod frame;
pub mod grant;
pub mod guarded;
pub mod judge;
pub mod keys;
pub mod knock;
pub mod layout;
pub mod memory;
pub mod merged;
pub mod next;
pub mod reject;
pub mod report;
pub mod row;
pub mod rules;
pub mod scattered;
pub mod seed;
pub mod session;
pub mod set;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod verdict;
pub mod wire;

pub use address::Address;
pub use env::{Env, HashTable};
pub use judge::judge;
pub use memory::Memory;
pub use verdict::{Reason, Verdict};
