//! Keys, and the secrets of this host.

use bytemuck::{Pod, Zeroable};

use super::sha256::Midstates;
use crate::address::Padded;

/// Set in [`Earned::user`](crate::grant::Earned::user) and [`Event::user`](crate::event::Event::user) of what a key has
/// earned; the other bits are its slot.
pub const KEY_USER: u32 = 1 << 31;

/// [`Event::key`](crate::event::Event::key) if there is none.
pub const NO_KEY: u16 = u16::MAX;

/// Most slots for keys: [`NO_KEY`] is none.
pub const MOST_KEYS: usize = NO_KEY as usize;

/// The values of [`Key::state`].
pub mod state {
    /// The slot has no key.
    pub const NONE: u32 = 0;
    pub const VALID: u32 = 1;
    pub const REVOKED: u32 = 2;
}

/// A key, and what is remembered of its knocks. Indexed by slot.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Key {
    /// Of the user's key for this host.
    pub secret: Midstates,
    /// The newest time of a knock that was accepted, Unix ns. It only grows.
    pub newest: u64,
    /// The key is valid up to here, Unix ns; 0: for good.
    pub not_after: u64,
    /// Where that knock came from; see `family`.
    pub source: Padded,
    /// The time of the knock that `source` and `family` belong to, Unix ns. Written after these.
    pub source_time: u64,
    /// See [`state`].
    pub state: u32,
    /// 1: a knock has to list the address that it comes from.
    pub bound: u8,
    /// [`Address::FAMILY`](crate::Address::FAMILY) of `source`.
    pub family: u8,
    /// Up to two cache lines.
    pub zero: [u8; 18],
}

/// A secret of this host. The table has two: the present one, and the one before it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct HostSecret {
    /// The key of the mask, little-endian.
    pub words: [u64; 2],
    /// It is valid up to here, Unix ns; 0: there is no such secret.
    pub not_after: u64,
}

impl HostSecret {
    /// How many there are.
    pub const COUNT: usize = 2;
}

/// A gate that a key may open, as a knock names it. Key of a table of gates.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroable, Pod)]
pub struct KeyGate {
    pub slot: u32,
    /// The first 4 bytes of the SHA-256 of the gate's name, big-endian; 0: the key's first gate.
    pub gate: u32,
}

/// Bytes of a key's name in the table of names, padded with zeros.
pub const NAME: usize = 64;

records! {
    Key: 128 {
        secret: 0,
        newest: 64,
        not_after: 72,
        source: 80,
        source_time: 96,
        state: 104,
        bound: 108,
        family: 109,
        zero: 110,
    },
    HostSecret: 24 { words: 0, not_after: 16 },
    KeyGate: 8 { slot: 0, gate: 4 },
}
