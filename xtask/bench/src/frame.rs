//! Frames, written byte by byte.

use crate::stage::{HOST, HOST_MAC, SENDER_MAC};

/// Length of the shortest Ethernet frame, without its check sequence.
const SHORTEST: usize = 60;

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

/// What is behind the IP header.
#[derive(Debug, Clone, Copy)]
pub enum Transport {
    /// With these flags.
    Tcp(u8),
    /// Without a checksum.
    Udp,
}

/// An IPv4 packet from `source` (as a number) to the host.
pub fn ipv4(transport: Transport, source: u32, source_port: u16, port: u16) -> Vec<u8> {
    let payload = transport.header(source_port, port);
    // Padding is left to the link, so the packet ends where it says.
    let length = u16::try_from(20 + payload.len()).expect("a header is short");
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, transport.protocol(), 0, 0]);
    header.extend(source.to_be_bytes());
    header.extend(HOST);
    let checksum = checksum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    ethernet(0x0800, &[&header, &payload])
}

/// An IPv6 packet with this many extension headers (destination options) of eight bytes each.
pub fn ipv6(transport: Transport, extensions: usize, source_port: u16, port: u16) -> Vec<u8> {
    const OPTIONS: u8 = 60;
    let payload = transport.header(source_port, port);
    let length = u16::try_from(8 * extensions + payload.len()).expect("headers are short");
    let next = |rest: usize| {
        if rest == 0 {
            transport.protocol()
        } else {
            OPTIONS
        }
    };
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length.to_be_bytes());
    header.extend([next(extensions), 64]);
    header.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    header.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    for rest in (0..extensions).rev() {
        // Six bytes of padding (option 1).
        header.extend([next(rest), 0, 1, 4, 0, 0, 0, 0]);
    }
    ethernet(0x86dd, &[&header, &payload])
}

/// The frame with a VLAN tag.
pub fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0, 7]);
    frame
}

impl Transport {
    fn protocol(self) -> u8 {
        match self {
            Self::Tcp(_) => 6,
            Self::Udp => 17,
        }
    }

    fn header(self, source_port: u16, port: u16) -> Vec<u8> {
        let mut header = [source_port.to_be_bytes(), port.to_be_bytes()].concat();
        match self {
            Self::Tcp(flags) => {
                header.extend([
                    0,
                    0,
                    0,
                    1,
                    0,
                    0,
                    0,
                    0,
                    5 << 4,
                    flags,
                    0xfa,
                    0xf0,
                    0,
                    0,
                    0,
                    0,
                ]);
            }
            Self::Udp => header.extend([0, 8, 0, 0]),
        }
        header
    }
}

fn ethernet(kind: u16, parts: &[&[u8]]) -> Vec<u8> {
    let mut frame = [HOST_MAC, SENDER_MAC].concat();
    frame.extend(kind.to_be_bytes());
    frame.extend(parts.concat());
    if frame.len() < SHORTEST {
        frame.resize(SHORTEST, 0);
    }
    frame
}

/// The checksum of the Internet protocols (RFC 1071) over an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("folded twice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_sums_up_to_nothing() {
        let frame = ipv4(Transport::Udp, 0x0a00_0001, 40000, 443);
        assert_eq!(checksum(&frame[14..34]), 0);
        assert_eq!(frame.len(), SHORTEST);
    }

    #[test]
    fn extension_headers_lead_to_the_transport() {
        let frame = ipv6(Transport::Udp, 2, 40000, 443);
        assert_eq!(frame[14 + 6], 60);
        assert_eq!(frame[14 + 40], 60);
        assert_eq!(frame[14 + 48], 17);
        assert_eq!(frame[14 + 56 + 2..][..2], 443_u16.to_be_bytes());
    }
}
