//! The other end of a tun device in the namespace of a lab's host:
//!
//! ```text
//!   the test   10.88.1.2  fd88:0:0:1::2  A ─┐
//!              10.88.1.3  fd88:0:0:1::3  B ─┴─ tun0 ─ 10.88.0.1  fd88::1   the host
//! ```

use std::{
    cell::Cell,
    net::{IpAddr, TcpListener},
};

use knockgate_tests::{
    lab::{Family, Lab, Source},
    network::{ip, set},
    tun::Tun,
};
use netlab::packet::{self, Packet};

pub const TUN: &str = "tun0";
/// A protected port, for both transports, and one where nothing listens.
pub const GUARDED: u16 = 22;
pub const CLOSED: u16 = 99;
/// A closed port to which a test sends its last packet: when that is answered, all packets before have been processed.
const FENCE: u16 = 97;

const TCP: u8 = 6;

/// Returns the host's address on the device.
pub fn host(family: Family) -> IpAddr {
    pick(family, "10.88.0.1", "fd88::1")
}

/// Returns the address of a source behind the device.
pub fn address(family: Family, who: Source) -> IpAddr {
    match who {
        Source::A => pick(family, "10.88.1.2", "fd88:0:0:1::2"),
        Source::B => pick(family, "10.88.1.3", "fd88:0:0:1::3"),
        Source::C => pick(family, "10.88.2.2", "fd88:0:0:2::2"),
    }
}

/// Returns the address of a source in an unrelated network.
pub fn stranger(family: Family) -> IpAddr {
    pick(family, "134.221.96.1", "2001:db8:8100:8100::7")
}

fn pick(family: Family, v4: &str, v6: &str) -> IpAddr {
    let address = match family {
        Family::V4 => v4,
        Family::V6 => v6,
    };
    address.parse().expect("well-formed")
}

pub struct Peer {
    tun: Tun,
    next: Cell<u16>,
    // Last, so that its commands still find the device.
    pub lab: Lab,
}

impl Peer {
    /// Builds a lab with a device. Returns `None` if this machine cannot build one.
    pub fn build() -> Option<Self> {
        Some(Self::in_lab(Lab::build(&[])?))
    }

    /// Makes the device in a lab that has no device of that name.
    pub fn in_lab(lab: Lab) -> Self {
        let tun = Tun::create(&lab.host, TUN, &["10.88.0.1/16", "fd88::1/48"]);
        ip(
            &lab.host,
            &format!("route add default dev {TUN}\nroute add ::/0 dev {TUN}"),
        );
        set(
            &lab.host,
            &["ipv4/icmp_ratemask", "ipv6/icmp/ratemask"],
            "0",
        );
        Self {
            tun,
            next: Cell::new(10_000),
            lab,
        }
    }

    /// Makes the host listen on the protected port until the result is dropped.
    pub fn listen(&self) -> TcpListener {
        self.lab
            .host
            .run(|| TcpListener::bind(("::", GUARDED)))
            .expect("no one else is here")
    }

    /// Returns whether the protected port accepts a connection from a source.
    pub fn connects(&self, family: Family, who: Source) -> bool {
        let from = (address(family, who), self.port());
        let syn = Packet::tcp(from, (host(family), GUARDED), packet::SYN);
        let mut answers = self.answers_to(&syn);
        // The host also retransmits answers of earlier connections.
        answers.retain(|answer| {
            let at = header(answer);
            answer[at + 2..at + 4] == from.1.to_be_bytes()
        });
        let accepted = |answer: &Vec<u8>| flags(answer) == packet::SYN | packet::ACK;
        assert!(answers.iter().all(accepted), "{answers:02x?}");
        !answers.is_empty()
    }

    pub fn knock(&self, family: Family, who: Source) {
        let source = address(family, who);
        let to = |port| (host(family), port);
        for knock in [
            Packet::udp((source, self.port()), to(7000), b""),
            Packet::tcp((source, self.port()), to(8443), packet::SYN),
            Packet::udp((source, self.port()), to(9301), b""),
        ] {
            let mut answers = self.answers_to(&knock);
            answers.retain(|answer| flags(answer) != packet::SYN | packet::ACK);
            assert_eq!(answers.len(), 1, "a knock port is closed like any other");
        }
    }

    /// Returns the host's answers to a packet. A second packet, which is always answered, shows when all have arrived.
    pub fn answers_to(&self, asked: &Packet) -> Vec<Vec<u8>> {
        let port = self.port();
        let family = if asked.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let fence = Packet::tcp(
            (address(family, Source::C), port),
            (host(family), FENCE),
            packet::SYN,
        );
        let packets = [asked, &fence].map(bare);
        self.tun.send(packets.iter().map(Vec::as_slice));
        let seen = self.tun.until(|packet| {
            let ports = [FENCE.to_be_bytes(), port.to_be_bytes()].concat();
            packet.get(header(packet)..header(packet) + 4) == Some(&ports)
        });
        seen.into_iter()
            .filter(|packet| is_answer(packet))
            .collect()
    }

    fn port(&self) -> u16 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }
}

/// Returns a packet without link header.
fn bare(packet: &Packet) -> Vec<u8> {
    packet.frame([0; 6], [0; 6])[14..].to_vec()
}

/// Returns the length of an IP header without options, bytes.
fn header(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

fn protocol(packet: &[u8]) -> u8 {
    packet[if packet[0] >> 4 == 4 { 9 } else { 6 }]
}

/// Returns whether a packet is TCP or an ICMP error, and not the host's own neighbour or router discovery.
fn is_answer(packet: &[u8]) -> bool {
    let body = &packet[header(packet)..];
    match (packet[0] >> 4, protocol(packet)) {
        (_, TCP) => true,
        (4, 1) => body[0] == 3,
        (6, 58) => body[0] == 1,
        _ => false,
    }
}

fn flags(packet: &[u8]) -> u8 {
    if protocol(packet) == TCP {
        packet[header(packet) + 13]
    } else {
        0
    }
}

/// Clears the fields of an answer that may differ from port to port: the port itself, identifications and flow labels,
/// and the checksums, which must be correct.
pub fn comparable(answer: &[u8]) -> Vec<u8> {
    let mut packet = answer.to_vec();
    let at = header(&packet);
    let is_tcp = protocol(&packet) == TCP;
    let mut covered = Vec::new();
    if packet[0] >> 4 == 4 {
        assert_eq!(
            packet::checksum(&packet[..20]),
            0,
            "the header's sum: {packet:02x?}"
        );
        packet[10..12].fill(0);
        if is_tcp {
            covered.extend(&packet[12..20]);
        } else {
            packet[4..6].fill(0);
        }
    } else {
        let label = packet[1] & 15 | packet[2] | packet[3];
        packet[1] &= 0xf0;
        packet[2..4].copy_from_slice(&[0, u8::from(label != 0)]);
        covered.extend(&packet[8..40]);
    }
    if !covered.is_empty() {
        let length = u16::try_from(packet.len() - at).expect("short");
        covered.extend([0, protocol(&packet)]);
        covered.extend(length.to_be_bytes());
    }
    covered.extend(&packet[at..]);
    // A host offloads TCP's checksum to a device that claims to support it.
    let field = at + if is_tcp { 16 } else { 2 };
    if packet::checksum(&covered) != 0 {
        let part = covered.len() - (packet.len() - at);
        let partial = !packet::checksum(&covered[..part]);
        let sum = u16::from_be_bytes([packet[field], packet[field + 1]]);
        assert_eq!(
            sum, partial,
            "neither a sum nor the beginning of one: {packet:02x?}"
        );
    }
    packet[field..field + 2].fill(0);
    if is_tcp {
        packet[at..at + 2].fill(0);
    } else {
        // In the quoted packet: the destination port, and the checksum.
        let quoted = at + 8 + header(&packet);
        packet[quoted + 2..quoted + 4].fill(0);
        packet[quoted + 6..quoted + 8].fill(0);
    }
    packet
}
