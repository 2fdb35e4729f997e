//! Grants: given by a knock or by hand, ended by the clock, never pushed out.
//!
//! The grants of both families lie in one ring of slots, whose size is the limit, and the [`table`] leads from a key
//! to its slot. A new grant takes the next slot whose grant has ended, so ended grants make room without any process.

pub mod end;
pub mod filter;
pub mod find;
pub mod give;
pub mod table;

use bytemuck::{Pod, Zeroable};

use crate::{
    address::{Address, Padded},
    rules::GateRules,
};

/// How many different prefix lengths a family's grants may have at once, whole addresses included.
pub const MAX_LENGTHS: usize = 8;

/// [`Earned::user`] of a grant that was given by hand.
pub const BY_HAND: u32 = u32::MAX;

/// Where [`HOST`] begins.
pub const HOST_SHIFT: u32 = 17;
/// The bits of [`Earned::user`] that say which host of a fleet has given a grant; 0: this one.
pub const HOST: u32 = ((1 << 14) - 1) << HOST_SHIFT;

/// Who may pass: one gate, one source or prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantKey<A> {
    /// Masked to `length`.
    pub address: A,
    pub gate: u16,
    /// Prefix length in bits.
    pub length: u8,
}

impl<A: Address> GrantKey<A> {
    #[inline(always)]
    pub fn new(address: A, length: u8, gate: u16) -> Self {
        Self {
            address: address.masked(length),
            gate,
            length,
        }
    }

    /// The key of one whole address, without masking it.
    #[inline(always)]
    pub const fn whole(address: A, gate: u16) -> Self {
        Self {
            address,
            gate,
            length: A::BITS,
        }
    }

    /// Returns family, prefix length, gate and 32 bits of the address, from the highest byte to the lowest. These are all
    /// of an IPv4 address, so no two keys of IPv4 have the same tag.
    #[inline(always)]
    pub fn tag(&self) -> u64 {
        let fold = self.address.fold();
        let address = (fold ^ fold >> 32) as u32;
        u64::from(A::FAMILY) << 56
            | u64::from(self.length) << 48
            | u64::from(self.gate) << 32
            | u64::from(address)
    }
}

/// Permission for one source to reach one gate: a slot of the ring that bounds the number of grants. It fills one line of
/// the processor's cache: it has 64 bytes, and an array that can be mapped begins at a page.
///
/// Whoever has set `until` to [`HELD`] may give it to another key; see [`table`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Grant {
    /// End, ns of `CLOCK_MONOTONIC`; or [`FREE`] or [`HELD`].
    pub until: u64,
    /// [`GrantKey::tag`] of its key.
    pub tag: u64,
    /// [`Address::padded`] of its address.
    pub address: [u64; 2],
    pub earned: Earned,
    /// New connections admitted since it was given or renewed.
    pub connections: u32,
    pub zero: [u32; 5],
}

/// Who has earned a grant. From the lowest bit: 32 bits of the user, 16 of the source port that it is limited to, and 16 that number
/// the tenures of its slot.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Earned(pub u64);

impl Earned {
    /// Returns the index of the sequence, [`KEY_USER`](crate::knock::authenticated::key::KEY_USER) with the slot of the key, or
    /// [`BY_HAND`].
    #[inline(always)]
    pub const fn user(self) -> u32 {
        self.0 as u32
    }

    /// Returns the source port that the grant is limited to; 0: none.
    #[inline(always)]
    pub const fn port(self) -> u16 {
        (self.0 >> 32) as u16
    }
}

/// [`Grant::until`] of a slot without a grant.
pub const FREE: u64 = 0;
/// [`Grant::until`] of a slot that somebody is changing.
pub const HELD: u64 = 1;

impl Grant {
    /// Returns whether a grant that is limited to the source port `limit` admits packets from this one. One comparison,
    /// since the verifier follows each way through this.
    #[inline(always)]
    const fn admits(limit: u16, port: u16) -> bool {
        limit as u32 * (limit ^ port) as u32 == 0
    }

    /// Returns the family of its key, [`Address::FAMILY`]; 0: the slot was never used.
    pub const fn family(&self) -> u8 {
        (self.tag >> 56) as u8
    }

    /// Returns its gate.
    pub const fn gate(&self) -> u16 {
        (self.tag >> 32) as u16
    }

    /// Returns its key, if it has one of this family. `None` too where a copy is half of an old grant and half of a new
    /// one.
    pub fn key<A: Address>(&self) -> Option<GrantKey<A>> {
        let [first, second] = self.address;
        let key = GrantKey {
            address: A::unpadded(Padded::from_words(first, second)),
            gate: self.gate(),
            length: (self.tag >> 48) as u8,
        };
        (key.tag() == self.tag).then_some(key)
    }
}

/// Returns the prefix length of the grants that knocks at a gate give.
#[inline(always)]
const fn length<A: Address>(rules: &GateRules) -> u8 {
    if rules.to_prefix != 0 {
        A::PREFIX
    } else {
        A::BITS
    }
}

records! {
    Grant: 64 { until: 0, tag: 8, address: 16, earned: 32, connections: 40, zero: 44 },
}
