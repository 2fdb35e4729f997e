//! Reports from the kernel program to user space, one record of the ring buffer each.

use bytemuck::{Pod, Zeroable};

use crate::{
    address::Padded,
    knock::{Outcome, authenticated::outcome::Outcome as Authenticated},
    verdict::Reason,
};

named! {
    /// What happened. The name is that of the event.
    pub enum Kind: "Reported when" {
        Step = 1, "knock.step", "a knock counts as a step";
        Failed = 2, "knock.failed", "a run is broken, or a sequence or an authenticated knock does not open its gate";
        Opened = 3, "gate.opened", "a grant is given or renewed; `until` says when it ends";
        Refused = 4, "gate.refused", "there is no room for another grant";
        Closed = 5, "gate.closed", "a grant has ended";
        Denied = 6, "packet.denied", "a packet was denied; the first of a source, then at most one a second";
        Unkept = 7, "session.refused", "a flow was admitted, but there is no room to remember it past its grant";
        Captured = 8, "knock.captured", "an authenticated knock arrives again, from another address";
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
        Stale = 9, Authenticated::Stale.name(), "the knock is too old, or too far ahead of this host's clock";
        Unknown = 10, Authenticated::Unknown.name(), "there is no such key";
        Expired = 11, Authenticated::Expired.name(), "the key has expired";
        Revoked = 12, Authenticated::Revoked.name(), "the key has been revoked";
        Replay = 13, Authenticated::Replay.name(), "the knock was accepted before, from another address";
        Forged = 14, Authenticated::Forged.name(), "the tag is wrong";
        Gate = 15, Authenticated::Gate.name(), "the key does not open that gate";
        Address = 16, Authenticated::Address.name(), "the knock does not list the address that it comes from";
        Asked = 17, "asked", "its user has asked for it";
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
    /// As in [`Earned::user`](crate::grant::Earned::user), or [`NOBODY`].
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
    /// Slot of the key, or [`NO_KEY`](crate::knock::authenticated::key::NO_KEY).
    pub key: u16,
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
        key: 46,
    },
}
