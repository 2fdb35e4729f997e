//! The bench's frames: short, and addressed to the host.

use std::net::{IpAddr, Ipv4Addr};

use netlab::packet::{ACK, Extension, Packet, RST, SYN, Tag, checksum};

use crate::host::{HOST, HOST_MAC, SENDER_MAC};

/// Length of the shortest Ethernet frame, without its check sequence.
const SHORTEST: usize = 60;

/// IP protocol number.
const TCP: u8 = 6;

/// The transport protocol of a frame.
#[derive(Debug, Clone, Copy)]
pub enum Transport {
    /// With these flags.
    Tcp(u8),
    /// Without a checksum, which the programs that vary a frame's source would have to adjust.
    Udp,
}

/// Returns an IPv4 packet from `source` (as a number) to the host.
pub fn ipv4(transport: Transport, source: u32, source_port: u16, port: u16) -> Vec<u8> {
    let from = (Ipv4Addr::from_bits(source).into(), source_port);
    frame(&transport.packet(from, (HOST.into(), port)))
}

/// Returns a UDP datagram with a payload, by IPv4.
pub fn datagram(source: u32, source_port: u16, port: u16, payload: &[u8]) -> Vec<u8> {
    let from = (Ipv4Addr::from_bits(source).into(), source_port);
    frame(&Packet::udp(from, (HOST.into(), port), payload).without_checksum())
}

/// Returns an IPv6 packet with this many extension headers (destination options) of eight bytes each.
pub fn ipv6(transport: Transport, extensions: usize, source_port: u16, port: u16) -> Vec<u8> {
    let address = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    let packet = transport.packet((address(7), source_port), (address(1), port));
    let extended = (0..extensions).fold(packet, |packet, _| {
        packet.with_extension(Extension::DestinationOptions(0))
    });
    frame(&extended)
}

/// Returns an IPv4 packet from `source` to the host with a VLAN tag.
pub fn tagged(transport: Transport, source: u32, source_port: u16, port: u16) -> Vec<u8> {
    let from = (Ipv4Addr::from_bits(source).into(), source_port);
    let packet = transport.packet(from, (HOST.into(), port));
    let mut frame = packet.tagged(Tag::vlan(7)).frame(SENDER_MAC, HOST_MAC);
    frame.resize(SHORTEST + 4, 0);
    frame
}

/// Changes the source of an IPv4 frame without options. Does not adjust TCP's checksum.
pub fn readdress(frame: &mut [u8], source: u32, source_port: u16) {
    let (header, segment) = frame[14..].split_at_mut(20);
    header[12..16].copy_from_slice(&source.to_be_bytes());
    header[10..12].fill(0);
    let checksum = checksum(header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    segment[..2].copy_from_slice(&source_port.to_be_bytes());
}

/// Returns the address to which a frame goes, if it is the host's answer to a SYN to `port`.
pub fn answered(frame: &[u8], port: u16) -> Option<u32> {
    let packet = frame.get(14..54)?;
    let accepts = packet[0] == 0x45
        && packet[9] == TCP
        && packet[20..22] == port.to_be_bytes()
        && packet[33] & (SYN | ACK | RST) == SYN | ACK;
    accepts.then(|| u32::from_be_bytes([packet[16], packet[17], packet[18], packet[19]]))
}

impl Transport {
    fn packet(self, from: (IpAddr, u16), to: (IpAddr, u16)) -> Packet {
        match self {
            Self::Tcp(flags) => Packet::tcp(from, to, flags),
            Self::Udp => Packet::udp(from, to, b"").without_checksum(),
        }
    }
}

fn frame(packet: &Packet) -> Vec<u8> {
    let mut frame = packet.frame(SENDER_MAC, HOST_MAC);
    if frame.len() < SHORTEST {
        frame.resize(SHORTEST, 0);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_long_as_a_wire_takes_them() {
        assert_eq!(
            ipv4(Transport::Udp, 0x0a00_0001, 40000, 443).len(),
            SHORTEST
        );
        assert_eq!(
            tagged(Transport::Udp, 0x0a00_0001, 40000, 443).len(),
            SHORTEST + 4
        );
    }

    #[test]
    fn datagrams_have_no_checksum_that_a_change_would_spoil() {
        let frame = datagram(0x0a00_0001, 40000, 62201, &[7; 5]);
        assert_eq!(frame[40..42], [0, 0]);
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
