//! Frames from their parts: Ethernet, VLAN tags, IPv4 with options, IPv6 with extension headers, fragments,
//! TCP and UDP, with lengths and checksums as they should be.
//!
//! Written from the RFCs alone and sharing nothing with the program under test: what both sides believe
//! about a header, they must believe independently.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// TCP flags, as in the header's 14th byte.
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// A VLAN tag: the ethertype that announces it, and its identifier; zero for a mere priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub ethertype: u16,
    pub id: u16,
}

/// An IPv6 extension header other than a fragment header, and how long it is beyond its least (8 bytes,
/// 12 for authentication): in units of 8 bytes, for authentication of 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    HopByHop(u8),
    Routing(u8),
    DestinationOptions(u8),
    Authentication(u8),
}

/// A packet in the making.
#[derive(Clone, Debug)]
pub struct Packet {
    source: IpAddr,
    destination: IpAddr,
    tags: Vec<Tag>,
    options: Vec<u8>,
    extensions: Vec<Extension>,
    protocol: u8,
    /// The transport header and what follows it, checksum included.
    body: Vec<u8>,
}

/// Which part of a packet a fragment carries: bytes of its transport header and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: usize,
    end: usize,
    more: bool,
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

impl Packet {
    /// A TCP segment without payload. Panics where the addresses are of two families.
    pub fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16), flags: u8) -> Self {
        let mut header = Vec::with_capacity(20);
        header.extend(source.1.to_be_bytes());
        header.extend(destination.1.to_be_bytes());
        // Sequence number, acknowledgement number.
        header.extend([0, 0, 0x10, 0, 0, 0, 0, 0]);
        // Five words long, flags, window, checksum to come, urgent pointer.
        header.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        Self::new(source.0, destination.0, TCP, header).summed(16)
    }

    /// A UDP datagram. Panics where the addresses are of two families.
    pub fn udp(source: (IpAddr, u16), destination: (IpAddr, u16), payload: &[u8]) -> Self {
        let mut datagram = Vec::with_capacity(8 + payload.len());
        datagram.extend(source.1.to_be_bytes());
        datagram.extend(destination.1.to_be_bytes());
        datagram.extend(length(8 + payload.len()).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        Self::new(source.0, destination.0, UDP, datagram).summed(6)
    }

    /// Any other transport protocol.
    pub fn other(source: IpAddr, destination: IpAddr, protocol: u8, body: &[u8]) -> Self {
        Self::new(source, destination, protocol, body.to_vec())
    }

    /// Adds a VLAN tag inside those added before.
    #[must_use]
    pub fn tagged(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// Adds IPv4 options; padded to whole words with end-of-list bytes. Meaningless for IPv6.
    #[must_use]
    pub fn with_options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self.options.resize(options.len().next_multiple_of(4), 0);
        assert!(
            self.options.len() <= 40,
            "an IPv4 header holds 40 bytes of options"
        );
        self
    }

    /// Adds an IPv6 extension header behind those added before. Meaningless for IPv4.
    #[must_use]
    pub fn with_extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// The whole packet in one frame.
    pub fn frame(&self, source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
        self.wrapped(source, destination, None)
    }

    /// The packet in fragments cut behind these many bytes of its transport header and payload, which for
    /// all but the last must be multiples of eight.
    pub fn fragments(&self, source: [u8; 6], destination: [u8; 6], cuts: &[usize]) -> Vec<Vec<u8>> {
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([self.body.len()]);
        starts
            .zip(ends)
            .map(|(start, end)| {
                let piece = Piece {
                    start,
                    end,
                    more: end < self.body.len(),
                };
                self.wrapped(source, destination, Some(piece))
            })
            .collect()
    }

    fn new(source: IpAddr, destination: IpAddr, protocol: u8, body: Vec<u8>) -> Self {
        assert_eq!(
            source.is_ipv4(),
            destination.is_ipv4(),
            "one family a packet"
        );
        Self {
            source,
            destination,
            tags: Vec::new(),
            options: Vec::new(),
            extensions: Vec::new(),
            protocol,
            body,
        }
    }

    /// Fills in the transport checksum at `offset`, over the pseudo-header of either family (RFC 9293,
    /// 8200).
    fn summed(mut self, offset: usize) -> Self {
        let mut covered = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                [source.octets(), destination.octets()].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                [source.octets(), destination.octets()].concat()
            }
            _ => unreachable!("the constructor admits one family"),
        };
        covered.extend([0, self.protocol]);
        covered.extend(length(self.body.len()).to_be_bytes());
        covered.extend(&self.body);
        // An all-zero sum would mean "none" for UDP.
        let sum = match checksum(&covered) {
            0 if self.protocol == UDP => 0xffff,
            sum => sum,
        };
        self.body[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
        self
    }

    fn wrapped(&self, source: [u8; 6], destination: [u8; 6], piece: Option<Piece>) -> Vec<u8> {
        let mut frame = [destination, source].concat();
        for tag in &self.tags {
            frame.extend(tag.ethertype.to_be_bytes());
            frame.extend(tag.id.to_be_bytes());
        }
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                self.put_v4(&mut frame, source, destination, piece);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd]);
                self.put_v6(&mut frame, source, destination, piece);
            }
            _ => unreachable!("the constructor admits one family"),
        }
        frame
    }

    fn put_v4(
        &self,
        frame: &mut Vec<u8>,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        piece: Option<Piece>,
    ) {
        let body = self.part(piece);
        let header_length = 20 + self.options.len();
        let fragment = piece.map_or(0, |piece| {
            length(piece.start / 8) | if piece.more { 0x2000 } else { 0 }
        });
        let mut header = vec![0x40 | length(header_length / 4).to_be_bytes()[1], 0];
        header.extend(length(header_length + body.len()).to_be_bytes());
        // Identification, the same in every fragment.
        header.extend([0x12, 0x34]);
        header.extend(fragment.to_be_bytes());
        // Hops left, protocol, checksum to come.
        header.extend([64, self.protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(&self.options);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(header);
        frame.extend(body);
    }

    fn put_v6(
        &self,
        frame: &mut Vec<u8>,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        piece: Option<Piece>,
    ) {
        // From the inside out, as each header names the one behind it.
        let mut next = self.protocol;
        let mut rest = self.part(piece).to_vec();
        if let Some(piece) = piece {
            let mut header = vec![next, 0];
            header.extend((length(piece.start) | u16::from(piece.more)).to_be_bytes());
            // Identification, the same in every fragment.
            header.extend([0, 0, 0x12, 0x34]);
            rest.splice(0..0, header);
            next = FRAGMENT;
        }
        for extension in self.extensions.iter().rev() {
            rest.splice(0..0, extension.header(next));
            next = extension.number();
        }
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(length(rest.len()).to_be_bytes());
        frame.extend([next, 64]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        frame.extend(rest);
    }

    fn part(&self, piece: Option<Piece>) -> &[u8] {
        piece.map_or(
            &self.body,
            |Piece {
                 start,
                 end,
                 more: _,
             }| &self.body[start..end],
        )
    }
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::HopByHop(_) => HOP_BY_HOP,
            Self::Routing(_) => ROUTING,
            Self::DestinationOptions(_) => DESTINATION_OPTIONS,
            Self::Authentication(_) => AUTHENTICATION,
        }
    }

    fn header(self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop(more) | Self::DestinationOptions(more) => {
                let mut header = vec![0; 8 + 8 * usize::from(more)];
                // One experimental option over all that follows, of a type that hosts pass over (RFC 4727);
                // Linux drops a packet with more than seven bytes of mere padding.
                let option = length(header.len() - 4).to_be_bytes()[1];
                header[..4].copy_from_slice(&[next, more, 0x1e, option]);
                header
            }
            Self::Routing(more) => {
                let mut header = vec![0; 8 + 8 * usize::from(more)];
                // A routing type for experiments, with no segment left: a host passes over it (RFC 8200).
                header[..4].copy_from_slice(&[next, more, 253, 0]);
                header
            }
            Self::Authentication(more) => {
                let mut header = vec![0; 12 + 4 * usize::from(more)];
                header[..2].copy_from_slice(&[next, 1 + more]);
                header
            }
        }
    }
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let sum = bytes.chunks(2).fold(0_u32, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("folded twice, it fits")
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("a packet is shorter than 64 KiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn v4() -> [IpAddr; 2] {
        [[10, 77, 1, 2].into(), [10, 77, 0, 1].into()]
    }

    fn v6() -> [IpAddr; 2] {
        ["fd77:0:0:1::2".parse().unwrap(), "fd77::1".parse().unwrap()]
    }

    #[test]
    fn checksum_of_the_rfc_1071_example() {
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&example), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00, "an odd byte is padded");
    }

    #[test]
    fn ipv4_header_sums_to_zero_and_names_its_length() {
        let [source, destination] = v4();
        let packet = Packet::udp((source, 1), (destination, 2), b"x").with_options(&[1, 1, 1]);
        let frame = packet.frame(A, B);
        assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        assert_eq!(frame[14], 0x46);
        assert_eq!(checksum(&frame[14..38]), 0);
        assert_eq!(frame[16..18], 33_u16.to_be_bytes());
        assert_eq!(frame.len(), 14 + 33);
    }

    #[test]
    fn ipv6_headers_name_each_other() {
        let [source, destination] = v6();
        let frame = Packet::tcp((source, 1), (destination, 2), SYN)
            .with_extension(Extension::HopByHop(0))
            .with_extension(Extension::Authentication(1))
            .frame(A, B);
        assert_eq!(frame[20], HOP_BY_HOP);
        assert_eq!(frame[54..56], [AUTHENTICATION, 0]);
        assert_eq!(frame[62..64], [TCP, 2]);
        assert_eq!(frame.len(), 54 + 8 + 16 + 20);
        assert_eq!(frame[18..20], 44_u16.to_be_bytes());
    }

    #[test]
    fn fragments_carry_the_whole_body_in_order() {
        for [source, destination] in [v4(), v6()] {
            let packet = Packet::udp((source, 1), (destination, 2), &[7; 20]);
            let frames = packet.fragments(A, B, &[8, 24]);
            let header = if source.is_ipv4() { 34 } else { 62 };
            let bodies: Vec<u8> = frames
                .iter()
                .flat_map(|frame| &frame[header..])
                .copied()
                .collect();
            assert_eq!(bodies, packet.body);
            let fields: Vec<[u8; 2]> = frames
                .iter()
                .map(|frame| {
                    if source.is_ipv4() {
                        [frame[20], frame[21]]
                    } else {
                        [frame[56], frame[57]]
                    }
                })
                .collect();
            let expected = if source.is_ipv4() {
                [[0x20, 0], [0x20, 1], [0, 3]]
            } else {
                [[0, 1], [0, 9], [0, 24]]
            };
            assert_eq!(fields, expected);
        }
    }

    #[test]
    fn tags_stand_between_addresses_and_type() {
        let [source, destination] = v4();
        let frame = Packet::udp((source, 1), (destination, 2), b"")
            .tagged(Tag::service(5))
            .tagged(Tag::vlan(7))
            .frame(A, B);
        assert_eq!(frame[12..22], [0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 8, 0]);
    }
}
