//! What a reply has of its address family.

use bytemuck::{Pod, Zeroable};

use super::{
    FrameMut,
    checksum::{fold, halves, total},
    reply::{Reply, ReplyBuffer},
    request::{self, Request},
};
use crate::{
    address::{Address, V4, V6},
    frame::Frame,
};

/// One family's part of it.
pub trait ReplyFamily: Address {
    const ETHERTYPE: u16;
    const ICMP: u8;
    /// Type and code of its port unreachable (RFC 792, RFC 4443).
    const UNREACHABLE: [u8; 2];
    /// Longest packet of an ICMP error, bytes (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4).
    const MOST: usize;

    /// The sum of its 32-bit words.
    fn sum(self) -> u64;

    /// Can it be where a packet comes from, and an answer go to?
    fn is_one_host(self) -> bool;

    /// Reads its header at `at`, where it is a whole packet without options or extension headers.
    fn request<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Request<Self>>;

    /// Where an answer of this family is made.
    fn buffer_of(buffer: &mut ReplyBuffer) -> &mut Reply<Self>;

    /// Writes its header at `at`, and these words behind it.
    fn put_headers<F: FrameMut + ?Sized, const N: usize>(
        reply: &Reply<Self>,
        frame: &mut F,
        at: usize,
        behind: [u32; N],
    ) -> Option<()>
    where
        [u32; N]: Pod;
}

impl ReplyFamily for V4 {
    const ETHERTYPE: u16 = 0x0800;
    const ICMP: u8 = 1;
    const UNREACHABLE: [u8; 2] = [3, 3];
    const MOST: usize = 576;

    #[inline(always)]
    fn sum(self) -> u64 {
        self.padded().words().0
    }

    #[inline(always)]
    fn is_one_host(self) -> bool {
        let first = self.padded().words().0 as u8;
        // This network, loopback, groups; with the groups go the addresses reserved above them, of
        // which one is everyone.
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn request<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Request<Self>> {
        request::ipv4(frame, at)
    }

    #[inline(always)]
    fn buffer_of(buffer: &mut ReplyBuffer) -> &mut Reply<Self> {
        &mut buffer.v4
    }

    #[inline(always)]
    fn put_headers<F: FrameMut + ?Sized, const N: usize>(
        reply: &Reply<Self>,
        frame: &mut F,
        at: usize,
        behind: [u32; N],
    ) -> Option<()>
    where
        [u32; N]: Pod,
    {
        // A RST may not be cut in pieces, and needs no identification then.
        let fragments = if reply.quoted == 0 { 0x4000 } else { 0 };
        let start = 0x45 << 24 | u32::from(reply.traffic) << 16 | reply.packet() as u32;
        let mut words = [
            start.to_be(),
            (u32::from(reply.identification) << 16 | fragments).to_be(),
            (u32::from(reply.hops) << 24 | u32::from(reply.protocol()) << 16).to_be(),
            reply.source.sum() as u32,
            reply.destination.sum() as u32,
        ];
        words[2] |= u32::from(!fold(total(&words))) << 16;
        frame.put(at, Both(words, behind))
    }
}

impl ReplyFamily for V6 {
    const ETHERTYPE: u16 = 0x86dd;
    const ICMP: u8 = 58;
    const UNREACHABLE: [u8; 2] = [1, 4];
    const MOST: usize = 1280;

    #[inline(always)]
    fn sum(self) -> u64 {
        let (first, second) = self.words();
        halves(first) + halves(second)
    }

    #[inline(always)]
    fn is_one_host(self) -> bool {
        let (first, second) = self.words();
        // Groups; then nobody, loopback, and IPv4 addresses written as IPv6 ones.
        first as u8 != 0xff
            && (first != 0 || (second.to_be() > 1 && second.to_be() >> 32 != 0xffff))
    }

    #[inline(always)]
    fn request<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Request<Self>> {
        request::ipv6(frame, at)
    }

    #[inline(always)]
    fn buffer_of(buffer: &mut ReplyBuffer) -> &mut Reply<Self> {
        &mut buffer.v6
    }

    #[inline(always)]
    fn put_headers<F: FrameMut + ?Sized, const N: usize>(
        reply: &Reply<Self>,
        frame: &mut F,
        at: usize,
        behind: [u32; N],
    ) -> Option<()>
    where
        [u32; N]: Pod,
    {
        let start = 6 << 28 | u32::from(reply.traffic) << 20 | reply.label;
        let rest = ((reply.packet() - Self::HEADER) as u32) << 16
            | u32::from(reply.protocol()) << 8
            | u32::from(reply.hops);
        let header = Header6 {
            words: [start.to_be(), rest.to_be()],
            source: reply.source,
            destination: reply.destination,
        };
        frame.put(at, Both(header, behind))
    }
}

/// An IPv6 header (RFC 8200).
#[repr(C)]
#[derive(Clone, Copy, Zeroable, Pod)]
struct Header6 {
    words: [u32; 2],
    source: V6,
    destination: V6,
}

/// One behind the other.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(super) struct Both<A, B>(pub A, pub B);

// SAFETY: two such types without padding between them.
unsafe impl<A: Zeroable, B: Zeroable> Zeroable for Both<A, B> {}
// SAFETY: as above.
unsafe impl<A: Pod, B: Pod> Pod for Both<A, B> {}
