//! Frames from the client to the host, edited byte by byte, and the offsets of their headers.

use std::net::IpAddr;

use knockgate_tests::lab::{CLIENT_MAC, Family, HOST_MAC, Source};
use netlab::packet::{self, Packet};

/// The source port of rows.
pub const SOURCE: u16 = 4000;

pub const ETHERNET: usize = 14;
pub const TCP: u8 = 6;
const UDP: u8 = 17;

/// Returns a frame from A to a port of the host. `edit` may change it, and gets the frame and the offsets of network
/// and transport header; checksums are corrected afterwards.
pub fn tcp(
    family: Family,
    port: u16,
    flags: u8,
    edit: impl Fn(&mut Vec<u8>, usize, usize),
) -> Vec<u8> {
    let from = (family.address(Source::A), SOURCE);
    let mut packet = Packet::tcp(from, (family.host(), port), flags).frame(CLIENT_MAC, HOST_MAC);
    let (network, transport) = (network_of(&packet), transport(&packet));
    // Sequence and acknowledgement numbers whose bytes all differ from zero.
    packet[transport + 4..transport + 12].copy_from_slice(&[0xff, 0xfe, 3, 4, 0x85, 6, 7, 8]);
    edit(&mut packet, network, transport);
    settle(&mut packet);
    packet
}

pub fn udp(
    family: Family,
    port: u16,
    payload: &[u8],
    edit: impl Fn(&mut Vec<u8>, usize, usize),
) -> Vec<u8> {
    let from = (family.address(Source::A), SOURCE);
    let mut packet = Packet::udp(from, (family.host(), port), payload).frame(CLIENT_MAC, HOST_MAC);
    let (network, transport) = (network_of(&packet), transport(&packet));
    edit(&mut packet, network, transport);
    settle(&mut packet);
    packet
}

/// Corrects the length in the network header and all checksums of a frame without padding.
pub fn settle(frame: &mut [u8]) {
    let (network, transport) = (network_of(frame), transport(frame));
    let end = frame.len();
    let protocol;
    let mut covered;
    if frame[network] >> 4 == 4 {
        let total = half_of(end - network).to_be_bytes();
        frame[network + 2..network + 4].copy_from_slice(&total);
        sum_header(frame);
        protocol = frame[network + 9];
        covered = frame[network + 12..network + 20].to_vec();
    } else {
        let payload = half_of(end - network - 40).to_be_bytes();
        frame[network + 4..network + 6].copy_from_slice(&payload);
        protocol = frame[network + 6];
        covered = frame[network + 8..network + 40].to_vec();
    }
    let at = transport + if protocol == UDP { 6 } else { 16 };
    frame[at..at + 2].fill(0);
    // A datagram may be shorter than its packet.
    let end = if protocol == UDP {
        end.min(transport + usize::from(half(frame, transport + 4)).max(8))
    } else {
        end
    };
    covered.extend([0, protocol]);
    covered.extend(half_of(end - transport).to_be_bytes());
    covered.extend(&frame[transport..end]);
    let sum = packet::checksum(&covered);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Offloads a frame's transport checksum: sets it to the sum of the pseudo-header. Returns the offset of the transport
/// header, and the offset of the checksum in it.
pub fn leave_sum(frame: &mut [u8]) -> (usize, usize) {
    let (network, transport) = (network_of(frame), transport(frame));
    let (addresses, protocol) = if frame[network] >> 4 == 4 {
        (12..20, frame[network + 9])
    } else {
        (8..40, frame[network + 6])
    };
    let mut covered = frame[network..][addresses].to_vec();
    covered.extend([0, protocol]);
    covered.extend(half_of(frame.len() - transport).to_be_bytes());
    let offset = if protocol == UDP { 6 } else { 16 };
    let at = transport + offset;
    let sum = !packet::checksum(&covered);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    (transport, offset)
}

/// Corrects the checksum of an IPv4 header.
pub fn sum_header(frame: &mut [u8]) {
    let network = network_of(frame);
    let end = transport(frame);
    frame[network + 10..network + 12].fill(0);
    let sum = packet::checksum(&frame[network..end]);
    frame[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
}

/// Changes the addresses of a frame's packet.
pub fn readdress(frame: &mut [u8], source: Option<IpAddr>, destination: Option<IpAddr>) {
    let network = network_of(frame);
    for (address, v4, v6) in [(source, 12, 8), (destination, 16, 24)] {
        match address {
            Some(IpAddr::V4(to)) => {
                frame[network + v4..network + v4 + 4].copy_from_slice(&to.octets());
            }
            Some(IpAddr::V6(to)) => {
                frame[network + v6..network + v6 + 16].copy_from_slice(&to.octets());
            }
            None => {}
        }
    }
    settle(frame);
}

/// Returns the length of the network header of an untagged frame without options, bytes.
pub fn header_length(frame: &[u8]) -> usize {
    if frame[12..14] == [0x08, 0x00] {
        20
    } else {
        40
    }
}

pub fn network_of(frame: &[u8]) -> usize {
    let tags = frame[12..].chunks(4).take_while(|tag| is_tag(tag)).count();
    ETHERNET + 4 * tags
}

/// Returns the offset of the transport header in a frame of these tests.
pub fn transport(frame: &[u8]) -> usize {
    let network = network_of(frame);
    if frame[network] >> 4 == 4 {
        network + 4 * usize::from(frame[network] & 15)
    } else {
        network + 40
    }
}

pub fn is_tag(bytes: &[u8]) -> bool {
    matches!(bytes, [0x81, 0x00, ..] | [0x88, 0xa8, ..])
}

pub fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn half_of(length: usize) -> u16 {
    u16::try_from(length).expect("a packet is shorter than 64 KiB")
}
