//! Keys of tables that serve both address families.

use core::net::IpAddr;

use bytemuck::{Pod, Zeroable};

use crate::address::{Address, Padded, V4, V6};

/// A source of either family.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroable, Pod)]
pub struct SourceKey {
    /// [`Address::padded`]; the family keeps 192.0.2.1 apart from `c000:201::`.
    pub address: Padded,
    pub family: u64,
}

impl SourceKey {
    #[inline(always)]
    pub fn of<A: Address>(source: A) -> Self {
        Self {
            address: source.padded(),
            family: u64::from(A::FAMILY),
        }
    }
}

/// An address with what it is looked up for. Key of the tables of addresses, and key data of the allow list and
/// the permitted networks, behind the prefix length of the kernel's LPM tries.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroable, Pod)]
pub struct ScopedAddress {
    /// In network byte order: whether there is a gate, which, and [`Address::FAMILY`], so that
    /// prefixes of different scopes never meet.
    pub scope: u64,
    pub address: Padded,
}

impl ScopedAddress {
    /// Bits before the address.
    pub const HEAD_BITS: u32 = 64;

    /// Key of the entry that marks the table of local addresses as complete. No address has it, since none is of
    /// family 0.
    pub const COMPLETE: Self = Self {
        scope: 0,
        address: V6::from_words(0, 0),
    };

    /// Key of the entry, in the same table, that says that guarded interfaces forward packets by their MAC addresses.
    pub const BRIDGED: Self = Self {
        scope: 0,
        address: V6::from_words(0, 1),
    };

    #[inline(always)]
    pub fn new<A: Address>(address: A) -> Self {
        Self {
            scope: u64::from(A::FAMILY).to_be(),
            address: address.padded(),
        }
    }

    /// Returns the address of a key that is scoped to no gate; `None`: it is a note, not an address.
    pub fn address(&self) -> Option<IpAddr> {
        match u64::from_be(self.scope) {
            4 => Some(V4::unpadded(self.address).into()),
            6 => Some(self.address.into()),
            _ => None,
        }
    }

    /// Scoped to one gate: a network that may knock there.
    #[inline(always)]
    pub fn of_gate<A: Address>(address: A, gate: u16) -> Self {
        Self::scoped(address, 1, gate)
    }

    /// Scoped to the destinations of a placed gate, or, with [`NO_GATE`](crate::rules::NO_GATE), of all of these.
    #[inline(always)]
    pub fn of_place<A: Address>(address: A, gate: u16) -> Self {
        Self::scoped(address, 2, gate)
    }

    #[inline(always)]
    fn scoped<A: Address>(address: A, kind: u64, gate: u16) -> Self {
        let scope = kind << 32 | u64::from(gate) << 8 | u64::from(A::FAMILY);
        Self {
            scope: scope.to_be(),
            address: address.padded(),
        }
    }
}

records! {
    SourceKey: 24 { address: 0, family: 16 },
    ScopedAddress: 24 { scope: 0, address: 8 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_no_addresses() {
        let v4 = V4::from_bytes(&[192, 0, 2, 1]);
        let v6 = V6::from_words(1, 2);
        assert_eq!(ScopedAddress::new(v4).address(), Some(v4.into()));
        assert_eq!(ScopedAddress::new(v6).address(), Some(v6.into()));
        for note in [ScopedAddress::COMPLETE, ScopedAddress::BRIDGED] {
            assert_eq!(note.address(), None);
        }
    }
}
