//! Reports from the kernel program to user space, one record of the ring buffer each.

use bytemuck::{Pod, Zeroable};

use crate::address::Padded;

/// What happened. Integers, since it crosses to user space.
pub mod kind {
    pub const STEP: u8 = 1;
    pub const FAILED: u8 = 2;
    pub const OPENED: u8 = 3;
    pub const REFUSED: u8 = 4;
    pub const CLOSED: u8 = 5;
    pub const DENIED: u8 = 6;
    /// A flow was admitted, and there was no room to remember it.
    pub const UNKEPT: u8 = 7;
}

/// Why it happened.
pub mod cause {
    pub const NONE: u8 = 0;
    pub const WRONG: u8 = 1;
    pub const LATE: u8 = 2;
    pub const SOURCE: u8 = 3;
    pub const TABLE_FULL: u8 = 4;
    pub const USED: u8 = 5;
    pub const NO_GRANT: u8 = 6;
    pub const USED_UP: u8 = 7;
    pub const MALFORMED: u8 = 8;
}

/// [`Event::user`] where nobody is known.
pub const NOBODY: u32 = u32::MAX;
/// [`Event::gate`] where no gate is concerned.
pub const NO_GATE: u16 = u16::MAX;

/// One report.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Event {
    /// ns of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// `opened`: when the grant ends, ns of `CLOCK_MONOTONIC`; else 0.
    pub until: u64,
    /// Source address, padded; see `family`.
    pub source: Padded,
    /// Index of the sequence, or [`NOBODY`].
    pub user: u32,
    /// Or [`NO_GATE`].
    pub gate: u16,
    /// Destination port; 0: not known.
    pub port: u16,
    /// See [`kind`].
    pub kind: u8,
    /// See [`cause`].
    pub cause: u8,
    /// 4 or 6; 0: not known.
    pub family: u8,
    /// IP protocol number; 0: not known.
    pub protocol: u8,
    /// Knocks counted so far ...
    pub step: u8,
    /// ... of how many.
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
