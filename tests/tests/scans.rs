//! Scans open nothing: in whatever order all ports are tried, and from however many sources, no run of probes is a
//! sequence. A sweep could only complete a sequence of consecutive ports, which `check` warns about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use knockgate_tests::{
    lab::{CLIENT_MAC, Family, HOST_MAC, Lab, Source::A, WAN},
    network::ip,
    run::wait_for_value,
    scenario::{Attach, Scenario},
    wire::Wire,
};
use netlab::packet::{Packet, SYN};

/// Gates with ascending, descending and mixed sequences, over one transport and over both, short and long.
const GATES: &str = r#"
open_ports = []
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "10m"

[[gate.knock]]
user = "rising"
sequence = ["7000/tcp", "8443/tcp", "9301/tcp"]
within = "10m"
[[gate.knock]]
user = "rising-udp"
sequence = ["7000/udp", "8443/udp", "9301/udp"]
within = "10m"
[[gate.knock]]
user = "falling"
sequence = ["61001/tcp", "30007/tcp", "4003/tcp"]
within = "10m"
[[gate.knock]]
user = "falling-udp"
sequence = ["61001/udp", "30007/udp", "4003/udp"]
within = "10m"
[[gate.knock]]
user = "two"
sequence = ["1001/tcp", "50020/tcp"]
within = "10m"
[[gate.knock]]
user = "two-udp"
sequence = ["50020/udp", "1001/udp"]
within = "10m"
[[gate.knock]]
user = "random"
sequence = ["33190/tcp", "2817/udp", "59064/udp", "14411/tcp"]
within = "10m"
[[gate.knock]]
user = "same"
sequence = ["12121/udp", "12121/tcp", "12121/udp"]
within = "10m"
[[gate.knock]]
user = "long"
sequence = [
    "2/udp", "5003/tcp", "10004/udp", "15005/tcp", "20006/udp", "25007/tcp",
    "30008/udp", "35009/tcp", "40010/udp", "45011/tcp", "50012/udp", "65535/tcp",
]
within = "10m"
"#;

/// The sequence of one of the gates.
const RANDOM: &str = "33190/tcp 2817/udp 59064/udp 14411/tcp";

/// How many sources a sweep from many sources has.
const SOURCES: u16 = 256;

#[derive(Clone, Copy, Debug)]
enum Transport {
    Tcp,
    Udp,
    /// Each port first over TCP, then over UDP.
    Both,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Ascending,
    Descending,
    /// By a fixed seed.
    Shuffled,
}

#[derive(Clone, Copy, Debug)]
enum Sources {
    One,
    /// One source, which sends each probe twice in a row, from two source ports.
    Twice,
    /// Many sources, in turn.
    Many,
}

use Order::{Ascending, Descending, Shuffled};
use Sources::{Many, One, Twice};
use Transport::{Both, Tcp, Udp};

const SWEEPS: [(Transport, Order, Sources); 17] = [
    (Tcp, Ascending, One),
    (Tcp, Descending, One),
    (Tcp, Shuffled, One),
    (Udp, Ascending, One),
    (Udp, Descending, One),
    (Udp, Shuffled, One),
    (Both, Ascending, One),
    (Both, Descending, One),
    (Tcp, Ascending, Twice),
    (Tcp, Descending, Twice),
    (Udp, Ascending, Twice),
    (Udp, Shuffled, Twice),
    (Both, Ascending, Twice),
    (Tcp, Ascending, Many),
    (Tcp, Shuffled, Many),
    (Udp, Descending, Many),
    (Udp, Shuffled, Many),
];

/// One mode for each family: neither decides which probes count.
#[test]
fn native_v4() {
    no_sweep_opens_anything(Attach::Native, Family::V4);
}

#[test]
fn generic_v6() {
    no_sweep_opens_anything(Attach::Generic, Family::V6);
}

fn no_sweep_opens_anything(attach: Attach, family: Family) {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    let scenario = Scenario::new(attach, family, lab);
    lead_answers_back(&scenario.lab, family);
    scenario.up(GATES);
    let wire = Wire::open(&scenario.lab);
    for sweep in SWEEPS {
        let before = scenario.lab.stats().all_packets();
        let mut sent = 0;
        for frames in frames(sweep, family).chunks(200) {
            wire.send(&scenario.lab, frames);
            sent += frames.len() as u64;
        }
        wait_for_value(
            "all packets have been judged",
            || scenario.lab.stats().all_packets() - before,
            |judged| *judged >= sent,
        );
        let grants = scenario.lab.list("grants");
        assert!(grants.is_empty(), "{sweep:?}: {grants:?}");
        scenario.closed(A, "22/tcp");
    }
    scenario.knock(A, RANDOM);
    scenario.open(A, "22/tcp");
}

/// Returns the frames of a sweep over all ports except zero.
fn frames((transport, order, sent): (Transport, Order, Sources), family: Family) -> Vec<Vec<u8>> {
    let mut ports: Vec<u16> = (1..=u16::MAX).collect();
    match order {
        Ascending => {}
        Descending => ports.reverse(),
        Shuffled => shuffle(&mut ports),
    }
    let sources: Vec<IpAddr> = match sent {
        One | Twice => vec![family.address(A)],
        Many => (0..SOURCES)
            .map(|number| stranger(family, number))
            .collect(),
    };
    let source_ports: &[u16] = match sent {
        Twice => &[40_000, 40_001],
        One | Many => &[40_000],
    };
    let probes: Vec<Vec<Probe>> = sources
        .into_iter()
        .map(|source| {
            let tcp = source_ports.iter().map(|&port| tcp(source, port, family));
            let udp = source_ports.iter().map(|&port| udp(source, port, family));
            match transport {
                Tcp => tcp.collect(),
                Udp => udp.collect(),
                Both => tcp.chain(udp).collect(),
            }
        })
        .collect();
    let aimed = |(port, probes): (u16, &Vec<Probe>)| -> Vec<Vec<u8>> {
        probes.iter().map(|probe| probe.aimed(port)).collect()
    };
    ports
        .into_iter()
        .zip(probes.iter().cycle())
        .flat_map(aimed)
        .collect()
}

/// A frame to port zero, from which frames to all other ports are made quickly, by adjusting the checksum.
struct Probe {
    frame: Vec<u8>,
    /// Offsets of the port and of the checksum.
    port: usize,
    checksum: usize,
}

impl Probe {
    fn aimed(&self, port: u16) -> Vec<u8> {
        let mut frame = self.frame.clone();
        let sum = u16::from_be_bytes([frame[self.checksum], frame[self.checksum + 1]]);
        // RFC 1624, with zero for the old value.
        let (sum, carry) = (!sum).overflowing_add(port);
        let sum = !(sum + u16::from(carry));
        frame[self.port..self.port + 2].copy_from_slice(&port.to_be_bytes());
        frame[self.checksum..self.checksum + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }
}

fn tcp(source: IpAddr, port: u16, family: Family) -> Probe {
    let packet = Packet::tcp((source, port), (family.host(), 0), SYN);
    probe(&packet, family, 16)
}

fn udp(source: IpAddr, port: u16, family: Family) -> Probe {
    let packet = Packet::udp((source, port), (family.host(), 0), b"");
    probe(&packet, family, 6)
}

/// `checksum`: its offset in the transport header.
fn probe(packet: &Packet, family: Family, checksum: usize) -> Probe {
    let transport = match family {
        Family::V4 => 34,
        Family::V6 => 54,
    };
    Probe {
        frame: packet.frame(CLIENT_MAC, HOST_MAC),
        port: transport + 2,
        checksum: transport + checksum,
    }
}

/// Returns one of many sources behind the clients' interface.
fn stranger(family: Family, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(10, 99, high, low).into(),
        Family::V6 => Ipv6Addr::new(0xfd99, 0, 0, number, 0, 0, 0, 1).into(),
    }
}

/// Adds routes to these sources, so that the host needs no neighbour discovery to answer them.
fn lead_answers_back(lab: &Lab, family: Family) {
    let network = match family {
        Family::V4 => "10.99.0.0/16",
        Family::V6 => "fd99::/16",
    };
    let gateway = family.address(A);
    ip(
        &lab.host,
        &format!("route add {network} via {gateway} dev {WAN}"),
    );
}

/// Fisher and Yates's shuffle by an xorshift generator (Marsaglia).
fn shuffle(ports: &mut [u16]) {
    let mut state = 0x9e37_79b9_u32;
    for end in (1..ports.len()).rev() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        ports.swap(end, state as usize % (end + 1));
    }
}
