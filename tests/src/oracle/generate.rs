//! Random configurations and random streams for them: knocks that mostly succeed, traffic to protected ports, scans,
//! forged packets, and waiting.

mod authenticated;
mod config;
mod forge;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use knock_user::{
    config::Config,
    values::{Port, Protocol},
};

use self::authenticated::Authenticated;
pub use self::config::{config, try_config};
use super::random::Random;
use crate::{
    datagram::{Datagram, TCP, UDP},
    stream::Step,
};

const SOURCES_V4: [&str; 4] = [
    "198.51.100.1",
    "198.51.100.2",
    "198.51.100.130",
    "203.0.113.5",
];
/// The last is the first IPv4 source as an IPv4-mapped address: another source.
const SOURCES_V6: [&str; 4] = [
    "2001:db8:1::1",
    "2001:db8:1::2",
    "2001:db8:1:1::1",
    "::ffff:198.51.100.1",
];
const HOST_V4: [&str; 2] = ["192.0.2.1", "192.0.2.9"];
const HOST_V6: [&str; 2] = ["2001:db8::1", "2001:db8::9"];
/// Returns a stream of `packets` packets, with other steps between them.
pub fn stream(random: &mut Random<'_>, config: &Config, packets: usize) -> Vec<Step> {
    let mut author = Author::new(random, config);
    let mut steps: Vec<Step> = Vec::new();
    let mut written = 0;
    while written < packets {
        let step = author.step(&steps);
        written += usize::from(matches!(step, Step::Packet(_)));
        steps.push(step);
    }
    steps
}

/// Returns a stream that ends when the chosen bytes do, or after `most` steps.
pub fn chosen_stream(random: &mut Random<'_>, config: &Config, most: usize) -> Vec<Step> {
    let mut author = Author::new(random, config);
    let mut steps = Vec::new();
    while !author.random.is_spent() && steps.len() < most {
        let step = author.step(&steps);
        steps.push(step);
    }
    steps
}

/// As [`chosen_stream`], of authenticated knocks and of what goes to the ports that they open.
pub fn chosen_knocks(random: &mut Random<'_>, config: &Config, most: usize) -> Vec<Step> {
    let mut author = Author::new(random, config);
    let mut steps = Vec::new();
    while !author.random.is_spent() && steps.len() < most {
        let step = match author.random.below(16) {
            0..11 => author.authenticated(&steps),
            11..13 => author.attempt(),
            13..15 => author.go_on(&steps),
            _ => author.wait(),
        };
        steps.push(step);
    }
    steps
}

/// Writes a stream step by step, and keeps the progress of each source.
struct Author<'a, 'c> {
    random: &'a mut Random<'c>,
    gates: Vec<String>,
    sequences: Vec<Vec<Port>>,
    protected: Vec<Port>,
    knocking: Vec<Knocking>,
    authenticated: Authenticated,
}

/// A source that knocks.
#[derive(Clone, Copy)]
struct Knocking {
    source: IpAddr,
    /// Its sequence, and the next knock's place in it.
    sequence: usize,
    place: usize,
    /// The port of its latest knock.
    latest: Option<Port>,
}

impl<'a, 'c> Author<'a, 'c> {
    fn new(random: &'a mut Random<'c>, config: &Config) -> Self {
        let sequences: Vec<Vec<Port>> = config
            .gates
            .iter()
            .flat_map(|gate| gate.knocks.iter().map(|knock| knock.sequence.clone()))
            .collect();
        let knocking = SOURCES_V4.iter().chain(&SOURCES_V6).map(|source| {
            let sequence = random.below(sequences.len().max(1));
            Knocking {
                source: parsed(source),
                sequence,
                place: 0,
                latest: None,
            }
        });
        let knocking = knocking.collect();
        Self {
            random,
            gates: config.gates.iter().map(|gate| gate.name.clone()).collect(),
            sequences,
            protected: config
                .gates
                .iter()
                .flat_map(|gate| gate.protect.clone())
                .collect(),
            knocking,
            authenticated: Authenticated::of(config),
        }
    }

    fn step(&mut self, before: &[Step]) -> Step {
        match self.random.below(100) {
            0..24 if self.authenticated.is_taken() => self.authenticated(before),
            0..42 => self.knock(before),
            42..57 => self.attempt(),
            57..72 => self.go_on(before),
            72..76 => self.other(),
            76..79 => self.own(before),
            79..87 => self.again(before),
            87..90 => self.noise(),
            90..96 => self.wait(),
            96..99 => self.by_hand(),
            _ => {
                let (source, gate) = (self.network(), self.random.pick(&self.gates));
                Step::Revoke { source, gate }
            }
        }
    }

    /// Returns the next knock of a source, usually the right one.
    fn knock(&mut self, before: &[Step]) -> Step {
        // The first few sources knock most often, so that sequences are completed.
        let bound = if self.random.chance(70) {
            2
        } else {
            self.knocking.len()
        };
        let who = self.random.below(bound);
        let who = if self.random.chance(50) {
            who
        } else {
            (who + 4) % self.knocking.len()
        };
        let Knocking {
            source,
            sequence,
            place,
            latest,
        } = self.knocking[who];
        let Some(next) = self.sequences.get(sequence).map(|ports| ports[place]) else {
            return self.attempt();
        };
        // Clients repeat a knock before they continue.
        let repeated = latest.filter(|_| self.random.chance(20));
        let port = repeated.unwrap_or(next);
        if repeated.is_none() {
            let done = place + 1 == self.sequences[sequence].len() || self.random.chance(3);
            let (sequence, place) = if done {
                (self.random.below(self.sequences.len()), 0)
            } else {
                (sequence, place + 1)
            };
            self.knocking[who] = Knocking {
                source,
                sequence,
                place,
                latest: Some(port),
            };
        }
        let source_port = if self.random.chance(80) {
            20_000 + u16::try_from(before.len()).expect("short streams")
        } else {
            4_000 + u16::from(self.random.byte() % 3)
        };
        let mut knock = self.to(source, source_port, port);
        knock.flags = u8::from(port.protocol == Protocol::Tcp) << 1;
        if self.random.chance(3) {
            knock.flags = self.random.byte();
        }
        forge::dressed(self.random, knock)
    }

    /// Returns a packet to a protected port.
    fn attempt(&mut self) -> Step {
        let source = self.source();
        let source_port = 4_000 + u16::from(self.random.byte() % 3);
        let port = self.random.pick(&self.protected);
        let mut packet = self.to(source, source_port, port);
        if packet.protocol == TCP {
            packet.flags = self
                .random
                .pick(&[0x02, 0x02, 0x02, 0x10, 0x18, 0x11, 0x04, 0x12, 0xc2]);
            packet.sequence = u32::from(self.random.byte() % 3);
            if self.random.chance(10) {
                packet.flags = self.random.byte();
            }
        }
        forge::dressed(self.random, packet)
    }

    /// Returns another packet of a flow to a protected port that has begun or was denied.
    fn go_on(&mut self, before: &[Step]) -> Step {
        let tried: Vec<&Datagram> = before
            .iter()
            .rev()
            .take(150)
            .filter_map(|step| match step {
                Step::Packet(packet) if self.is_attempt(packet) => Some(packet),
                _ => None,
            })
            .collect();
        let Some(latest) = tried.len().checked_sub(1) else {
            return self.attempt();
        };
        let mut packet = tried[self.random.below(latest + 1)].clone();
        packet.flags = self.random.pick(&[0x10, 0x18, 0x10, 0x11, 0x04, 0x02]);
        Step::Packet(packet)
    }

    fn is_attempt(&self, packet: &Datagram) -> bool {
        let protocol = match packet.protocol {
            TCP => Protocol::Tcp,
            _ => Protocol::Udp,
        };
        let number = packet.destination.port();
        self.protected.contains(&Port { number, protocol })
    }

    /// Returns a packet of a scan, or to an open port.
    fn other(&mut self) -> Step {
        let source = self.source();
        let number = self
            .random
            .pick(&[80, 53, 1, 7_000, 7_001, 7_002, 9_000, 443, 65_535]);
        let protocol = self.random.pick(&[Protocol::Tcp, Protocol::Udp]);
        let mut packet = self.to(source, 4_000, Port { number, protocol });
        packet.flags = self.random.pick(&[0x02, 0x02, 0x10, 0x06]);
        forge::dressed(self.random, packet)
    }

    /// Returns a step of the host's own UDP traffic: a new connected socket, or a datagram from a socket's peer.
    fn own(&mut self, before: &[Step]) -> Step {
        let sockets = before.iter().filter_map(|step| match step {
            Step::Connect { own, peer } => Some((*own, *peer)),
            _ => None,
        });
        let sockets: Vec<(SocketAddr, SocketAddr)> = sockets.collect();
        if sockets.is_empty() || self.random.chance(20) {
            let who = self.random.below(self.knocking.len() - 1);
            // Not the last source: the kernel treats its address as an IPv4 one.
            let source = self.knocking[who].source;
            let number = self
                .random
                .pick(&[7_000, 7_001, 80, 443, 443, 4_500, 53, 22]);
            let source_port = 4_000 + u16::from(self.random.byte() % 3);
            let protocol = Protocol::Udp;
            let datagram = self.to(source, source_port, Port { number, protocol });
            return Step::Connect {
                own: datagram.destination,
                peer: datagram.source,
            };
        }
        let (own, peer) = sockets[self.random.below(sockets.len())];
        forge::dressed(self.random, Datagram::new(UDP, peer, own))
    }

    /// Returns a packet that was sent before: a retransmission, or a duplicate by the network.
    fn again(&mut self, before: &[Step]) -> Step {
        let recent = &before[before.len().saturating_sub(6)..];
        let packets: Vec<&Step> = recent
            .iter()
            .filter(|step| matches!(step, Step::Packet(_)))
            .collect();
        match packets.as_slice() {
            [] => self.noise(),
            packets => packets[self.random.below(packets.len())].clone(),
        }
    }

    fn wait(&mut self) -> Step {
        const TIMES: [u64; 9] = [10, 300, 900, 1_100, 1_100, 2_500, 2_500, 6_000, 25_000];
        Step::Wait(Duration::from_millis(self.random.pick(&TIMES)))
    }

    /// Returns a packet that is neither TCP nor UDP.
    fn noise(&mut self) -> Step {
        let source = self.source();
        let port = Port {
            number: 0,
            protocol: Protocol::Udp,
        };
        let mut packet = self.to(source, 0, port);
        packet.protocol = self.random.pick(&[1, 58, 59, 50, 4, 41, 132]);
        if self.random.chance(30) {
            // Another ethertype.
            packet.set.push((12, self.random.byte()));
        }
        forge::dressed(self.random, packet)
    }

    fn by_hand(&mut self) -> Step {
        Step::Allow {
            source: self.network(),
            gate: self.random.pick(&self.gates),
            length: Duration::from_millis(self.random.pick(&[1_000, 4_000, 60_000])),
        }
    }

    fn network(&mut self) -> IpNet {
        let source = self.source();
        let lengths: &[u8] = if source.is_ipv4() {
            &[32, 32, 24, 25]
        } else {
            &[128, 128, 64, 48]
        };
        let length = self.random.pick(lengths);
        IpNet::new(source, length).expect("a valid length").trunc()
    }

    fn source(&mut self) -> IpAddr {
        let who = self.random.below(self.knocking.len());
        self.knocking[if self.random.chance(50) { who } else { who & 4 }].source
    }

    fn to(&mut self, source: IpAddr, source_port: u16, port: Port) -> Datagram {
        let hosts = if source.is_ipv4() { HOST_V4 } else { HOST_V6 };
        let host = parsed(hosts[usize::from(self.random.chance(10))]);
        let protocol = match port.protocol {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
        };
        Datagram::new(
            protocol,
            SocketAddr::new(source, source_port),
            SocketAddr::new(host, port.number),
        )
    }
}

fn parsed(address: &str) -> IpAddr {
    address.parse().expect("an address")
}
