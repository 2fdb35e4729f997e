//! Builds frames: Ethernet, VLAN tags, IPv4 with options, IPv6 with extension headers, fragments, TCP and UDP, with
//! correct lengths and checksums.
//!
//! Written from the RFCs alone, and sharing no code with the program under test, so that a mistake in one is not
//! repeated in the other.

mod headers;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use headers::FRAGMENT;
pub use headers::{Extension, SPI, Tag};

/// TCP flags, as in the header's 14th byte.
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A packet that is being built.
#[derive(Clone, Debug)]
pub struct Packet {
    source: IpAddr,
    destination: IpAddr,
    tags: Vec<Tag>,
    options: Vec<u8>,
    extensions: Vec<Extension>,
    protocol: u8,
    /// The same in all fragments of one packet; IPv4 has room for the lower half.
    identification: u32,
    /// The transport header and what follows it, checksum included.
    body: Vec<u8>,
}

/// Which part of a packet a fragment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: usize,
    end: usize,
    more: bool,
}

impl Packet {
    /// Returns a TCP segment without payload. Panics if the addresses are of different families.
    pub fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16), flags: u8) -> Self {
        let mut header = Vec::with_capacity(20);
        header.extend(source.1.to_be_bytes());
        header.extend(destination.1.to_be_bytes());
        // Sequence number, acknowledgement number.
        header.extend([0, 0, 0x10, 0, 0, 0, 0, 0]);
        // Length (five words), flags, window, checksum (filled in later), urgent pointer.
        header.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        Self::new(source.0, destination.0, TCP, header).summed()
    }

    /// Returns a UDP datagram. Panics if the addresses are of different families.
    pub fn udp(source: (IpAddr, u16), destination: (IpAddr, u16), payload: &[u8]) -> Self {
        let mut datagram = Vec::with_capacity(8 + payload.len());
        datagram.extend(source.1.to_be_bytes());
        datagram.extend(destination.1.to_be_bytes());
        datagram.extend(length(8 + payload.len()).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        Self::new(source.0, destination.0, UDP, datagram).summed()
    }

    /// Returns a packet of any other transport protocol.
    pub fn other(source: IpAddr, destination: IpAddr, protocol: u8, body: &[u8]) -> Self {
        Self::new(source, destination, protocol, body.to_vec())
    }

    /// Appends payload to a segment or datagram.
    #[must_use]
    pub fn with_payload(mut self, payload: &[u8]) -> Self {
        self.body.extend(payload);
        if self.protocol == UDP {
            let stated = length(self.body.len()).to_be_bytes();
            self.body[4..6].copy_from_slice(&stated);
        }
        self.summed()
    }

    /// Adds options, in whole words, to a TCP header that has none.
    #[must_use]
    pub fn with_tcp_options(mut self, options: &[u8]) -> Self {
        assert_eq!(self.protocol, TCP, "other protocols have none");
        let words = u8::try_from((20 + options.len()) / 4).expect("few options");
        self.body[12] = words << 4;
        self.body.splice(20..20, options.iter().copied());
        self.summed()
    }

    /// Sets the checksum of TCP or UDP to zero. Later changes of the packet fill it in again.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        if let Some(offset) = self.checksum_offset() {
            self.body[offset..offset + 2].fill(0);
        }
        self
    }

    /// Changes the source to another address of the same family.
    #[must_use]
    pub fn sent_from(self, source: IpAddr) -> Self {
        assert_eq!(source.is_ipv4(), self.source.is_ipv4(), "one family");
        Self { source, ..self }.summed()
    }

    /// Changes the destination to another address of the same family.
    #[must_use]
    pub fn sent_to(self, destination: IpAddr) -> Self {
        assert_eq!(
            destination.is_ipv4(),
            self.source.is_ipv4(),
            "one family a packet"
        );
        Self {
            destination,
            ..self
        }
        .summed()
    }

    /// Sets the identification, by which a host tells its fragments from those of another packet.
    #[must_use]
    pub fn identified(self, identification: u32) -> Self {
        Self {
            identification,
            ..self
        }
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

    /// Adds an extension header behind those added before. IPv4 accepts an authentication header only.
    #[must_use]
    pub fn with_extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Moves the extension headers added so far into the part that is fragmented, so that they are cut like payload.
    #[must_use]
    pub fn with_headers_inside(mut self) -> Self {
        for extension in self.extensions.drain(..).rev() {
            self.body.splice(0..0, extension.header(self.protocol));
            self.protocol = extension.number();
        }
        self
    }

    pub fn is_ipv4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// Returns the length of the part that is fragmented: transport header, payload, and the extension headers that
    /// were moved into it, bytes.
    pub fn length(&self) -> usize {
        self.body.len()
    }

    /// Returns the whole packet in one frame.
    pub fn frame(&self, source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
        self.wrapped(source, destination, None)
    }

    /// Returns the packet in fragments, cut at these offsets of the part that is fragmented: multiples of eight.
    pub fn fragments(&self, source: [u8; 6], destination: [u8; 6], cuts: &[usize]) -> Vec<Vec<u8>> {
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([self.body.len()]);
        starts
            .zip(ends)
            .map(|(start, end)| {
                let more = end < self.body.len();
                self.piece(source, destination, start..end, more)
            })
            .collect()
    }

    /// Returns one fragment, which carries these bytes of the part that is fragmented, and says whether more follow.
    pub fn piece(
        &self,
        source: [u8; 6],
        destination: [u8; 6],
        Range { start, end }: Range<usize>,
        more: bool,
    ) -> Vec<u8> {
        self.wrapped(source, destination, Some(Piece { start, end, more }))
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
            identification: 0x1234,
            body,
        }
    }

    /// Fills in the checksum of TCP and UDP, over the pseudo-header of either family (RFC 9293, 8200).
    fn summed(mut self) -> Self {
        let Some(offset) = self.checksum_offset() else {
            return self;
        };
        self.body[offset..offset + 2].fill(0);
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

    /// Returns the offset of the checksum in the transport header.
    fn checksum_offset(&self) -> Option<usize> {
        match self.protocol {
            TCP => Some(16),
            UDP => Some(6),
            _ => None,
        }
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
        let (protocol, body) = self.extended(self.protocol, self.part(piece).to_vec());
        let header_length = 20 + self.options.len();
        let fragment = piece.map_or(0, |piece| {
            length(piece.start / 8) | if piece.more { 0x2000 } else { 0 }
        });
        let mut header = vec![0x40 | length(header_length / 4).to_be_bytes()[1], 0];
        header.extend(length(header_length + body.len()).to_be_bytes());
        header.extend(&self.identification.to_be_bytes()[2..]);
        header.extend(fragment.to_be_bytes());
        // Hops left, protocol, checksum (filled in later).
        header.extend([64, protocol, 0, 0]);
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
        let mut next = self.protocol;
        let mut rest = self.part(piece).to_vec();
        if let Some(piece) = piece {
            let mut header = vec![next, 0];
            header.extend((length(piece.start) | u16::from(piece.more)).to_be_bytes());
            header.extend(self.identification.to_be_bytes());
            rest.splice(0..0, header);
            next = FRAGMENT;
        }
        let (next, rest) = self.extended(next, rest);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(length(rest.len()).to_be_bytes());
        frame.extend([next, 64]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        frame.extend(rest);
    }

    /// Puts the extension headers before a payload of this protocol. Returns the number of the first header, and all.
    fn extended(&self, mut next: u8, mut rest: Vec<u8>) -> (u8, Vec<u8>) {
        // From the last to the first, as each header names the next one.
        for extension in self.extensions.iter().rev() {
            rest.splice(0..0, extension.header(next));
            next = extension.number();
        }
        (next, rest)
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

/// Returns a MAC address in the notation of `ip`.
pub fn mac(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
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
