//! IP headers of requests and replies.

use bytemuck::{Pod, Zeroable};

use super::checksum::{fold, halves, total};
use crate::{
    address::{Address, V4, V6},
    frame::{Frame, FrameMut},
    wire::{Ipv4Header, Ipv6Header, ether},
};

/// What differs between the families.
pub trait ReplyFamily: Address {
    const ETHERTYPE: u16;
    /// Protocol number of its ICMP.
    const ICMP: u8;
    /// Type and code of its port unreachable (RFC 792, RFC 4443).
    const UNREACHABLE: [u8; 2];
    /// Longest packet of an ICMP error, bytes (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4).
    const MOST: usize;

    /// Returns the sum of its 32-bit words.
    fn sum(self) -> u64;

    /// Returns whether it can be the source of a packet, and the destination of a reply.
    fn is_one_host(self) -> bool;

    /// Reads its header at `at`; `None` where a host drops the packet without a reply.
    fn read<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<IpFields<Self>>;

    /// Writes its header at `at`, and these words behind it.
    fn put<F: FrameMut + ?Sized, const N: usize>(
        fields: &IpFields<Self>,
        frame: &mut F,
        at: usize,
        behind: [u32; N],
    ) -> Option<()>
    where
        [u32; N]: Pod;
}

/// The fields of an IP header without options or extension headers.
#[derive(Debug, Clone, Copy)]
pub struct IpFields<A> {
    pub source: A,
    pub destination: A,
    pub protocol: u8,
    /// Type of service, traffic class.
    pub traffic: u8,
    /// Time to live, hop limit.
    pub hops: u8,
    /// Flow label, as a number; 0 for IPv4.
    pub label: u32,
    /// Of IPv4. A packet without one may not be fragmented.
    pub identification: Option<u16>,
    /// Bytes behind the header.
    pub length: usize,
}

impl ReplyFamily for V4 {
    const ETHERTYPE: u16 = ether::IPV4;
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
        // This network, loopback, multicast, and the reserved addresses above, with broadcast.
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn read<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<IpFields<Self>> {
        let header = frame.header::<Ipv4Header>(at)?;
        // More fragments, or an offset. The host ignores the reserved bit.
        let is_fragment = header.fragment.get() & 0x3fff != 0;
        let words = header.words();
        if header.version_and_length != 0x45 || is_fragment || fold(total(&words)) != 0xffff {
            return None;
        }
        Some(IpFields {
            source: Self::from_word(words[3]),
            destination: Self::from_word(words[4]),
            protocol: header.protocol,
            traffic: header.traffic,
            hops: header.ttl,
            label: 0,
            identification: None,
            length: usize::from(header.length.get()).checked_sub(Self::HEADER)?,
        })
    }

    #[inline(always)]
    fn put<F: FrameMut + ?Sized, const N: usize>(
        fields: &IpFields<Self>,
        frame: &mut F,
        at: usize,
        behind: [u32; N],
    ) -> Option<()>
    where
        [u32; N]: Pod,
    {
        let fragment = match fields.identification {
            Some(identification) => u32::from(identification) << 16,
            // Do not fragment.
            None => 0x4000,
        };
        let length = (Self::HEADER + fields.length) as u32;
        let start = 0x45 << 24 | u32::from(fields.traffic) << 16 | length;
        let mut words = [
            start.to_be(),
            fragment.to_be(),
            (u32::from(fields.hops) << 24 | u32::from(fields.protocol) << 16).to_be(),
            fields.source.sum() as u32,
            fields.destination.sum() as u32,
        ];
        words[2] |= u32::from(!fold(total(&words))) << 16;
        frame.put(at, words)?;
        frame.put(at + Self::HEADER, behind)
    }
}

impl ReplyFamily for V6 {
    const ETHERTYPE: u16 = ether::IPV6;
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
        // Multicast; then the unspecified address, loopback, and IPv4-mapped addresses.
        first as u8 != 0xff
            && (first != 0 || (second.to_be() > 1 && second.to_be() >> 32 != 0xffff))
    }

    #[inline(always)]
    fn read<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<IpFields<Self>> {
        let header = frame.header::<Ipv6Header>(at)?;
        let start = header.version_and_label.get();
        Some(IpFields {
            source: Self::from_bytes(&header.source),
            destination: Self::from_bytes(&header.destination),
            protocol: header.next,
            traffic: (start >> 20) as u8,
            hops: header.hop_limit,
            label: start & 0xf_ffff,
            identification: None,
            length: usize::from(header.length.get()),
        })
    }

    #[inline(always)]
    fn put<F: FrameMut + ?Sized, const N: usize>(
        fields: &IpFields<Self>,
        frame: &mut F,
        at: usize,
        behind: [u32; N],
    ) -> Option<()>
    where
        [u32; N]: Pod,
    {
        let start = 6 << 28 | u32::from(fields.traffic) << 20 | fields.label;
        let rest =
            (fields.length as u32) << 16 | u32::from(fields.protocol) << 8 | u32::from(fields.hops);
        let header = Header6 {
            words: [start.to_be(), rest.to_be()],
            source: fields.source,
            destination: fields.destination,
        };
        frame.put(at, header)?;
        frame.put(at + Self::HEADER, behind)
    }
}

/// An IPv6 header, to be written.
#[repr(C)]
#[derive(Clone, Copy, Zeroable, Pod)]
struct Header6 {
    words: [u32; 2],
    source: V6,
    destination: V6,
}
