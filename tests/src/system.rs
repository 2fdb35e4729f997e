//! The systems under test, and what a test can observe of them: the program loaded into the kernel ([`Program`], or
//! [`Counted`] instruction by instruction), the same decisions called on the host ([`Hosted`]), or the model itself
//! ([`Modelled`]).

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
use knock_common::{
    Reason,
    knock::{Outcome, authenticated::outcome::Outcome as Authenticated},
};
use knock_user::{config::Config, datapath::Framing, values::Protocol};

use crate::datagram::Datagram;

pub use self::{
    counted::Counted,
    host::Hosted,
    modelled::Modelled,
    program::{Program, XDP_PASS, clock, tick},
};

/// The addresses of the host: a system remembers no flows to other addresses. Its interface is a bridge's port, so that
/// `addresses = "host"` leaves packets to others alone though it forwards nothing.
pub const OWN: [&str; 4] = ["192.0.2.1", "192.0.2.9", "2001:db8::1", "2001:db8::9"];

/// Returns the addresses of [`OWN`].
pub fn own() -> impl Iterator<Item = IpAddr> {
    OWN.into_iter().map(|own| own.parse().expect("an address"))
}

/// An implementation of knockgate's decisions that judges packets one by one.
pub trait SystemUnderTest {
    /// Returns the kind of link that its packets come from.
    fn framing(&self) -> Framing;

    /// Returns the precision of its clock. The verdict is undefined this close to a boundary.
    fn grain(&self) -> Duration;

    /// Returns the time of its clock, ns.
    fn now(&self) -> u64;

    /// Returns how many times as fast as the test's the clocks of its host go: that of the times in authenticated knocks
    /// stands at [`EPOCH`](crate::keyring::EPOCH) when everything was emptied.
    fn slowed(&self) -> u32 {
        1
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration);

    /// Returns whether it can be given this frame.
    fn takes(&self, _frame: &[u8]) -> bool {
        true
    }

    /// Judges a frame that it [takes](Self::takes), or a packet without link header, of at least 14 bytes. Returns whether it
    /// passes. Panics if it was changed.
    fn judge(&mut self, frame: &[u8]) -> bool;

    /// Gives a grant by hand. Returns false if there is no room.
    fn allow(&mut self, source: IpNet, gate: u16, length: Duration) -> bool;

    fn revoke(&mut self, source: IpNet, gate: u16);

    /// Adds a UDP socket of the host at `own` that is connected to `peer`.
    fn connect(&mut self, own: SocketAddr, peer: SocketAddr);

    /// Returns packets and bytes of one counter.
    fn counted(&self, verdict: Verdict) -> (u64, u64);

    /// Returns all counters.
    fn tally(&self) -> Tally;

    /// Returns the live grants, sorted.
    fn grants(&self) -> Vec<GrantSeen>;

    /// Returns the remembered flows, sorted.
    fn flows(&self) -> Vec<Flow>;

    /// Empties all tables and counters; the clock continues. The host has the keys of the
    /// [`keyring`](crate::keyring), none of which has been used.
    fn forget(&mut self);
}

/// The reason under which a packet is counted, and the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub reason: Reason,
    /// Index of the gate that protects its port.
    pub gate: Option<u16>,
}

impl Verdict {
    /// Returns the verdict at no gate.
    pub const fn of(reason: Reason) -> Self {
        Self { reason, gate: None }
    }

    /// Returns the index of its counter: first those of no gate, then gate by gate.
    pub fn index(self) -> usize {
        let block = self.gate.map_or(0, |gate| usize::from(gate) + 1);
        block * Reason::COUNT + self.reason as usize
    }
}

/// Returns the bytes of a packet on a link of a system.
pub fn bytes(datagram: &Datagram, system: &dyn SystemUnderTest) -> Vec<u8> {
    match system.framing() {
        Framing::Ethernet => datagram.frame_for(system.slowed()),
        Framing::BareIp => datagram.bare_for(system.slowed()),
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

/// All counters of a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Names of the gates.
    pub gates: Vec<String>,
    /// Packets and bytes; see [`Verdict::index`].
    pub packets: Vec<(u64, u64)>,
    /// Gate by gate, in the order of [`Outcome::ALL`].
    pub knocks: Vec<u64>,
    /// Datagrams to ports for authenticated knocks, in the order of [`Authenticated::ALL`].
    pub authenticated: Vec<u64>,
}

impl Tally {
    /// Returns counters that are all zero.
    pub fn of(config: &Config) -> Self {
        let gates = config.gates.len();
        Self {
            gates: config.gates.iter().map(|gate| gate.name.clone()).collect(),
            packets: vec![(0, 0); (gates + 1) * Reason::COUNT],
            knocks: vec![0; gates * Outcome::ALL.len()],
            authenticated: vec![0; Authenticated::ALL.len()],
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

    pub fn authenticated(&mut self, outcome: Authenticated) {
        self.authenticated[outcome as usize] += 1;
    }

    /// Returns packets and bytes over all reasons.
    pub fn total(&self) -> (u64, u64) {
        self.packets.iter().fold((0, 0), |(packets, bytes), more| {
            (packets + more.0, bytes + more.1)
        })
    }

    /// Returns the counters that have grown since `before`, such as `knock step@ssh`: packets by reason and gate,
    /// knocks by outcome and gate, then authenticated knocks, such as `authenticated:opened`; `2*` stands before a counter
    /// that has grown by two.
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
        for (index, (now, then)) in self
            .authenticated
            .iter()
            .zip(&before.authenticated)
            .enumerate()
        {
            let name = format!("authenticated:{}", Authenticated::ALL[index].name());
            put(&name, None, now - then);
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
