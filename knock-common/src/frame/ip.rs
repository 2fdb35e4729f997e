//! IPv4 and IPv6, and the ports.

use super::{
    Frame, Parsed, Segment, TCP, UDP,
    extension::{Chain, holds_header, is_extension, short_chain},
};
use crate::{
    address::{V4, V6},
    verdict::Reason,
    wire::{Be32, Ipv4Header, Ipv6Header, TcpStart},
};

/// Reads an IPv4 packet (RFC 791) that begins at `at`.
#[inline(always)]
pub fn ipv4<F: Frame + ?Sized>(frame: &F, at: usize) -> Parsed<V4> {
    let Some(header) = frame.header::<Ipv4Header>(at) else {
        return Parsed::Malformed(None);
    };
    if header.version_and_length >> 4 != 4 {
        return Parsed::Pass(Reason::NotIp);
    }
    let protocol = header.protocol;
    if protocol != TCP && protocol != UDP {
        return Parsed::Pass(Reason::OtherProtocol);
    }
    let source = V4::from_bytes(&header.source);
    let destination = V4::from_bytes(&header.destination);
    // The host drops a packet with a header length below five words. Its ports are read behind the shortest header.
    let transport = at + usize::from(header.version_and_length & 0x0f).max(5) * 4;

    let fragment = header.fragment.get();
    let offset = fragment & 0x1fff;
    if offset != 0 {
        return later_fragment(protocol, offset == 1, (source, destination));
    }
    let more = fragment & 0x2000 != 0;
    let end = at + usize::from(header.length.get());
    if more && !holds_header(frame, transport, end, protocol) {
        return Parsed::Malformed(Some((source, destination)));
    }
    segment(frame, source, destination, protocol, transport)
}

/// Reads an IPv6 packet (RFC 8200) that begins at `at`.
#[inline(always)]
pub fn ipv6<F: Frame + ?Sized>(frame: &F, at: usize) -> Parsed<V6> {
    let Some(header) = frame.header::<Ipv6Header>(at) else {
        return Parsed::Malformed(None);
    };
    if header.version() != 6 {
        return Parsed::Pass(Reason::NotIp);
    }
    let source = V6::from_bytes(&header.source);
    let destination = V6::from_bytes(&header.destination);
    let next = header.next;
    let (protocol, transport) = match short_chain(frame, next, at + 40) {
        Some(found) => found,
        None if !is_extension(next) => return Parsed::Pass(Reason::OtherProtocol),
        None => {
            let end = at + 40 + usize::from(header.length.get());
            match Chain::unpack(frame.chain(next, at + 40, end)) {
                Chain::Transport { protocol, at } => (protocol, at),
                Chain::Pass(reason) => return Parsed::Pass(reason),
                Chain::Malformed => return Parsed::Malformed(Some((source, destination))),
            }
        }
    };
    segment(frame, source, destination, protocol, transport)
}

/// Returns the flags and the sequence number of a TCP segment; zeros if the frame ends before them.
#[inline(always)]
pub fn tcp<F: Frame + ?Sized, A>(frame: &F, segment: &Segment<A>) -> (u8, u32) {
    match frame.header::<TcpStart>(segment.transport) {
        Some(header) => (header.flags, header.sequence.get()),
        None => (0, 0),
    }
}

/// A fragment behind the first one passes, since the host cannot reassemble it without the first. A fragment of TCP at
/// offset 1 can only be an attempt to overwrite the flags, which begin there (RFC 3128).
#[inline(always)]
fn later_fragment<A>(protocol: u8, at_one: bool, ends: (A, A)) -> Parsed<A> {
    if protocol == TCP && at_one {
        Parsed::Malformed(Some(ends))
    } else {
        Parsed::Pass(Reason::Fragment)
    }
}

#[inline(always)]
fn segment<F: Frame + ?Sized, A>(
    frame: &F,
    source: A,
    destination: A,
    protocol: u8,
    transport: usize,
) -> Parsed<A> {
    let Some(ports) = frame.header::<Be32>(transport) else {
        return Parsed::Malformed(Some((source, destination)));
    };
    Parsed::Segment(Segment {
        source,
        destination,
        ports: ports.into(),
        protocol,
        transport,
    })
}
