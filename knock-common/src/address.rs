//! The two address families behind one trait, so that every decision is written once.

use core::{
    fmt::Debug,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bytemuck::{Pod, Zeroable};

use crate::wire::load;

/// An IPv4 address: its bytes in network order, in one word.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroable, Pod)]
pub struct V4(u32);

/// An IPv6 address: its bytes in network order, in two words.
///
/// Not an array of bytes: the compiler keeps a pair of words in registers, but copies an array byte by byte.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroable, Pod)]
pub struct V6(u64, u64);

/// An address of either family, an IPv4 address padded with zeros. Only meaningful together with the family.
pub type Padded = V6;

/// An address of one family.
pub trait Address: Pod + Eq + Hash + Debug + Into<IpAddr> {
    /// 4 or 6 in keys and events, where 0 stands for none.
    const FAMILY: u8;
    /// Length of a whole address in bits.
    const BITS: u8;
    /// Bytes of the IP header without options or extension headers.
    const HEADER: usize;

    /// Length of the prefix that `grant_to = "prefix"` grants to: /24 and /64.
    const PREFIX: u8;

    /// Returns the address with all bits after the first `length` cleared.
    #[must_use]
    fn masked(self, length: u8) -> Self;

    /// Returns the address in the form of either family.
    fn padded(self) -> Padded;

    /// Returns the address from the form of either family.
    fn unpadded(padded: Padded) -> Self;

    /// Returns whether packets to the address are for this host too, whatever its own addresses are, so that no table lists
    /// it: multicast, the limited broadcast, IPv4's network 0 (a host that has no address yet), and IPv4's loopback network,
    /// which the kernel takes from other hosts with `route_localnet`, or where a rule for DNAT comes before the check.
    fn is_of_every_host(self) -> bool;

    /// Returns the address folded to 64 bits, for tags.
    fn fold(self) -> u64;
}

impl V4 {
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// Reads the address in a packet.
    #[inline(always)]
    pub fn from_bytes(bytes: &[u8; 4]) -> Self {
        Self(load(bytes, 0))
    }
}

impl V6 {
    #[inline(always)]
    pub const fn from_words(first: u64, second: u64) -> Self {
        Self(first, second)
    }

    /// Reads the address in a packet.
    #[inline(always)]
    pub fn from_bytes(bytes: &[u8; 16]) -> Self {
        Self(load(bytes, 0), load(bytes, 8))
    }

    #[inline(always)]
    pub const fn words(self) -> (u64, u64) {
        (self.0, self.1)
    }
}

impl Address for V4 {
    const FAMILY: u8 = 4;
    const BITS: u8 = 32;
    const PREFIX: u8 = 24;
    const HEADER: usize = 20;

    #[inline(always)]
    fn masked(self, length: u8) -> Self {
        let high = (mask(u32::from(length)) >> 32) as u32;
        Self(self.0 & high.to_be())
    }

    #[inline(always)]
    fn padded(self) -> Padded {
        V6(u64::from(self.0), 0)
    }

    #[inline(always)]
    fn unpadded(padded: Padded) -> Self {
        Self(padded.0 as u32)
    }

    #[inline(always)]
    fn is_of_every_host(self) -> bool {
        let [first, ..] = self.0.to_ne_bytes();
        first & 0xf0 == 0xe0 || first == 0 || first == 127 || self.0 == u32::MAX
    }

    #[inline(always)]
    fn fold(self) -> u64 {
        u64::from(self.0)
    }
}

impl Address for V6 {
    const FAMILY: u8 = 6;
    const BITS: u8 = 128;
    const PREFIX: u8 = 64;
    const HEADER: usize = 40;

    #[inline(always)]
    fn masked(self, length: u8) -> Self {
        let length = u32::from(length);
        Self(
            self.0 & mask(length).to_be(),
            self.1 & mask(length.saturating_sub(64)).to_be(),
        )
    }

    #[inline(always)]
    fn padded(self) -> Padded {
        self
    }

    #[inline(always)]
    fn unpadded(padded: Padded) -> Self {
        padded
    }

    #[inline(always)]
    fn is_of_every_host(self) -> bool {
        self.0.to_ne_bytes()[0] == 0xff
    }

    #[inline(always)]
    fn fold(self) -> u64 {
        self.0 ^ self.1.rotate_left(1)
    }
}

/// Returns a word with the first `length` bits set, at most 64.
#[inline(always)]
fn mask(length: u32) -> u64 {
    // A shift by 64 would overflow.
    if length == 0 {
        0
    } else {
        u64::MAX << (64 - length.min(64))
    }
}

impl From<Ipv4Addr> for V4 {
    fn from(address: Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Ipv6Addr> for V6 {
    fn from(address: Ipv6Addr) -> Self {
        bytemuck::must_cast(address.octets())
    }
}

impl From<V4> for IpAddr {
    fn from(address: V4) -> Self {
        Self::V4(address.0.to_ne_bytes().into())
    }
}

impl From<V6> for IpAddr {
    fn from(address: V6) -> Self {
        let bytes: [u8; 16] = bytemuck::must_cast(address);
        Self::V6(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(address: &str, length: u8) -> String {
        match address.parse::<IpAddr>().unwrap() {
            IpAddr::V4(address) => IpAddr::from(V4::from(address).masked(length)),
            IpAddr::V6(address) => IpAddr::from(V6::from(address).masked(length)),
        }
        .to_string()
    }

    #[test]
    fn masks_cut_at_any_bit() {
        assert_eq!(masked("198.51.100.7", 24), "198.51.100.0");
        assert_eq!(masked("198.51.100.7", 31), "198.51.100.6");
        assert_eq!(masked("198.51.100.7", 32), "198.51.100.7");
        assert_eq!(masked("198.51.100.7", 0), "0.0.0.0");
        assert_eq!(masked("2001:db8:1:2:3:4:5:6", 64), "2001:db8:1:2::");
        for length in 0..=128_u8 {
            let IpAddr::V6(cut) = V6(u64::MAX, u64::MAX).masked(length).into() else {
                panic!("an IPv6 address became another");
            };
            let expected = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            assert_eq!(cut.to_bits(), expected, "/{length}");
        }
    }

    #[test]
    fn addresses_that_no_host_has_alone_are_told_from_others() {
        let is_of_every_host = |address: &str| match address.parse::<IpAddr>().unwrap() {
            IpAddr::V4(address) => V4::from(address).is_of_every_host(),
            IpAddr::V6(address) => V6::from(address).is_of_every_host(),
        };
        for many in [
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.0.1",
            "ff02::1",
            "ffff::",
        ] {
            assert!(is_of_every_host(many), "{many}");
        }
        for one in [
            "192.0.2.1",
            "223.255.255.255",
            "240.0.0.1",
            "255.255.255.254",
            "1.0.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "fe80::1",
            "2001:db8::ff",
            "::",
        ] {
            assert!(!is_of_every_host(one), "{one}");
        }
    }

    #[test]
    fn addresses_survive_padding() {
        let v4 = V4::from(Ipv4Addr::new(198, 51, 100, 7));
        assert_eq!(V4::unpadded(v4.padded()), v4);
        assert_eq!(IpAddr::from(v4).to_string(), "198.51.100.7");
        let v6 = V6::from(Ipv6Addr::LOCALHOST);
        assert_eq!(V6::unpadded(v6.padded()), v6);
        assert_eq!(IpAddr::from(v6).to_string(), "::1");
    }
}
