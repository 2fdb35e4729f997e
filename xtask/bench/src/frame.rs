//! Frames, written byte by byte.

use crate::stage::{HOST, HOST_MAC, SENDER_MAC};

/// Length of the shortest Ethernet frame, without its check sequence.
const SHORTEST: usize = 60;

pub const SYN: u8 = 0x02;
const RST: u8 = 0x04;
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
    let mut segment = transport.header(source_port, port);
    if let Transport::Tcp(_) = transport {
        let length = u16::try_from(segment.len()).expect("a header is short");
        let pseudo = [
            &source.to_be_bytes()[..],
            &HOST,
            &[0, transport.protocol()],
            &length.to_be_bytes(),
        ]
        .concat();
        let checksum = checksum(&[pseudo, segment.clone()].concat());
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    }
    packet(transport, source, &segment)
}

/// A UDP datagram with a payload, by IPv4.
pub fn datagram(source: u32, source_port: u16, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = Transport::Udp.header(source_port, port);
    segment.extend(payload);
    let length = u16::try_from(segment.len()).expect("a payload is short");
    segment[4..6].copy_from_slice(&length.to_be_bytes());
    packet(Transport::Udp, source, &segment)
}

/// Has an IPv4 frame without options come from elsewhere. TCP's checksum does not follow.
pub fn readdress(frame: &mut [u8], source: u32, source_port: u16) {
    let (header, segment) = frame[14..].split_at_mut(20);
    header[12..16].copy_from_slice(&source.to_be_bytes());
    header[10..12].fill(0);
    let checksum = checksum(header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    segment[..2].copy_from_slice(&source_port.to_be_bytes());
}

/// If the frame is the host's answer to a SYN to `port`: to whom.
pub fn answered(frame: &[u8], port: u16) -> Option<u32> {
    let packet = frame.get(14..54)?;
    let accepts = packet[0] == 0x45
        && packet[9] == Transport::Tcp(0).protocol()
        && packet[20..22] == port.to_be_bytes()
        && packet[33] & (SYN | ACK | RST) == SYN | ACK;
    accepts.then(|| u32::from_be_bytes([packet[16], packet[17], packet[18], packet[19]]))
}

fn packet(transport: Transport, source: u32, segment: &[u8]) -> Vec<u8> {
    // Padding is left to the link, so the packet ends where it says.
    let length = u16::try_from(20 + segment.len()).expect("a packet is short");
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, transport.protocol(), 0, 0]);
    header.extend(source.to_be_bytes());
    header.extend(HOST);
    let checksum = checksum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    ethernet(0x0800, &[&header, segment])
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
    fn frames_that_come_from_elsewhere_still_sum_up() {
        let mut frame = datagram(0x0a00_0001, 40000, 62201, &[7; 5]);
        assert_eq!(frame[38..40], 13_u16.to_be_bytes());
        assert_eq!(frame[16..18], 33_u16.to_be_bytes());
        readdress(&mut frame, 0xc0a8_0102, 1025);
        assert_eq!(checksum(&frame[14..34]), 0);
        assert_eq!(frame[26..30], [0xc0, 0xa8, 1, 2]);
        assert_eq!(frame[34..36], 1025_u16.to_be_bytes());
    }

    #[test]
    fn a_segment_sums_up_with_its_addresses() {
        let frame = ipv4(Transport::Tcp(SYN), 0x0a00_0001, 40000, 22);
        let mut summed = frame[26..34].to_vec();
        summed.extend([0, 6, 0, 20]);
        summed.extend(&frame[34..54]);
        assert_eq!(checksum(&summed), 0);
    }

    #[test]
    fn only_an_answer_to_a_syn_is_one() {
        let answer = |flags, port| {
            let mut frame = ipv4(Transport::Tcp(flags), u32::from_be_bytes(HOST), port, 40000);
            frame[30..34].copy_from_slice(&[10, 0, 0, 9]);
            frame
        };
        assert_eq!(answered(&answer(SYN | ACK, 22), 22), Some(0x0a00_0009));
        assert_eq!(answered(&answer(RST | ACK, 22), 22), None);
        assert_eq!(answered(&answer(SYN, 22), 22), None);
        assert_eq!(answered(&answer(SYN | ACK, 443), 22), None);
        assert_eq!(answered(&[0; 20], 22), None);
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
