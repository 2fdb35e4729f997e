//! What a closed port of this host answers, for gates with `deny = "reject"`: Linux's own RST to TCP
//! (`tcp_v4_send_reset`, `tcp_v6_send_reset`), its ICMP port unreachable to UDP (`__icmp_send`,
//! `icmp6_send`), or nothing.
//!
//! Where the host's answer can't be told from the packet, there is none: to IPv4 options, IPv6
//! extension headers and fragments, which the host would unwrap first.
//!
//! Numbers that come from the packet and go back into it are kept as they lie there, in network
//! order; Internet checksums come out right in either.

mod checksum;
mod headers;
pub mod rate_limit;
pub mod reply;
pub mod request;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use crate::{Address, frame::Frame};

pub use checksum::{MOST_SUMMED, Summed, fold};
pub use headers::ReplyFamily;

/// How this host answers packets to its closed ports. One entry.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct ReplySettings {
    /// One ICMP error is owed to a destination every so often, ns; 0: any number, any time.
    pub interval4: u64,
    pub interval6: u64,
    /// Errors to all destinations that come to be owed every second, and how many may add up.
    pub per_second: u32,
    pub burst: u32,
    /// Of the kernel's timer, ns.
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
    /// 1: TCP options that make no sense are answered by nothing (since Linux 6.7).
    pub strict: u8,
    pub zero: [u8; 3],
}

/// How a host labels IPv6 flows: bits of [`ReplySettings::labels`].
pub mod labels {
    /// It makes labels up.
    pub const AUTO: u8 = 1;
    /// Those have the highest bit set.
    pub const STATELESS: u8 = 2;
    /// A RST has the label of the packet that it answers.
    pub const REFLECT: u8 = 4;
}

/// An interface that a packet came by, or a VLAN on it. Key of the link table.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroable, Pod)]
pub struct LinkKey {
    /// The kernel's index of the interface that carries the program.
    pub interface: u32,
    /// Outer first; 0: none.
    pub vlans: [u16; 2],
}

/// What an answer needs of the interface.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Link {
    pub mac: [u8; 6],
    /// Of IPv6 packets.
    pub hop_limit: u8,
    /// 1: packets may arrive whose checksum the sender has left to hardware.
    pub partial: u8,
}

/// What an address is to this host.
pub mod address_kind {
    /// It is the host's own.
    pub const OWN: u32 = 1;
    /// Everyone's on one of its networks.
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
        zero: 45,
    },
    LinkKey: 8 { interface: 0, vlans: 4 },
    Link: 8 { mac: 0, hop_limit: 6, partial: 7 },
}

/// A frame that can be rewritten in place.
pub trait FrameMut: Frame {
    /// Stores a value at `at`; `None` where the frame ends before.
    fn put<T: Pod>(&mut self, at: usize, value: T) -> Option<()>;
}

/// What the answer depends on beside the packet.
pub trait Host {
    /// How this host answers at all; `None`: it doesn't.
    fn settings(&self) -> Option<&ReplySettings>;

    /// The interface that the packet came by, or one of its VLANs, outer first and 0 for none.
    fn link(&self, vlans: [u16; 2]) -> Option<&Link>;

    /// [`crate::table::standing`] of an address; 0: a stranger's.
    fn address_kind<A: Address>(&self, address: A) -> u32;
}

impl FrameMut for [u8] {
    #[inline]
    fn put<T: Pod>(&mut self, at: usize, value: T) -> Option<()> {
        let room = self.get_mut(at..at + size_of::<T>())?;
        room.copy_from_slice(bytemuck::bytes_of(&value));
        Some(())
    }
}
