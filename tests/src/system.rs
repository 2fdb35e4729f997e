//! What a stream is tried on, and what can be seen of it: the program loaded into the kernel
//! ([`Program`], or [`Counted`] instruction by instruction), the same decisions called on the host ([`Hosted`]), or the model itself ([`Modelled`]).

mod counted;
mod host;
mod modelled;
mod program;
mod sockets;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use knock_common::{Reason, knock::Outcome};
use knock_user::{
    config::{Config, Protocol},
    datapath::Framing,
};

use crate::datagram::Datagram;

pub use self::{
    counted::Counted,
    host::Hosted,
    modelled::Modelled,
    program::{Program, XDP_PASS},
};

/// Addresses of the host in whose place a system stands: flows to others are not remembered.
pub const OWN: [&str; 4] = ["192.0.2.1", "192.0.2.9", "2001:db8::1", "2001:db8::9"];

/// The same.
pub fn own() -> impl Iterator<Item = IpAddr> {
    OWN.into_iter().map(|own| own.parse().expect("an address"))
}

/// A gate that packets can be put through one by one.
pub trait SystemUnderTest {
    /// What the packets begin with that it is given.
    fn framing(&self) -> Framing;

    /// How exactly its clock can be known and moved. Nothing within this of a boundary is worth asking.
    fn grain(&self) -> Duration;

    /// ns of its own clock.
    fn now(&self) -> u64;

    /// Lets time go by.
    fn wait(&mut self, time: Duration);

    /// Judges a frame, or a packet without link header, of at least 14 bytes; says whether it passed. Panics where it was changed.
    fn judge(&mut self, frame: &[u8]) -> bool;

    /// Grants by hand; false where there is no room.
    fn allow(&mut self, source: IpNet, gate: u16, length: Duration) -> bool;

    fn revoke(&mut self, source: IpNet, gate: u16);

    /// The host makes a UDP socket at `own` that is connected to `peer`.
    fn connect(&mut self, own: SocketAddr, peer: SocketAddr);

    /// Packets and bytes on one counter.
    fn counted(&self, verdict: Verdict) -> (u64, u64);

    /// All counters.
    fn tally(&self) -> Tally;

    /// Live grants, sorted.
    fn grants(&self) -> Vec<GrantSeen>;

    /// Flows that are remembered, sorted.
    fn flows(&self) -> Vec<Flow>;

    /// Makes it as it was before the first packet; the clock goes on.
    fn forget(&mut self);
}

/// What became of a packet, and on whose account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub reason: Reason,
    /// Index of the gate whose port it went to.
    pub gate: Option<u16>,
}

impl Verdict {
    /// At no gate.
    pub const fn of(reason: Reason) -> Self {
        Self { reason, gate: None }
    }

    /// Place of its counter: those of no gate first, then gate by gate.
    pub fn index(self) -> usize {
        let block = self.gate.map_or(0, |gate| usize::from(gate) + 1);
        block * Reason::COUNT + self.reason as usize
    }
}

/// A packet as it comes on a link of this kind.
pub fn bytes(datagram: &Datagram, framing: Framing) -> Vec<u8> {
    match framing {
        Framing::Ethernet => datagram.frame(),
        Framing::BareIp => datagram.bare(),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason.name())?;
        match self.gate {
            Some(gate) => write!(f, "@{gate}"),
            None => Ok(()),
        }
    }
}

/// Everything that a gate counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Names of the gates.
    pub gates: Vec<String>,
    /// Packets and bytes; see [`Verdict::index`].
    pub packets: Vec<(u64, u64)>,
    /// Gate by gate, in the order of [`Outcome::ALL`].
    pub knocks: Vec<u64>,
}

impl Tally {
    /// Nothing counted yet.
    pub fn of(config: &Config) -> Self {
        let gates = config.gates.len();
        Self {
            gates: config.gates.iter().map(|gate| gate.name.clone()).collect(),
            packets: vec![(0, 0); (gates + 1) * Reason::COUNT],
            knocks: vec![0; gates * Outcome::ALL.len()],
        }
    }

    pub fn packet(&mut self, verdict: Verdict, bytes: usize) {
        let (packets, total) = &mut self.packets[verdict.index()];
        *packets += 1;
        *total += bytes as u64;
    }

    pub fn knock(&mut self, gate: u16, outcome: Outcome) {
        self.knocks[usize::from(gate) * Outcome::ALL.len() + outcome as usize] += 1;
    }

    /// Packets and bytes over all reasons.
    pub fn total(&self) -> (u64, u64) {
        self.packets.iter().fold((0, 0), |(packets, bytes), more| {
            (packets + more.0, bytes + more.1)
        })
    }

    /// What has been counted here and not in `before`, such as `knock step@ssh`: packets by reason and gate,
    /// then knocks by outcome and gate, several with their number before them.
    pub fn since(&self, before: &Self) -> String {
        let mut words = Vec::new();
        let mut put = |name: &str, gate: Option<usize>, more: u64| {
            let gate = gate
                .map(|gate| format!("@{}", self.gates[gate]))
                .unwrap_or_default();
            match more {
                0 => {}
                1 => words.push(format!("{name}{gate}")),
                more => words.push(format!("{more}*{name}{gate}")),
            }
        };
        for (index, (now, then)) in self.packets.iter().zip(&before.packets).enumerate() {
            let reason = Reason::ALL[index % Reason::COUNT];
            let gate = (index / Reason::COUNT).checked_sub(1);
            put(reason.name(), gate, now.0 - then.0);
        }
        for (index, (now, then)) in self.knocks.iter().zip(&before.knocks).enumerate() {
            let outcome = Outcome::ALL[index % Outcome::ALL.len()];
            put(outcome.name(), Some(index / Outcome::ALL.len()), now - then);
        }
        words.join(" ")
    }
}

/// A live grant. Ordered by gate, then source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantSeen {
    pub gate: u16,
    pub source: IpNet,
    /// ns.
    pub until: u64,
    pub connections: u32,
    /// Index among all users of all gates; `None`: by hand.
    pub user: Option<u32>,
}

/// A flow that began under a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    pub gate: u16,
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}
