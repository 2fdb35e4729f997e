//! The headers between the Ethernet header and the transport header: VLAN tags and IPv6 extension headers.

use super::length;

pub(super) const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const AUTHENTICATION: u8 = 51;
pub(super) const DESTINATION_OPTIONS: u8 = 60;

/// A VLAN tag: the ethertype that announces it, and its identifier; zero for a priority tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub ethertype: u16,
    pub id: u16,
}

/// The security association (SPI) that authentication headers name.
pub const SPI: u32 = 0x100;

/// An IPv6 extension header, and how much longer it is than the minimum (8 bytes, 12 for authentication), in units of
/// 8 bytes, for authentication of 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    HopByHop(u8),
    Routing(u8),
    DestinationOptions(u8),
    Authentication(u8),
    /// A fragment header on a whole packet (RFC 6946). `Packet::piece` adds those of real fragments.
    AtomicFragment,
}

impl Tag {
    /// 802.1Q with an identifier of 1 to 4094.
    pub const fn vlan(id: u16) -> Self {
        Self {
            ethertype: 0x8100,
            id,
        }
    }

    /// 802.1ad, the outer of two tags.
    pub const fn service(id: u16) -> Self {
        Self {
            ethertype: 0x88a8,
            id,
        }
    }

    /// A tag that carries a priority and no VLAN.
    pub const PRIORITY: Self = Self {
        ethertype: 0x8100,
        id: 0,
    };
}

impl Extension {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::HopByHop(_) => HOP_BY_HOP,
            Self::Routing(_) => ROUTING,
            Self::DestinationOptions(_) => DESTINATION_OPTIONS,
            Self::Authentication(_) => AUTHENTICATION,
            Self::AtomicFragment => FRAGMENT,
        }
    }

    pub(super) fn header(self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop(more) | Self::DestinationOptions(more) => {
                let mut header = vec![0; 8 + 8 * usize::from(more)];
                // One experimental option that fills the header, of a type that hosts skip (RFC 4727): Linux drops a
                // packet with more than seven bytes of padding.
                let option = length(header.len() - 4).to_be_bytes()[1];
                header[..4].copy_from_slice(&[next, more, 0x1e, option]);
                header
            }
            Self::Routing(more) => {
                let mut header = vec![0; 8 + 8 * usize::from(more)];
                // A routing type for experiments, with no segment left: a host skips it (RFC 8200).
                header[..4].copy_from_slice(&[next, more, 253, 0]);
                header
            }
            Self::Authentication(more) => {
                let mut header = vec![0; 12 + 4 * usize::from(more)];
                header[..2].copy_from_slice(&[next, 1 + more]);
                header[4..8].copy_from_slice(&SPI.to_be_bytes());
                header
            }
            // Offset zero, no more fragments, and an identification that has no use here.
            Self::AtomicFragment => vec![next, 0, 0, 0, 0, 0, 0x12, 0x34],
        }
    }
}
