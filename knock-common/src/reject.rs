//! The reply of a closed port, for gates with `deny = "reject"`: Linux's own RST to TCP
//! (`tcp_v4_send_reset`, `tcp_v6_send_reset`), its ICMP port unreachable to UDP (`__icmp_send`,
//! `icmp6_send`), or nothing.
//!
//! [`request`] reads what decides on the reply, [`permit`] applies the host's limits of ICMP errors, and [`reply`]
//! writes the reply over the packet.
//!
//! Where the host's reply cannot be told from the packet there is none: to IPv4 options, IPv6
//! extension headers and fragments, which the host would process first.
//!
//! Numbers that come from the packet and go back into it are kept as they lie there, in network
//! order; Internet checksums come out right in either.

mod checksum;
mod headers;
pub mod permit;
pub mod rate_limit;
pub mod reply;
pub mod request;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

pub use checksum::{MOST_SUMMED, Summed, fold};
pub use headers::ReplyFamily;

/// How this host replies to packets to its closed ports. One entry.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct ReplySettings {
    /// Time after which a destination may get another ICMP error, ns; 0: no limit.
    pub interval4: u64,
    pub interval6: u64,
    /// ICMP errors to all destinations a second, and how many may be sent at once.
    pub per_second: u32,
    pub burst: u32,
    /// Period of the kernel's timer, ns.
    pub tick: u64,
    /// Makes flow labels unpredictable.
    pub secret: u64,
    /// Time to live of IPv4 packets.
    pub ttl: u8,
    /// [`labels`].
    pub labels: u8,
    /// Bits: 1 where the limit for all destinations holds for IPv4's port unreachable, 2 for IPv6's.
    pub limited: u8,
    /// 1: filled in.
    pub known: u8,
    /// 1: there is no reply to malformed TCP options, nor to the authentication option of RFC 5925 (since Linux 6.7).
    pub strict: u8,
    /// The kernel reads TCP options only while at least so many bytes of them are left: [`LEAST_OPTIONS`] if it was built with
    /// `TCP_AO`, or else [`SIGNATURE_LENGTH`].
    pub least_options: u8,
    pub zero: [u8; 2],
}

/// Bytes of the TCP option that carries a signature (RFC 2385).
pub const SIGNATURE_LENGTH: u8 = 18;
/// Bytes of the shortest authentication option that holds a part of a code (RFC 5925).
pub const LEAST_OPTIONS: u8 = 5;

/// How a host labels IPv6 flows: bits of [`ReplySettings::labels`].
pub mod labels {
    /// It generates labels.
    pub const AUTO: u8 = 1;
    /// These have the highest bit set.
    pub const STATELESS: u8 = 2;
    /// A RST has the label of the packet that it replies to.
    pub const REFLECT: u8 = 4;
}

/// An interface that a packet arrives by, or a VLAN on it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroable, Pod)]
pub struct LinkKey {
    /// The kernel's index of the interface that carries the program.
    pub interface: u32,
    /// Outer first; 0: none.
    pub vlans: [u16; 2],
}

/// What a reply needs of the interface.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Link {
    pub mac: [u8; 6],
    /// Of IPv6 packets.
    pub hop_limit: u8,
    /// 1: packets may arrive whose checksum the sender has left to hardware.
    pub partial: u8,
}

/// The kinds of an address to this host; 0: another host's.
pub mod address_kind {
    /// The host's own.
    pub const OWN: u32 = 1;
    /// Broadcast address of one of its networks, or an anycast address.
    pub const BROADCAST: u32 = 2;
}

records! {
    ReplySettings: 48 {
        interval4: 0,
        interval6: 8,
        per_second: 16,
        burst: 20,
        tick: 24,
        secret: 32,
        ttl: 40,
        labels: 41,
        limited: 42,
        known: 43,
        strict: 44,
        least_options: 45,
        zero: 46,
    },
    LinkKey: 8 { interface: 0, vlans: 4 },
    Link: 8 { mac: 0, hop_limit: 6, partial: 7 },
}
