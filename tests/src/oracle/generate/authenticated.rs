//! Authenticated knocks: those that a client sends, those that were captured, and those that someone has tampered with.

use std::{net::IpAddr, time::Duration};

use knock_user::{
    config::Config,
    values::{Port, Protocol},
};

use super::{Author, SOURCES_V4, SOURCES_V6, forge, parsed};
use crate::{
    datagram::{Datagram, UDP},
    keyring::SLOTS,
    nanoseconds,
    sealed::Sealed,
    stream::Step,
};

/// What is known of authenticated knocks while a stream is written.
pub struct Authenticated {
    ports: Vec<Port>,
    max_age: Duration,
    max_ahead: Duration,
    /// The latest time of all knocks so far, ns since the stream began.
    latest: i64,
}

/// Who seals, the likeliest first. The last has no key at this host.
const SENDERS: [&str; 12] = [
    "alice",
    "alice",
    "alice",
    "bob/phone",
    "bob/phone",
    "carol",
    "carol",
    "erin",
    "erin",
    "dave",
    "alice",
    "mallory",
];
/// Flags of a knock: observed, listed, both, none.
const FLAGS: [u8; 12] = [
    0x04, 0x04, 0x04, 0x01, 0x01, 0x02, 0x02, 0x03, 0x05, 0x06, 0x00, 0x07,
];

impl Authenticated {
    pub fn of(config: &Config) -> Self {
        Self {
            ports: config.knock.ports.clone(),
            max_age: config.knock.max_age,
            max_ahead: config.knock.max_ahead,
            latest: 0,
        }
    }

    pub const fn is_taken(&self) -> bool {
        !self.ports.is_empty()
    }
}

impl Author<'_, '_> {
    /// Returns a datagram to a port for authenticated knocks.
    pub(super) fn authenticated(&mut self, before: &[Step]) -> Step {
        let sent = before.iter().rev().take(60).filter_map(|step| match step {
            Step::Packet(packet) if packet.knock.is_some() => Some(packet),
            _ => None,
        });
        let sent: Vec<&Datagram> = sent.collect();
        if !sent.is_empty() && self.random.chance(30) {
            let captured = sent[self.random.below(sent.len())].clone();
            return self.captured(captured);
        }
        let source = self.source();
        let port = self.random.pick(&self.authenticated.ports);
        let mut packet = self.to(source, 40_000, port);
        packet.knock = Some(Box::new(self.sealed(source, elapsed(before))));
        self.padded(&mut packet);
        forge::dressed(self.random, packet)
    }

    /// Returns a datagram that was sent before, or one that someone has made of it.
    fn captured(&mut self, mut packet: Datagram) -> Step {
        if self.random.chance(50) {
            let source = self.source();
            let port = Port {
                number: packet.destination.port(),
                protocol: Protocol::Udp,
            };
            let knock = packet.knock.take();
            packet = self.to(source, packet.source.port(), port);
            packet.knock = knock;
        }
        let bits = self.random.pick(&[0, 0, 1, 2]);
        if let Some(knock) = &mut packet.knock {
            for _ in 0..bits {
                let bit = 2 * self.random.below(256) + self.random.below(2);
                knock.flip.push(u16::try_from(bit).expect("below 512"));
            }
        }
        Step::Packet(packet)
    }

    fn sealed(&mut self, source: IpAddr, elapsed: i64) -> Sealed {
        let key = self.random.pick(&SENDERS);
        let time = self.time(elapsed);
        let mut sealed = Sealed {
            flags: self.random.pick(&FLAGS),
            ..Sealed::new(key, time)
        };
        self.list(&mut sealed, source);
        if self.random.chance(40) {
            sealed.gate = self.random.pick(&["a", "b", "c", "d"]).to_owned();
        }
        if self.random.chance(20) {
            sealed.action = 2;
        }
        if self.random.chance(30) {
            sealed.seconds = self.random.pick(&[1, 2, 4, 30]);
        }
        if self.random.chance(30) {
            sealed.flags |= 8;
            sealed.port = self.random.pick(&[4_000, 4_001, 4_002, 0]);
        }
        if self.random.chance(15) {
            self.deviate(&mut sealed);
        }
        sealed
    }

    /// Changes one part as no client does, before it is sealed.
    fn deviate(&mut self, sealed: &mut Sealed) {
        let byte = self.random.byte();
        match self.random.below(8) {
            0 => sealed.slot = Some(u16::from(byte) % (SLOTS + 2)),
            1 => "previous".clone_into(&mut sealed.host),
            2 => sealed.host = format!("x{byte}"),
            3 => sealed.version = byte % 4,
            4 => sealed.flags = byte,
            5 => sealed.action = byte % 5,
            6 => sealed.reserved = byte % 3,
            _ => sealed.rest = byte % 3,
        }
    }

    /// Returns when a knock says that it was made, ns since the stream began. Each is later than all before it, unless it is
    /// old.
    fn time(&mut self, elapsed: i64) -> i64 {
        const SECOND: i64 = 1_000_000_000;
        let Authenticated {
            max_age, max_ahead, ..
        } = self.authenticated;
        let ns = |time: Duration| i64::try_from(nanoseconds(time)).expect("short streams");
        match self.random.below(20) {
            0 => elapsed - ns(max_age) + 5 * SECOND,
            1 => elapsed - ns(max_age) - 2 * SECOND,
            2 => elapsed + ns(max_ahead) - SECOND,
            3 => elapsed + ns(max_ahead) + 20 * SECOND,
            4 => elapsed - 2 * SECOND,
            5 => self.authenticated.latest,
            _ => {
                let later = self.authenticated.latest.max(elapsed) + 1;
                self.authenticated.latest = later;
                later
            }
        }
    }

    /// Lists an address of each family: usually the source among them.
    fn list(&mut self, sealed: &mut Sealed, source: IpAddr) {
        let others = [
            parsed(self.random.pick(&SOURCES_V4)),
            parsed(self.random.pick(&SOURCES_V6)),
        ];
        let own = self.random.chance(85).then_some(source);
        for address in others.into_iter().chain(own) {
            match address {
                IpAddr::V4(address) => sealed.v4 = address,
                IpAddr::V6(address) => sealed.v6 = address,
            }
        }
    }

    /// Adds padding, at times too much of it, or has the datagram end within the message.
    fn padded(&mut self, packet: &mut Datagram) {
        packet.payload = self.random.pick(&[0, 0, 0, 1, 100, 192, 193, 255]);
        if packet.payload == 255 && packet.protocol == UDP {
            // The message is whole; its header says that it is not.
            let header = packet.frame().len() - 8 - 64 - 255;
            packet.payload = 0;
            let length = self.random.pick(&[0, 8, 71]);
            packet.set.push((header + 4, 0));
            packet.set.push((header + 5, length));
        }
    }
}

/// Returns how long a stream has waited, ns.
fn elapsed(before: &[Step]) -> i64 {
    let waited = before.iter().map(|step| match step {
        Step::Wait(time) => nanoseconds(*time),
        _ => 0,
    });
    i64::try_from(waited.sum::<u64>()).expect("short streams")
}
