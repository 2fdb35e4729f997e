//! Reading plain packets: TCP or UDP over IPv4 without options, not a fragment, behind an untagged Ethernet header or no link
//! header. Most packets are plain.
//!
//! [`link`](super::link) and [`ip`](super::ip) can read every packet, plain ones with the same result, but step by step. Every packet
//! pays for the steps, even one to an open port.

use bytemuck::{Pod, Zeroable};

use super::{Frame, Segment, TCP, UDP};
use crate::{
    address::V4,
    wire::{Be32, EthernetHeader, Ipv4Header, ether},
};

/// Version 4, and a header of five words.
const WITHOUT_OPTIONS: u8 = 0x45;
/// In [`Ipv4Header::fragment`]: more fragments follow, and the offset.
const FRAGMENT: u16 = 0x3fff;

#[repr(C)]
#[derive(Debug, Clone, Copy, Zeroable, Pod)]
struct Framed {
    ethernet: EthernetHeader,
    packet: Packet,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Zeroable, Pod)]
struct Packet {
    ip: Ipv4Header,
    /// [`PortPair`](super::PortPair).
    ports: Be32,
}

/// Reads a plain packet that begins with an Ethernet header; `None` if it is another one.
#[inline(always)]
pub(super) fn ethernet<F: Frame + ?Sized>(frame: &F) -> Option<Segment<V4>> {
    let Framed { ethernet, packet } = frame.header(0)?;
    if ethernet.kind.raw() != ether::IPV4.to_be() {
        return None;
    }
    read(packet, size_of::<EthernetHeader>())
}

/// As [`ethernet`], of one that begins with its IP header.
#[inline(always)]
pub(super) fn bare_ip<F: Frame + ?Sized>(frame: &F) -> Option<Segment<V4>> {
    read(frame.header(0)?, 0)
}

/// Reads a packet that begins at `at`.
#[inline(always)]
fn read(Packet { ip, ports }: &Packet, at: usize) -> Option<Segment<V4>> {
    if ip.version_and_length != WITHOUT_OPTIONS || ip.fragment.raw() & FRAGMENT.to_be() != 0 {
        return None;
    }
    let protocol = ip.protocol;
    if protocol != TCP && protocol != UDP {
        return None;
    }
    Some(Segment {
        source: V4::from_bytes(&ip.source),
        destination: V4::from_bytes(&ip.destination),
        ports: ports.into(),
        protocol,
        transport: at + size_of::<Ipv4Header>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{
        Parsed,
        ip::ipv4,
        link::{BareIp, Ethernet, Framing, NetworkLayer, TagBeside},
    };

    /// Ethernet, IPv4 without options, and UDP. Behind the first 14 bytes, a packet without link header.
    #[rustfmt::skip]
    const FRAME: [u8; 42] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00,
        0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, UDP, 0, 0, 192, 0, 2, 7, 198, 51, 100, 1,
        0x0f, 0xa0, 0, 22, 0, 8, 0, 0,
    ];

    /// Returns whether a packet is plain, and checks that it is read as it is step by step.
    fn is_plain<L: Framing>(packet: &[u8]) -> bool {
        let plain = L::plain(packet);
        if let Some(segment) = plain {
            let NetworkLayer::Ipv4 { at } = L::network(packet) else {
                panic!("not IPv4: {packet:x?}");
            };
            assert_eq!(ipv4(packet, at), Parsed::Segment(segment), "{packet:x?}");
        }
        plain.is_some()
    }

    /// Returns how many values of each byte leave a packet plain.
    fn plain_values<L: Framing>(packet: &[u8]) -> Vec<usize> {
        let with = |at: usize, value| {
            let mut packet = packet.to_vec();
            packet[at] = value;
            packet
        };
        let values = |at| (0..=u8::MAX).filter(move |value| is_plain::<L>(&with(at, *value)));
        (0..packet.len()).map(|at| values(at).count()).collect()
    }

    #[test]
    fn a_plain_packet_is_read_as_it_is_step_by_step() {
        let mut wanted = vec![256; FRAME.len()];
        // The Ethernet type, and the version and length of the header.
        wanted[12..15].fill(1);
        // Only "do not fragment" and the bit before it may be set.
        wanted[20..22].copy_from_slice(&[4, 1]);
        // TCP and UDP.
        wanted[23] = 2;
        assert_eq!(plain_values::<Ethernet>(&FRAME), wanted);
        assert_eq!(plain_values::<BareIp>(&FRAME[14..]), wanted[14..]);
    }

    #[test]
    fn a_packet_that_ends_before_its_ports_is_not_plain() {
        for end in 0..FRAME.len() {
            assert_eq!(is_plain::<Ethernet>(&FRAME[..end]), end >= 38);
        }
        for end in 14..FRAME.len() {
            assert_eq!(is_plain::<BareIp>(&FRAME[14..end]), end >= 38);
        }
    }

    /// Places in such a frame differ from those in memory.
    #[test]
    fn no_packet_whose_tag_lies_beside_it_is_plain() {
        assert!(!is_plain::<TagBeside>(&FRAME));
    }
}
