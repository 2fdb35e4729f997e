//! A lab with a gate that rejects: where frames are sent, and answers seen.

use std::cell::Cell;

use knockgate_tests::{
    foreign::ForeignProgram,
    gate_config::Gate,
    lab::{CLIENT_INTERFACE, CLIENT_MAC, Family, GATE_MAC, Lab, Source, WAN},
    network,
    scenario::Attach,
    tap::Tap,
    wire::Wire,
};
use netlab::packet::{Packet, SYN};

use crate::{
    answer::{Answer, is_answer},
    frame::{ETHERNET, header_length},
};

/// A port that the gate guards, for both transports, and one where nothing listens.
pub const GUARDED: u16 = 22;
pub const CLOSED: u16 = 99;
/// Nothing listens there either; asked only to know that all that was sent before has been dealt with.
pub const FENCE: u16 = 97;

/// A lab with a gate in it that rejects.
pub struct Testbed {
    pub lab: Lab,
    attach: Attach,
    pub wire: Wire,
    replies: Tap,
    fences: Cell<u16>,
    /// Without, a veth takes no XDP frames from its peer: see `limits::lost_on_a_veth`.
    _peer: ForeignProgram,
}

impl Testbed {
    pub fn new(lab: Lab, attach: Attach) -> Self {
        let wire = Wire::open(&lab);
        Self {
            _peer: ForeignProgram::on(&lab.client, CLIENT_INTERFACE),
            replies: Tap::open(&lab.client, CLIENT_INTERFACE),
            wire,
            lab,
            attach,
            fences: Cell::new(10_000),
        }
    }

    /// Sets a value under /proc/sys/net of the host.
    pub fn set(&self, setting: &str, value: &str) {
        network::set(&self.lab.gate, &[setting], value);
    }

    /// Lets the host answer every datagram.
    pub fn without_limits(&self) {
        self.set("ipv4/icmp_ratemask", "0");
        self.set("ipv6/icmp/ratemask", "0");
    }

    pub fn up(&self) {
        self.up_on(WAN);
    }

    /// Puts the gate on an interface of the host's.
    pub fn up_on(&self, interface: &str) {
        let attach = self.attach.name();
        let gate = Gate::ssh()
            .protect(&format!("{GUARDED}/tcp {GUARDED}/udp"))
            .key("deny = \"reject\"")
            .knocks("7000/udp 8000/tcp 6000/udp");
        self.lab.configure(&format!(
            "interfaces = [\"{interface}\"]\nattach = \"{attach}\"\nopen_ports = []\n\
             limits = {{ sources = 16384, grants = 64, sessions = 64 }}\n{gate}"
        ));
        self.lab.knockgate(&["up"]).exits(0);
    }

    /// Sends frames, and returns the answers that came.
    pub fn send(&self, family: Family, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.wire.send(&self.lab, frames);
        self.answers(family)
    }

    /// The answers to what has been sent.
    pub fn answers(&self, family: Family) -> Vec<Vec<u8>> {
        let mut seen = self.fence(family);
        // An answer that leaves at the driver may be behind the first fence's, not behind the second's.
        seen.extend(self.fence(family));
        seen.retain(|frame| is_answer(frame));
        seen
    }

    /// The answer to one frame.
    pub fn ask(&self, family: Family, asked: &[u8]) -> Option<Answer> {
        self.wire.send(&self.lab, &[asked.to_vec()]);
        self.answer(family, asked)
    }

    /// The answer to one frame that has been sent.
    pub fn answer(&self, family: Family, asked: &[u8]) -> Option<Answer> {
        let mut seen = self.answers(family);
        assert!(
            seen.len() <= 1,
            "{} answers to one packet: {seen:02x?}",
            seen.len()
        );
        seen.pop().map(|answer| Answer::read(&answer, asked))
    }

    fn fence(&self, family: Family) -> Vec<Vec<u8>> {
        let port = self.fences.get();
        self.fences.set(port + 1);
        let from = (family.address(Source::A), port);
        let fence = Packet::tcp(from, (family.host(), FENCE), SYN);
        self.wire
            .send(&self.lab, &[fence.frame(CLIENT_MAC, GATE_MAC)]);
        let ports = [FENCE.to_be_bytes(), port.to_be_bytes()].concat();
        self.replies.until(|frame| {
            let at = ETHERNET + header_length(frame);
            frame.get(at..at + 4) == Some(&ports)
        })
    }
}
