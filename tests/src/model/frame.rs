//! Reads a frame as the rules say, slowly: what it contains, and to which port it goes.

use std::net::IpAddr;

use knock_user::values::{Port, Protocol};

use super::authenticated::Message;

/// The contents of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    NotIp,
    /// IP that carries neither TCP nor UDP.
    OtherProtocol,
    /// A fragment other than the first.
    LaterFragment,
    /// A packet that cannot be read; source and destination, if these can.
    Malformed(Option<(IpAddr, IpAddr)>),
    Segment(Segment),
}

/// A TCP segment or UDP datagram whose ports can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub source: IpAddr,
    pub source_port: u16,
    pub destination: IpAddr,
    pub port: Port,
    /// TCP's; zero if the frame ends before them.
    pub flags: u8,
    /// TCP's; zero if the frame ends before it.
    pub sequence: u32,
    /// What may be an authenticated knock: the first 64 bytes of a datagram that says that it has 64 to 256, if the frame
    /// has them.
    pub message: Option<Message>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
/// Hop-by-hop, routing, fragment, authentication, destination options.
const EXTENSIONS: [u8; 5] = [0, ROUTING, FRAGMENT, AUTHENTICATION, 60];

/// Reads a packet from a link without a header: its first four bits are the IP version.
pub fn read_bare(packet: &[u8]) -> Contents {
    if begins_with_tag(packet) {
        return Contents::Malformed(None);
    }
    match packet.first().map(|first| first >> 4) {
        Some(4) => ipv4(packet),
        Some(6) => ipv6(packet),
        _ => Contents::NotIp,
    }
}

/// Returns whether a packet begins with a priority tag, which a host removes. Bytes that could also begin an IPv6
/// header count as a tag only if the bytes after them could be the protocol that it announces.
fn begins_with_tag(packet: &[u8]) -> bool {
    let (Some(control), Some(kind), Some(next)) =
        (short(packet, 0), short(packet, 2), short(packet, 4))
    else {
        return false;
    };
    let announced = match kind {
        0x0800 => next >> 12 == 4,
        0x86dd => next >> 12 == 6,
        0x8100 | 0x88a8 => next << 4 == 0,
        _ => return false,
    };
    control << 4 == 0 && (announced || control >> 12 != 6)
}

/// Reads an Ethernet frame.
pub fn read(frame: &[u8]) -> Contents {
    let Some(mut ethertype) = short(frame, 12) else {
        return Contents::NotIp;
    };
    let mut rest = &frame[14..];
    let mut tags = 0;
    while matches!(ethertype, 0x8100 | 0x88a8) {
        tags += 1;
        // More tags than are read, or an incomplete one.
        if tags > 2 || rest.len() < 4 {
            return Contents::Malformed(None);
        }
        ethertype = u16::from_be_bytes([rest[2], rest[3]]);
        rest = &rest[4..];
    }
    match ethertype {
        0x0800 => ipv4(rest),
        0x86dd => ipv6(rest),
        _ => Contents::NotIp,
    }
}

fn ipv4(packet: &[u8]) -> Contents {
    if packet.len() < 20 {
        return Contents::Malformed(None);
    }
    if packet[0] >> 4 != 4 {
        return Contents::NotIp;
    }
    let protocol = packet[9];
    if protocol != TCP && protocol != UDP {
        return Contents::OtherProtocol;
    }
    let source: [u8; 4] = packet[12..16].try_into().expect("four bytes");
    let destination: [u8; 4] = packet[16..20].try_into().expect("four bytes");
    let ends = (source.into(), destination.into());
    let field = u16::from_be_bytes([packet[6], packet[7]]);
    let (offset, more) = (field & 0x1fff, field & 0x2000 != 0);
    if offset > 0 {
        return later_fragment(protocol, offset, ends);
    }
    // An impossible length is not malformed: the header is then taken to have five words.
    let header = usize::from(packet[0] & 15).max(5) * 4;
    let stated = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let held = stated.min(packet.len());
    transport(packet, header, protocol, more.then_some(held), ends)
}

fn ipv6(packet: &[u8]) -> Contents {
    if packet.len() < 40 {
        return Contents::Malformed(None);
    }
    if packet[0] >> 4 != 6 {
        return Contents::NotIp;
    }
    let source: [u8; 16] = packet[8..24].try_into().expect("sixteen bytes");
    let destination: [u8; 16] = packet[24..40].try_into().expect("sixteen bytes");
    let ends = (source.into(), destination.into());
    let stated = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    let held = stated.min(packet.len());
    let mut next = packet[6];
    let mut at = 40;
    let mut extensions = 0;
    let mut first_fragment = false;
    let mut routed = false;
    while EXTENSIONS.contains(&next) {
        extensions += 1;
        // More headers than are read, or an incomplete one: all have at least eight bytes.
        // In a first fragment, only the packet's own bytes count; the rest of the frame is padding.
        let readable = if first_fragment { held } else { packet.len() };
        if extensions > 8 || readable < at + 8 {
            return Contents::Malformed(Some(ends));
        }
        let header = &packet[at..];
        match next {
            FRAGMENT => {
                let field = u16::from_be_bytes([header[2], header[3]]);
                if field >> 3 > 0 {
                    return later_fragment(header[0], field >> 3, ends);
                }
                first_fragment |= field & 1 == 1;
                at += 8;
            }
            AUTHENTICATION => at += 4 * (2 + usize::from(header[1])),
            _ => at += 8 * (1 + usize::from(header[1])),
        }
        routed = next == ROUTING;
        next = header[0];
    }
    // IP in IP, which a host with segment routing unwraps by itself.
    if routed && (next == IPV4_INSIDE || next == IPV6_INSIDE) {
        return Contents::Malformed(Some(ends));
    }
    if next != TCP && next != UDP {
        return Contents::OtherProtocol;
    }
    transport(packet, at, next, first_fragment.then_some(held), ends)
}

/// Returns the contents of a later fragment. `offset` in units of eight bytes.
fn later_fragment(protocol: u8, offset: u16, ends: (IpAddr, IpAddr)) -> Contents {
    if protocol == TCP && offset == 1 {
        Contents::Malformed(Some(ends))
    } else if protocol == TCP || protocol == UDP || EXTENSIONS.contains(&protocol) {
        Contents::LaterFragment
    } else {
        Contents::OtherProtocol
    }
}

/// Reads the transport header. `held`: how many bytes of the packet a first fragment contains.
fn transport(
    packet: &[u8],
    at: usize,
    protocol: u8,
    held: Option<usize>,
    ends: (IpAddr, IpAddr),
) -> Contents {
    let whole = at + if protocol == TCP { 20 } else { 8 };
    if held.is_some_and(|held| held < whole) {
        return Contents::Malformed(Some(ends));
    }
    let (Some(source_port), Some(number)) = (short(packet, at), short(packet, at + 2)) else {
        return Contents::Malformed(Some(ends));
    };
    let (source, destination) = ends;
    let protocol = if protocol == TCP {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    let sequence = match (short(packet, at + 4), short(packet, at + 6)) {
        (Some(high), Some(low)) => u32::from(high) << 16 | u32::from(low),
        _ => 0,
    };
    let is_knock = protocol == Protocol::Udp
        && short(packet, at + 4).is_some_and(|length| (8 + 64..=8 + 256).contains(&length));
    let payload = packet.get(at + 8..at + 8 + 64).filter(|_| is_knock);
    Contents::Segment(Segment {
        source,
        source_port,
        destination,
        port: Port { number, protocol },
        flags: packet.get(at + 13).copied().unwrap_or(0),
        sequence,
        message: payload.map(|bytes| bytes.try_into().expect("64 bytes")),
    })
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}
