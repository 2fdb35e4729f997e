//! Grants: given by a knock or by hand, ended by the clock, never pushed out.
//!
//! Both families' grants share one ring of slots, whose size is the limit. A new grant takes the
//! next slot whose owner has ended and removes that owner from its table, so ended grants make room without any process.

pub mod end;
pub mod filter;
pub mod find;
pub mod give;

use bytemuck::{Pod, Zeroable};

use crate::{
    address::{Address, Padded, V4, V6},
    rules::GateRules,
};

/// How many different prefix lengths a family's grants may have at once, whole addresses included.
pub const MAX_LENGTHS: usize = 8;

/// [`Grant::user`] of a grant that was given by hand.
pub const BY_HAND: u32 = u32::MAX;

/// Who may pass: one gate, one source or prefix. Key of the grant tables.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantKey<A: Address> {
    /// Masked to `length`.
    pub address: A,
    pub gate: u16,
    /// Prefix length in bits.
    pub length: u8,
    pub zero: A::Fill,
}

impl<A: Address> GrantKey<A> {
    #[inline(always)]
    pub fn new(address: A, length: u8, gate: u16) -> Self {
        Self {
            address: address.masked(length),
            gate,
            length,
            zero: A::Fill::zeroed(),
        }
    }

    /// The key of one whole address, without masking it.
    #[inline(always)]
    pub fn whole(address: A, gate: u16) -> Self {
        Self {
            address,
            gate,
            length: A::BITS,
            zero: A::Fill::zeroed(),
        }
    }

    /// Returns a value that tells its entry from one that has been given to another key.
    #[inline(always)]
    pub fn tag(&self) -> u64 {
        self.address.fold() ^ (u64::from(self.gate) << 32) ^ (u64::from(self.length) << 48)
    }
}

/// Permission for one source to reach one gate.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Grant {
    /// End, ns of `CLOCK_MONOTONIC`. 0: it is being removed.
    pub until: u64,
    /// [`GrantKey::tag`] of the key: the kernel may give this entry to another key while a packet
    /// still reads it.
    pub tag: u64,
    /// New connections admitted since it was given or renewed.
    pub connections: u32,
    /// Index of the sequence that earned it, [`KEY_USER`](crate::knock::authenticated::key::KEY_USER) with the slot of the
    /// key that did, or [`BY_HAND`].
    pub user: u32,
    /// Index of its slot.
    pub slot: u32,
    /// The source port that it is limited to; 0: none.
    pub port: u16,
    pub zero: u16,
}

impl Grant {
    /// Returns whether a grant that is [limited](Self::port) to `limit` admits packets from this source port. One comparison,
    /// since the verifier follows each way through this.
    #[inline(always)]
    const fn admits(limit: u16, port: u16) -> bool {
        limit as u32 * (limit ^ port) as u32 == 0
    }
}

/// A slot of the ring that bounds the number of grants of both families.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct GrantSlot {
    /// [`Address::padded`] of the key's address.
    pub address: Padded,
    pub gate: u16,
    pub length: u8,
    /// [`Address::FAMILY`]; 0: never used.
    pub family: u8,
    pub zero: u32,
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

// SAFETY: `repr(C)`, an address of bytes and three integers that fill 4 bytes: no padding for
// either family (asserted below), any bit pattern is valid.
unsafe impl<A: Address> Zeroable for GrantKey<A> {}
// SAFETY: as above.
unsafe impl<A: Address> Pod for GrantKey<A> {}

records! {
    GrantKey<V4>: 8 { address: 0, gate: 4, length: 6, zero: 7 },
    GrantKey<V6>: 24 { address: 0, gate: 16, length: 18, zero: 19 },
    Grant: 32 { until: 0, tag: 8, connections: 16, user: 20, slot: 24, port: 28, zero: 30 },
    GrantSlot: 24 { address: 0, gate: 16, length: 18, family: 19, zero: 20 },
}
