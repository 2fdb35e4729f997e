//! Reading a packet: Ethernet II with up to two VLAN tags, or no link header at all; IPv4 with options,
//! IPv6 with up to eight extension headers, and the ports of TCP and UDP.
//!
//! What can't be read to its ports never passes as if it had been: it is `malformed`. What the host
//! itself would not take for TCP or UDP passes untouched.

use crate::{
    Reason,
    address::{V4, V6},
};

/// IP protocol numbers (IANA).
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

const ETHER_IPV4: u16 = 0x0800;
const ETHER_IPV6: u16 = 0x86dd;
const ETHER_VLAN: u16 = 0x8100;
const ETHER_QINQ: u16 = 0x88a8;
/// Bytes of an Ethernet header.
pub const ETHER_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
/// Which VLAN a tag names, in its first half.
const IDENTIFIER: u16 = 0x0fff;
const MAX_TAGS: usize = 2;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MAX_EXTENSIONS: usize = 8;

/// IP within IP, by the number of the inner protocol.
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;

/// The bytes of a frame, bounds-checked.
///
/// The one place where the kernel program touches packet memory is its implementation of this.
pub trait Frame {
    /// `N` bytes from `at`, or `None` where the frame ends before.
    fn header<const N: usize>(&self, at: usize) -> Option<&[u8; N]>;

    /// Length in bytes.
    fn length(&self) -> usize;

    /// [`chain`] in this frame, [packed](Chain::pack). In the kernel program it is a function that the
    /// verifier checks by itself: few packets have more than a short chain, and many are the ways
    /// through a long one.
    fn chain(&self, next: u8, at: usize, end: usize) -> u32;
}

/// A TCP or UDP packet whose ports are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<A> {
    pub source: A,
    pub destination: A,
    pub source_port: u16,
    pub destination_port: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Where the TCP or UDP header begins.
    pub transport: usize,
}

/// What a packet turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<A> {
    Segment(Segment<A>),
    /// None of the gate's business.
    Pass(Reason),
    /// Its port can't be known, or it is a fragment that only an attack would send. With source
    /// and destination where they could be read.
    Malformed(Option<(A, A)>),
}

/// The layer behind the link header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLayer {
    Ipv4 { at: usize },
    Ipv6 { at: usize },
    Other,
    Malformed,
}

/// What packets begin with on a link. A type and not a value: each entry of the kernel program is
/// compiled for one, so that no packet pays for the other.
pub trait Framing {
    /// Bytes of the link header, without VLAN tags.
    const HEADER: usize;

    /// Finds the network layer.
    fn network<F: Frame + ?Sized>(frame: &F) -> NetworkLayer;
}

/// Ethernet II, with up to two VLAN tags.
#[derive(Debug, Clone, Copy)]
pub struct Ethernet;

/// No link header: a packet begins with its IP header, whose first four bits say which IP it is.
#[derive(Debug, Clone, Copy)]
pub struct BareIp;

impl Framing for Ethernet {
    const HEADER: usize = ETHER_HEADER;

    #[inline(always)]
    fn network<F: Frame + ?Sized>(frame: &F) -> NetworkLayer {
        let Some(ethernet) = frame.header::<ETHER_HEADER>(0) else {
            return NetworkLayer::Other;
        };
        let mut kind = u16_at(ethernet, 12);
        let mut at = ETHER_HEADER;
        for _ in 0..MAX_TAGS {
            if kind != ETHER_VLAN && kind != ETHER_QINQ {
                break;
            }
            let Some(tag) = frame.header::<VLAN_TAG>(at) else {
                return NetworkLayer::Malformed;
            };
            kind = u16_at(tag, 2);
            at += VLAN_TAG;
        }
        match kind {
            ETHER_IPV4 => NetworkLayer::Ipv4 { at },
            ETHER_IPV6 => NetworkLayer::Ipv6 { at },
            ETHER_VLAN | ETHER_QINQ => NetworkLayer::Malformed,
            _ => NetworkLayer::Other,
        }
    }
}

impl Framing for BareIp {
    const HEADER: usize = 0;

    #[inline(always)]
    fn network<F: Frame + ?Sized>(frame: &F) -> NetworkLayer {
        let Some(start) = frame.header::<8>(0) else {
            return NetworkLayer::Other;
        };
        if is_priority_tag(start) {
            return NetworkLayer::Malformed;
        }
        match start[0] >> 4 {
            4 => NetworkLayer::Ipv4 { at: 0 },
            6 => NetworkLayer::Ipv6 { at: 0 },
            _ => NetworkLayer::Other,
        }
    }
}

/// Does a packet without link header begin with a VLAN tag that names no VLAN? GRE's packets can, and those
/// that are written to a tun device: the host takes such a tag off and goes on with what is behind it.
#[inline(always)]
const fn is_priority_tag(start: &[u8; 8]) -> bool {
    // The identifier. An IPv4 header has its length there.
    if u16::from_be_bytes([start[0], start[1]]) & IDENTIFIER != 0 {
        return false;
    }
    let kind = u16::from_be_bytes([start[2], start[3]]);
    // Where this is an IPv6 header, and one of four flow labels, its length tells.
    let is_ipv6 = start[0] >> 4 == 6;
    match kind {
        ETHER_IPV4 => !is_ipv6 || start[4] >> 4 == 4,
        ETHER_IPV6 => !is_ipv6 || start[4] >> 4 == 6,
        ETHER_VLAN | ETHER_QINQ => {
            !is_ipv6 || u16::from_be_bytes([start[4], start[5]]) & IDENTIFIER == 0
        }
        _ => false,
    }
}

/// Reads an IPv4 packet (RFC 791) that begins at `at`.
#[inline(always)]
pub fn ipv4<F: Frame + ?Sized>(frame: &F, at: usize) -> Parsed<V4> {
    let Some(header) = frame.header::<20>(at) else {
        return Parsed::Malformed(None);
    };
    if header[0] >> 4 != 4 {
        return Parsed::Pass(Reason::NotIp);
    }
    let protocol = header[9];
    if protocol != TCP && protocol != UDP {
        return Parsed::Pass(Reason::OtherProtocol);
    }
    let source = V4::from_word(load(header, 12));
    let destination = V4::from_word(load(header, 16));
    // A header length below five words is nonsense that the host drops; its port is looked for
    // where the shortest header would end.
    let transport = at + usize::from(header[0] & 0x0f).max(5) * 4;

    let fragment = u16_at(header, 6);
    let offset = fragment & 0x1fff;
    if offset != 0 {
        return later_fragment(protocol, offset == 1, (source, destination));
    }
    let more = fragment & 0x2000 != 0;
    let end = at + usize::from(u16_at(header, 2));
    if more && !holds_header(frame, transport, end, protocol) {
        return Parsed::Malformed(Some((source, destination)));
    }
    segment(frame, source, destination, protocol, transport)
}

/// Reads an IPv6 packet (RFC 8200) that begins at `at`.
#[inline(always)]
pub fn ipv6<F: Frame + ?Sized>(frame: &F, at: usize) -> Parsed<V6> {
    let Some(header) = frame.header::<40>(at) else {
        return Parsed::Malformed(None);
    };
    if header[0] >> 4 != 6 {
        return Parsed::Pass(Reason::NotIp);
    }
    let source = V6::from_words(load(header, 8), load(header, 16));
    let destination = V6::from_words(load(header, 24), load(header, 32));
    let next = header[6];
    let (protocol, transport) = match short_chain(frame, next, at + 40) {
        Some(found) => found,
        None if !is_extension(next) => return Parsed::Pass(Reason::OtherProtocol),
        None => {
            let end = at + 40 + usize::from(u16_at(header, 4));
            match Chain::unpack(frame.chain(next, at + 40, end)) {
                Chain::Transport { protocol, at } => (protocol, at),
                Chain::Pass(reason) => return Parsed::Pass(reason),
                Chain::Malformed => return Parsed::Malformed(Some((source, destination))),
            }
        }
    };
    segment(frame, source, destination, protocol, transport)
}

/// Where TCP or UDP begins behind no more than two headers of options or routing, as [`chain`] would
/// find it. `None`: ask there.
///
/// In place, since a call costs more than to read them; and only kinds that state their length alike, so
/// that the verifier has few ways to follow.
#[inline(always)]
fn short_chain<F: Frame + ?Sized>(frame: &F, mut next: u8, mut at: usize) -> Option<(u8, usize)> {
    for _ in 0..2 {
        if is_transport(next) {
            return Some((next, at));
        }
        if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
            return None;
        }
        let extension = frame.header::<8>(at)?;
        next = extension[0];
        at += (usize::from(extension[1]) + 1) * 8;
    }
    is_transport(next).then_some((next, at))
}

#[inline(always)]
const fn is_transport(kind: u8) -> bool {
    matches!(kind, TCP | UDP)
}

#[inline(always)]
const fn is_extension(kind: u8) -> bool {
    matches!(
        kind,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}

/// Where a chain of IPv6 extension headers leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// [`TCP`] or [`UDP`], and where its header begins.
    Transport {
        protocol: u8,
        at: usize,
    },
    /// None of the gate's business.
    Pass(Reason),
    Malformed,
}

impl Chain {
    const OTHER_PROTOCOL: u32 = 1 << 24;
    const LATER_FRAGMENT: u32 = 2 << 24;
    const MALFORMED: u32 = 3 << 24;
    /// Where a transport header begins is below this.
    const BOUND: usize = 1 << 15;

    /// In one number, since that is what a BPF function returns.
    #[inline(always)]
    pub const fn pack(self) -> u32 {
        match self {
            Self::Transport { protocol, at } => {
                (protocol as u32) << 16 | (at & (Self::BOUND - 1)) as u32
            }
            Self::Pass(Reason::Fragment) => Self::LATER_FRAGMENT,
            Self::Pass(_) => Self::OTHER_PROTOCOL,
            Self::Malformed => Self::MALFORMED,
        }
    }

    #[inline(always)]
    const fn unpack(packed: u32) -> Self {
        match packed & Self::MALFORMED {
            0 => Self::Transport {
                protocol: (packed >> 16) as u8,
                at: packed as usize & (Self::BOUND - 1),
            },
            Self::OTHER_PROTOCOL => Self::Pass(Reason::OtherProtocol),
            Self::LATER_FRAGMENT => Self::Pass(Reason::Fragment),
            _ => Self::Malformed,
        }
    }
}

/// Follows a chain of IPv6 extension headers, of which the first is a `next` and begins at `at`. `end`:
/// that of the packet, as its header states it.
#[inline(always)]
pub fn chain<F: Frame + ?Sized>(frame: &F, mut next: u8, mut at: usize, end: usize) -> Chain {
    let mut first_fragment = false;
    for _ in 0..MAX_EXTENSIONS {
        // Every extension header has at least eight bytes.
        let Some(extension) = frame.header::<8>(at) else {
            return Chain::Malformed;
        };
        // What follows a first fragment in its frame is padding of the link. The host finds the next
        // header in the next fragment, whatever the padding says it is.
        if first_fragment && at + 8 > end {
            return Chain::Malformed;
        }
        let words = usize::from(extension[1]);
        let length = match next {
            FRAGMENT => {
                let offset = u16_at(extension, 2);
                if offset & 0xfff8 != 0 {
                    return match extension[0] {
                        TCP if offset & 0xfff8 == 8 => Chain::Malformed,
                        TCP | UDP => Chain::Pass(Reason::Fragment),
                        kind if is_extension(kind) => Chain::Pass(Reason::Fragment),
                        _ => Chain::Pass(Reason::OtherProtocol),
                    };
                }
                first_fragment |= offset & 1 != 0;
                8
            }
            // In units of four bytes, less two (RFC 4302, section 2.2).
            AUTHENTICATION => (words + 2) * 4,
            _ => (words + 1) * 8,
        };
        // A host that takes segment routing (SRv6, RPL) unwraps such a packet itself, without a tunnel's
        // device, and delivers what is inside: by its next hop too, where that is another address of
        // the host's.
        let unwrapped = next == ROUTING && matches!(extension[0], IPV4_INSIDE | IPV6_INSIDE);
        next = extension[0];
        // Never reached by eight headers of at most 2 KiB each; it gives the verifier one bound for
        // all paths through the loop, so that it follows one of them and not thousands.
        at = (at + length) & (Chain::BOUND - 1);
        match next {
            TCP | UDP if first_fragment && !holds_header(frame, at, end, next) => {
                return Chain::Malformed;
            }
            TCP | UDP => return Chain::Transport { protocol: next, at },
            _ if unwrapped => return Chain::Malformed,
            _ if is_extension(next) => {}
            _ => return Chain::Pass(Reason::OtherProtocol),
        }
    }
    Chain::Malformed
}

/// TCP flags as they stand in byte 13 of its header (RFC 9293).
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// The flags and the sequence number of a TCP segment; zero where the frame ends before them.
#[inline(always)]
pub fn tcp<F: Frame + ?Sized, A>(frame: &F, segment: &Segment<A>) -> (u8, u32) {
    match frame.header::<14>(segment.transport) {
        Some(header) => (header[13], u32_at(header, 4)),
        None => (0, 0),
    }
}

/// A fragment behind the first one passes, since without the first the host can't reassemble it. At
/// offset 1, TCP's flags begin: only an attempt to rewrite them cuts a packet there (RFC 3128).
#[inline(always)]
fn later_fragment<A>(protocol: u8, at_one: bool, ends: (A, A)) -> Parsed<A> {
    if protocol == TCP && at_one {
        Parsed::Malformed(Some(ends))
    } else {
        Parsed::Pass(Reason::Fragment)
    }
}

/// Does a first fragment hold its whole TCP or UDP header, before the end that the IP header
/// states? What follows there is padding of the link, not part of the packet.
#[inline(always)]
fn holds_header<F: Frame + ?Sized>(frame: &F, transport: usize, end: usize, protocol: u8) -> bool {
    let needed = if protocol == TCP { 20 } else { 8 };
    transport + needed <= end && transport + needed <= frame.length()
}

#[inline(always)]
fn segment<F: Frame + ?Sized, A>(
    frame: &F,
    source: A,
    destination: A,
    protocol: u8,
    transport: usize,
) -> Parsed<A> {
    let Some(ports) = frame.header::<4>(transport) else {
        return Parsed::Malformed(Some((source, destination)));
    };
    Parsed::Segment(Segment {
        source,
        destination,
        source_port: u16_at(ports, 0),
        destination_port: u16_at(ports, 2),
        protocol,
        transport,
    })
}

/// Sixteen bits in network byte order.
#[inline(always)]
pub(crate) fn u16_at<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be(load(header, at))
}

/// Thirty-two bits in network byte order.
#[inline(always)]
pub(crate) fn u32_at<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_be(load(header, at))
}

/// An integer from the bytes at `at`, which is always a constant within the header.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
pub fn load<T: bytemuck::AnyBitPattern, const N: usize>(header: &[u8; N], at: usize) -> T {
    bytemuck::pod_read_unaligned(&header[at..at + size_of::<T>()])
}

/// The same in one instruction: the compiler would fetch what may be misaligned byte by byte, though
/// the kernel's BPF takes misaligned packet loads where the machine does, and refuses the program at
/// load where it doesn't.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn load<T: bytemuck::AnyBitPattern, const N: usize>(header: &[u8; N], at: usize) -> T {
    assert!(at + size_of::<T>() <= N);
    // SAFETY: within the header by the assertion, which folds away; any bits are valid.
    unsafe { *header.as_ptr().add(at).cast::<T>() }
}

impl Frame for [u8] {
    #[inline]
    fn header<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        self.get(at..)?.first_chunk()
    }

    #[inline]
    fn length(&self) -> usize {
        self.len()
    }

    fn chain(&self, next: u8, at: usize, end: usize) -> u32 {
        chain(self, next, at, end).pack()
    }
}
