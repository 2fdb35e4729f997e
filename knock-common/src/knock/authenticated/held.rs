//! Knocks whose grants wait, and those that close what waits.

use bytemuck::{Pod, Zeroable};

use super::{message::Head, work::Work};
use crate::address::{Padded, V4, V6};

/// A knock that was verified, and whose grants user space gives or not; or one that has closed, before which none of those that
/// wait for the same may open. One record of a ring buffer.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Held {
    /// The time in the message, Unix ns.
    pub time: u64,
    /// How long it asks to open, ns; all ones: as long as the gate allows.
    pub open_for: u64,
    /// Where it came from; see `family`.
    pub source: Padded,
    /// The addresses to grant, as far as `families` says so.
    pub v6: V6,
    pub v4: V4,
    pub gate: u16,
    /// The slot of its key.
    pub slot: u16,
    /// The port that grants are limited to; 0: none.
    pub port: u16,
    pub destination_port: u16,
    /// [`IPV4`](super::message::flag::IPV4) and [`IPV6`](super::message::flag::IPV6).
    pub families: u8,
    /// [`Address::FAMILY`](crate::Address::FAMILY) of `source`.
    pub family: u8,
    /// [`action`](super::message::action).
    pub action: u8,
    pub zero: u8,
}

records! {
    Held: 64 {
        time: 0,
        open_for: 8,
        source: 16,
        v6: 32,
        v4: 48,
        gate: 52,
        slot: 54,
        port: 56,
        destination_port: 58,
        families: 60,
        family: 61,
        action: 62,
        zero: 63,
    },
}

/// Fills [`Work::held`] in, field by field: the stack has no room for another copy.
#[inline(always)]
pub fn fill(work: &mut Work) {
    work.held.time = Head::of(work.body[0], work.body[1]).time;
    work.held.open_for = work.open_for;
    work.held.source = work.source;
    work.held.v6 = work.v6;
    work.held.v4 = work.v4;
    work.held.gate = work.gate;
    work.held.slot = work.slot;
    work.held.port = work.port;
    work.held.destination_port = work.destination_port;
    work.held.families = work.families;
    work.held.family = work.family as u8;
    work.held.action = work.action;
}
