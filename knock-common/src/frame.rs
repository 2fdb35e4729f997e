//! Reading a packet: Ethernet II with up to two VLAN tags, or no link header at all; IPv4 with options,
//! IPv6 with up to eight extension headers, and the ports of TCP and UDP.
//!
//! A packet that cannot be read up to its ports never passes as if it could: it is `malformed`. What the host
//! itself would not take for TCP or UDP passes unchanged.

mod bytes;
pub mod extension;
pub mod ip;
pub mod link;
mod plain;

use bytemuck::Pod;

use crate::{verdict::Reason, wire::Be32};

/// IP protocol numbers (IANA).
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// The bytes of a frame, bounds-checked.
///
/// The one place where the kernel program touches packet memory is its implementation of this.
pub trait Frame {
    /// Returns the header at `at`, or `None` where the frame ends before its end. `T` has alignment 1.
    fn header<T: Pod>(&self, at: usize) -> Option<&T>;

    /// Copies the words at `at`, as they lie in the frame. Returns false where the frame ends before their end.
    fn copy<const N: usize>(&self, at: usize, to: &mut [u64; N]) -> bool;

    /// Length in bytes.
    fn length(&self) -> usize;

    /// Returns [`extension::chain`] of this frame, [packed](extension::Chain::pack). In the kernel program it is a
    /// function that the verifier checks by itself: few packets have more than a short chain, and a long one has
    /// many paths.
    fn chain(&self, next: u8, at: usize, end: usize) -> u32;
}

/// A frame that can be rewritten in place.
pub trait FrameMut {
    /// Stores a value at `at`; `None` where the frame ends before.
    fn put<T: Pod>(&mut self, at: usize, value: T) -> Option<()>;
}

/// A TCP or UDP packet whose ports are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<A> {
    pub source: A,
    pub destination: A,
    pub ports: PortPair,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Where the TCP or UDP header begins.
    pub transport: usize,
}

/// A source port and a destination port, in network byte order: as they lie in a packet, so that one load reads both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortPair(u32);

impl PortPair {
    /// Of a packet whose ports are not known.
    pub const NONE: Self = Self(0);

    pub const fn new(source: u16, destination: u16) -> Self {
        // Widening; `From` is not const.
        Self(source.to_be() as u32 | (destination.to_be() as u32) << 16)
    }

    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    #[inline(always)]
    pub const fn source(self) -> u16 {
        u16::from_be(self.0 as u16)
    }

    #[inline(always)]
    pub const fn destination(self) -> u16 {
        u16::from_be((self.0 >> 16) as u16)
    }
}

impl From<&Be32> for PortPair {
    #[inline(always)]
    fn from(ports: &Be32) -> Self {
        Self(ports.raw())
    }
}

/// A packet that has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<A> {
    Segment(Segment<A>),
    /// It passes without a look at its ports.
    Pass(Reason),
    /// It cannot be read up to its ports, or is a fragment that only an attack sends. With source and destination if these
    /// could be read.
    Malformed(Option<(A, A)>),
}

/// TCP flags as they stand in byte 13 of its header (RFC 9293).
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}
