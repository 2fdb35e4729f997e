//! What a gate with `deny = "reject"` needs to know of its host.

use bytemuck::{Pod, Zeroable};

/// How this host answers packets to its closed ports. One entry.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Habits {
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

/// How a host labels IPv6 flows: bits of [`Habits::labels`].
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
pub mod standing {
    /// It is the host's own.
    pub const OWN: u32 = 1;
    /// Everyone's on one of its networks.
    pub const BROADCAST: u32 = 2;
}

/// How many ICMP errors a destination is owed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Owed {
    /// When it was last looked at, ns of `CLOCK_MONOTONIC`.
    pub since: u64,
    /// Saved up until then, ns: each error costs the interval.
    pub saved: u64,
    /// Of the last packet.
    pub identification: u32,
    pub zero: u32,
}
