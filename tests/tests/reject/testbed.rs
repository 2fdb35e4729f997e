//! A lab with a gate that rejects, to which frames are sent and whose answers are captured.

use std::cell::Cell;

use knockgate_tests::{
    foreign::ForeignProgram,
    gate_config::Gate,
    lab::{CLIENT_INTERFACE, CLIENT_MAC, Family, HOST_MAC, Lab, Source, WAN},
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

/// A protected port, for both transports, and one where nothing listens.
pub const GUARDED: u16 = 22;
pub const CLOSED: u16 = 99;
/// A closed port to which a test sends its last packet: when that is answered, all packets before have been processed.
pub const FENCE: u16 = 97;

/// A lab with a gate that rejects.
pub struct Testbed {
    pub lab: Lab,
    attach: Attach,
    pub wire: Wire,
    replies: Tap,
    fences: Cell<u16>,
    /// Without this program, a veth accepts no XDP frames from its peer: see `limits::lost_on_a_veth`.
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
        network::set(&self.lab.host, &[setting], value);
    }

    /// Removes the host's limits of ICMP errors.
    pub fn without_limits(&self) {
        self.set("ipv4/icmp_ratemask", "0");
        self.set("ipv6/icmp/ratemask", "0");
    }

    pub fn up(&self) {
        self.up_on(WAN);
    }

    /// Brings knockgate up on an interface of the host.
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

    /// Sends frames. Returns the answers.
    pub fn send(&self, family: Family, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.wire.send(&self.lab, frames);
        self.answers(family)
    }

    /// Returns the answers to the frames that have been sent.
    pub fn answers(&self, family: Family) -> Vec<Vec<u8>> {
        let mut seen = self.fence(family);
        // An answer of the driver may arrive after the first fence's answer, but not after the second's.
        seen.extend(self.fence(family));
        seen.retain(|frame| is_answer(frame));
        seen
    }

    /// Sends one frame. Returns its answer.
    pub fn ask(&self, family: Family, asked: &[u8]) -> Option<Answer> {
        self.wire.send(&self.lab, &[asked.to_vec()]);
        self.answer(family, asked)
    }

    /// Returns the answer to the one frame that has been sent.
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
            .send(&self.lab, &[fence.frame(CLIENT_MAC, HOST_MAC)]);
        let ports = [FENCE.to_be_bytes(), port.to_be_bytes()].concat();
        self.replies.until(|frame| {
            let at = ETHERNET + header_length(frame);
            frame.get(at..at + 4) == Some(&ports)
        })
    }
}
