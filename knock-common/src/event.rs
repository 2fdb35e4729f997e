//! Reports from the kernel program to user space, one record of the ring buffer each.

use bytemuck::{Pod, Zeroable};

use crate::{address::Padded, knock::Outcome, verdict::Reason};

named! {
    /// What happened. The name is that of the event.
    pub enum Kind: "Reported when" {
        Step = 1, "knock.step", "a knock counts as a step";
        Failed = 2, "knock.failed", "a run is broken, or a sequence does not open its gate";
        Opened = 3, "gate.opened", "a grant is given or renewed; `until` says when it ends";
        Refused = 4, "gate.refused", "there is no room for another grant";
        Closed = 5, "gate.closed", "a grant has ended";
        Denied = 6, "packet.denied", "a packet was denied; the first of a source, then at most one a second";
        Unkept = 7, "session.refused", "a flow was admitted, but there is no room to remember it past its grant";
    }
}

named! {
    /// Why it happened. The name is the event's `reason`.
    pub enum Cause: "The reason:" {
        None = 0, "", "none is given";
        Wrong = 1, Outcome::Wrong.name(), "a probe that does not belong to the run";
        Late = 2, Outcome::Late.name(), "the sequence took longer than `within`";
        Source = 3, Outcome::Source.name(), "the source is not among the gate's `sources`";
        TableFull = 4, Outcome::TableFull.name(), "the table is full";
        Used = 5, "used", "the last connection that the grant admits";
        NoGrant = 6, Reason::NoGrant.name(), "the source has no grant";
        UsedUp = 7, Reason::UsedUp.name(), "the grant admits no more connections";
        Malformed = 8, Reason::Malformed.name(), "the port cannot be read";
    }
}

/// [`Event::user`] if there is none.
pub const NOBODY: u32 = u32::MAX;

/// One report.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Event {
    /// ns of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Of [`Kind::Opened`]: when the grant ends, ns of `CLOCK_MONOTONIC`; else 0.
    pub until: u64,
    /// Source address, padded; see `family`.
    pub source: Padded,
    /// Index of the sequence, or [`NOBODY`].
    pub user: u32,
    /// Or [`NO_GATE`](crate::rules::NO_GATE).
    pub gate: u16,
    /// Destination port; 0: not known.
    pub port: u16,
    /// [`Kind`].
    pub kind: u8,
    /// [`Cause`].
    pub cause: u8,
    /// 4 or 6; 0: not known.
    pub family: u8,
    /// IP protocol number; 0: not known.
    pub protocol: u8,
    /// Knocks counted so far.
    pub step: u8,
    /// Knocks of the sequence.
    pub of: u8,
    pub zero: [u8; 2],
}

records! {
    Event: 48 {
        time: 0,
        until: 8,
        source: 16,
        user: 32,
        gate: 36,
        port: 38,
        kind: 40,
        cause: 41,
        family: 42,
        protocol: 43,
        step: 44,
        of: 45,
        zero: 46,
    },
}
