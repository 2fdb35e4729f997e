//! The message of an authenticated knock: the first 64 bytes of a UDP payload.
//!
//! ```text
//! message = T ‖ C
//! T       = first 16 bytes of HMAC-SHA-256(key of the user for this host, B)
//! C       = B xor (S0 ‖ S1 ‖ S2),   Si = SipHash-2-4-128(secret of the host, T ‖ i as 8 bytes, little-endian)
//! ```
//!
//! This is the composition SIV (Rogaway and Shrimpton, EUROCRYPT 2006): the tag is the nonce of the mask. `B` has 48 bytes,
//! big-endian:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | time, Unix, ns |
//! | 8 | 2 | slot of the key |
//! | 10 | 1 | version: 1 |
//! | 11 | 1 | [`flag`]s |
//! | 12 | 4 | gate: the first 4 bytes of the SHA-256 of its name; 0: the key's first |
//! | 16 | 1 | [`action`] |
//! | 17 | 1 | zero |
//! | 18 | 2 | seconds to open for; 0: as long as the gate allows |
//! | 20 | 4 | IPv4 address |
//! | 24 | 16 | IPv6 address |
//! | 40 | 2 | source port of the connection that is to follow |
//! | 42 | 6 | zero |

use crate::{
    Address as _,
    address::{Padded, V4, V6},
};

/// Bytes of a message. What follows it in the datagram is padding.
pub const LENGTH: usize = 64;
/// Most bytes of padding.
pub const MOST_PADDING: usize = 192;
pub const VERSION: u8 = 1;

/// Bits of byte 11.
pub mod flag {
    /// The IPv4 address is one that is to be granted.
    pub const IPV4: u8 = 1;
    /// The same of the IPv6 address.
    pub const IPV6: u8 = 2;
    /// The address that the datagram comes from is to be granted, whatever it is.
    pub const OBSERVED: u8 = 4;
    /// The grant is for connections from the source port alone.
    pub const PORT: u8 = 8;
    pub const ALL: u8 = IPV4 | IPV6 | OBSERVED | PORT;
}

/// The values of byte 16.
pub mod action {
    pub const OPEN: u8 = 1;
    pub const CLOSE: u8 = 2;
}

/// The header of UDP and the message, in words as they lie in the packet.
pub type Datagram = [u64; 9];

/// `B`, in words as they lie in the message.
pub type Body = [u64; 6];

/// Returns whether a datagram has the length of a knock, by the header with which it begins.
#[inline(always)]
pub const fn has_length(datagram: &Datagram) -> bool {
    const HEADER: u64 = 8;
    const SHORTEST: u64 = HEADER + LENGTH as u64;
    const LONGEST: u64 = SHORTEST + MOST_PADDING as u64;
    let length = u64::from_be(datagram[0]) >> 16 & 0xffff;
    SHORTEST <= length && length <= LONGEST
}

/// The first 16 bytes of `B`, which are unmasked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Unix ns.
    pub time: u64,
    pub slot: u16,
    pub version: u8,
    pub flags: u8,
    pub gate: u32,
}

impl Head {
    #[inline(always)]
    pub const fn of(first: u64, second: u64) -> Self {
        let second = u64::from_be(second);
        Self {
            time: u64::from_be(first),
            slot: (second >> 48) as u16,
            version: (second >> 40) as u8,
            flags: (second >> 32) as u8,
            gate: second as u32,
        }
    }

    /// Returns whether this can be the head of a knock: what was made without the host's secret is, once in 4,096 times.
    #[inline(always)]
    pub const fn is_plausible(&self) -> bool {
        self.version == VERSION && self.flags & !flag::ALL == 0
    }
}

/// What a knock asks for: the rest of `B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub action: u8,
    /// ns; 0: as long as the gate allows.
    pub open_for: u64,
    pub v4: V4,
    pub v6: V6,
    /// 0 unless it is listed.
    pub port: u16,
}

impl Request {
    #[inline(always)]
    pub fn of(body: &Body, flags: u8) -> Self {
        let third = u64::from_be(body[2]);
        Self {
            action: (third >> 56) as u8,
            open_for: (third >> 32 & 0xffff) * 1_000_000_000,
            v4: V4::from_word((third as u32).to_be()),
            v6: V6::from_words(body[3], body[4]),
            port: if flags & flag::PORT != 0 {
                (u64::from_be(body[5]) >> 48) as u16
            } else {
                0
            },
        }
    }
}

impl Request {
    /// Returns whether this address, of this [family](crate::Address::FAMILY), is one that is listed.
    #[inline(always)]
    pub fn lists(&self, flags: u8, address: Padded, family: u32) -> bool {
        if family == u32::from(V4::FAMILY) {
            flags & flag::IPV4 != 0 && self.v4 == V4::unpadded(address)
        } else {
            flags & flag::IPV6 != 0 && self.v6 == address
        }
    }
}

/// Returns whether the bytes of `B` that have no meaning are zero, and its action is one of [`action`].
#[inline(always)]
pub const fn is_well_formed(body: &Body) -> bool {
    let third = u64::from_be(body[2]);
    let action = (third >> 56) as u8;
    (action == action::OPEN || action == action::CLOSE)
        && third << 8 >> 56 == 0
        && u64::from_be(body[5]) << 16 == 0
}
