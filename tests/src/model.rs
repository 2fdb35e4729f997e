//! The rules of knockgate in a second, plain and slow implementation: a list of probes for each source, a list of
//! grants, a list of flows, a list of authenticated knocks. It shares nothing with the program but the type of the configuration and the names of
//! reasons and outcomes, so that both are unlikely to have the same mistake.
//!
//! The caller passes the time in ns; see [`Model::clearance`] for the precision that is needed.

pub mod authenticated;
mod clearance;
pub mod frame;
mod opening;
mod probes;
mod start;

use std::{
    collections::{HashMap, HashSet},
    iter,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use knock_common::Reason;
use knock_user::{
    config::{Addresses, Config, Established, Gate, Mode, OpenPorts},
    datapath::Framing,
    values::{Port, Protocol},
};

pub use self::start::Start;
use self::{
    authenticated::Accepted,
    frame::{Contents, Segment},
    probes::{Source, sequences},
};
use crate::{
    nanoseconds,
    system::{Flow, GrantSeen, Tally, Verdict, own},
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The state of all gates.
#[derive(Debug)]
pub struct Model<'c> {
    config: &'c Config,
    framing: Framing,
    sources: HashMap<IpAddr, Source>,
    grants: Vec<Grant>,
    flows: Vec<Remembered>,
    /// The connected UDP sockets of the host: own address, then the peer's.
    connected: HashSet<(SocketAddr, SocketAddr)>,
    accepted: Accepted,
    start: Start,
    tally: Tally,
}

#[derive(Debug)]
struct Grant {
    source: IpNet,
    gate: u16,
    until: u64,
    connections: u32,
    /// Index among all users of all gates, or [`opening::KEY`] and a slot; `None`: by hand.
    user: Option<u32>,
    /// The only source port that it admits; 0: any.
    port: u16,
}

impl Grant {
    const fn admits(&self, port: u16) -> bool {
        self.port == 0 || self.port == port
    }
}

#[derive(Debug)]
struct Remembered {
    flow: Flow,
    /// The client's initial sequence number.
    initial: u32,
    /// Whether a packet other than a SYN has arrived since.
    more: bool,
    last: u64,
    /// Up to when its packets count as under a grant: to the end that the grant had when the flow last asked, rounded down as
    /// [`Start::granted`] does. Where a knock closes it before, or has it admit another port, the flow does not learn of that.
    granted_until: u64,
}

/// Returns whether a gate has this destination for its own.
fn is_at(gate: &Gate, destination: IpAddr) -> bool {
    let mut networks = gate.protect_at.iter();
    networks.any(|network| network.contains(&destination))
}

impl<'c> Model<'c> {
    /// Returns a model that has seen no packet, for links of this kind. The configuration must list its open ports.
    pub fn new(config: &'c Config, framing: Framing, start: Start) -> Self {
        Self {
            config,
            framing,
            sources: HashMap::new(),
            grants: Vec::new(),
            flows: Vec::new(),
            connected: HashSet::new(),
            accepted: Accepted::default(),
            start,
            tally: Tally::of(config),
        }
    }

    /// Judges and counts one packet.
    pub fn packet(&mut self, frame: &[u8], now: u64) -> Verdict {
        let verdict = self.judge(frame, now);
        self.tally.packet(verdict, frame.len());
        verdict
    }

    /// Adds a UDP socket of the host at `own` that is connected to `peer`.
    pub fn connect(&mut self, own: SocketAddr, peer: SocketAddr) {
        self.connected.insert((own, peer));
    }

    /// Gives a grant by hand that ends at `until`, whatever grant there was before. Returns false if there is no room.
    pub fn allow(&mut self, source: IpNet, gate: u16, until: u64, now: u64) -> bool {
        let grant = Grant {
            source,
            gate,
            until,
            connections: 0,
            user: None,
            port: 0,
        };
        if !self.put_grant(grant, now) {
            return false;
        }
        for remembered in &mut self.flows {
            if remembered.flow.gate == gate && source.contains(&remembered.flow.source.ip()) {
                remembered.granted_until = 0;
            }
        }
        true
    }

    /// Ends every grant and flow at `gate` whose source is in `source`.
    pub fn revoke(&mut self, source: IpNet, gate: u16) {
        self.grants
            .retain(|grant| grant.gate != gate || !source.contains(&grant.source));
        self.flows.retain(|remembered| {
            remembered.flow.gate != gate || !source.contains(&remembered.flow.source.ip())
        });
    }

    /// Returns all counters.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Returns the live grants.
    pub fn grants(&self, now: u64) -> Vec<GrantSeen> {
        let live = self.grants.iter().filter(|grant| grant.until > now);
        let mut seen: Vec<GrantSeen> = live
            .map(|grant| GrantSeen {
                gate: grant.gate,
                source: grant.source,
                until: grant.until,
                connections: grant.connections,
                user: grant.user,
            })
            .collect();
        seen.sort();
        seen
    }

    /// Returns the flows that have not ended.
    pub fn flows(&self, now: u64) -> Vec<Flow> {
        let mut flows: Vec<Flow> = self
            .flows
            .iter()
            .filter(|remembered| {
                let gate = remembered.flow.gate;
                !self.cuts(gate) && now - remembered.last < self.idle(gate)
            })
            .map(|remembered| remembered.flow)
            .collect();
        flows.sort();
        flows
    }

    fn read(&self, bytes: &[u8]) -> Contents {
        match self.framing {
            Framing::Ethernet => frame::read(bytes),
            Framing::BareIp => frame::read_bare(bytes),
        }
    }

    fn judge(&mut self, bytes: &[u8], now: u64) -> Verdict {
        let reason = match self.read(bytes) {
            Contents::NotIp => Reason::NotIp,
            Contents::OtherProtocol => Reason::OtherProtocol,
            Contents::LaterFragment => Reason::Fragment,
            Contents::Malformed(Some((source, destination)))
                if !self.guards_some_port(source, destination) =>
            {
                Reason::Unguarded
            }
            Contents::Malformed(Some((source, _))) if self.allows(source) => Reason::AllowList,
            Contents::Malformed(_) => self.denied(Reason::Malformed),
            Contents::Segment(segment) => return self.segment(&segment, now),
        };
        Verdict { reason, gate: None }
    }

    fn segment(&mut self, segment: &Segment, now: u64) -> Verdict {
        let Segment {
            source,
            source_port,
            destination,
            port,
            flags,
            ..
        } = *segment;
        let config = self.config;
        let takes = self.guards(source, destination);
        let mut gates = iter::zip(0_u16.., &config.gates);
        let of_gate = gates.find(|(_, rules)| rules.protect.contains(&port));
        if let Some((gate, rules)) = of_gate
            && (if rules.protect_at.is_empty() {
                takes
            } else {
                is_at(rules, destination)
            })
        {
            let reason = self.protected(segment, gate, now);
            // Behind the verdict: what it opens is not for the datagram itself.
            if takes && config.knock.ports.contains(&port) {
                self.authenticated(segment, now);
            }
            return Verdict {
                reason,
                gate: Some(gate),
            };
        }
        if !takes {
            return Verdict::of(Reason::Unguarded);
        }
        if config.knock.ports.contains(&port) {
            return Verdict::of(if self.authenticated(segment, now) {
                Reason::Knock
            } else {
                Reason::Unguarded
            });
        }
        let is_knock = sequences(config).any(|sequence| sequence.knock.sequence.contains(&port));
        let OpenPorts::List(open) = &config.open_ports else {
            panic!("a model needs its open ports listed");
        };
        // A gate that protects it elsewhere makes it no other port than an open one here.
        let is_open = open.contains(&port) && !is_knock || of_gate.is_some();
        let is_syn = port.protocol == Protocol::Udp || flags & (SYN | ACK | RST | FIN) == SYN;
        if is_open || !is_syn {
            return Verdict::of(Reason::Unguarded);
        }
        let is_own = port.protocol == Protocol::Udp
            && self.connected.contains(&(
                (destination, port.number).into(),
                (source, source_port).into(),
            ));
        self.probe(source, (port, source_port), (is_knock, is_own), now);
        Verdict::of(if is_knock {
            Reason::Knock
        } else {
            Reason::Unguarded
        })
    }

    /// Counts a probe. A source gets a grant exactly when its last k probes are the k knocks of a sequence.
    fn probe(&mut self, from: IpAddr, ports: (Port, u16), kind: (bool, bool), now: u64) {
        let source = self.sources.entry(from).or_default();
        let heard = source.probe(self.config, ports, kind, now);
        for (gate, outcome) in heard.outcomes {
            self.tally.knock(gate, outcome);
        }
        if let Some((sequence, took)) = heard.completed {
            let outcome = self.completed(from, &sequence, took, now);
            self.tally.knock(sequence.gate, outcome);
        }
    }

    /// Judges a packet to a protected port.
    fn protected(&mut self, segment: &Segment, gate: u16, now: u64) -> Reason {
        let tcp = segment.port.protocol == Protocol::Tcp;
        let syn = tcp && segment.flags & (SYN | ACK) == SYN;
        let flow = Flow {
            gate,
            protocol: segment.port.protocol,
            source: (segment.source, segment.source_port).into(),
            destination: (segment.destination, segment.port.number).into(),
        };
        let idle = self.idle(gate);
        let known = self
            .flows
            .iter()
            .position(|known| known.flow == flow && now - known.last < idle);
        // The longest prefix first: a connection uses up that grant.
        let mut covering: Vec<usize> = (0..self.grants.len())
            .filter(|&index| {
                let grant = &self.grants[index];
                grant.gate == gate
                    && grant.until > now
                    && grant.source.contains(&segment.source)
                    && grant.admits(segment.source_port)
            })
            .collect();
        covering.sort_by_key(|&index| u8::MAX - self.grants[index].source.prefix_len());
        let granted = !covering.is_empty();

        // With `cut`, flows are remembered only to count connections.
        let cuts = self.cuts(gate);
        if let Some(index) = known
            && tcp
            && !syn
        {
            self.flows[index].more = true;
        }
        let same_flow = known.filter(|&index| {
            let Remembered { initial, more, .. } = self.flows[index];
            // After any other packet than a SYN, the host may take a SYN for a new connection.
            let retransmitted =
                !tcp || initial == segment.sequence && !more && segment.flags & (RST | FIN) == 0;
            if cuts {
                granted && (!tcp || syn) && retransmitted
            } else {
                !syn || granted && retransmitted
            }
        });
        let denial = if let Some(index) = same_flow {
            self.flows[index].last = now;
            if syn || cuts || self.flows[index].granted_until > now {
                return Reason::Grant;
            }
            let mut with_room = covering.iter().filter(|&&index| self.has_room(index));
            let Some(&closest) = with_room.next().or(covering.first()) else {
                return Reason::Session;
            };
            self.flows[index].granted_until = self.start.granted(self.grants[closest].until);
            return Reason::Grant;
        } else if !granted {
            Reason::NoGrant
        } else if tcp && !syn {
            // Part of a connection that began earlier, so not a new one.
            return Reason::Grant;
        } else if cuts && self.limit(gate) == 0 {
            self.grants[covering[0]].connections += u32::from(tcp);
            return Reason::Grant;
        } else if let Some(&index) = covering.iter().find(|&&index| self.has_room(index)) {
            self.grants[index].connections += 1;
            self.flows.retain(|known| known.flow != flow);
            // A flow to an address that is not the host's is not remembered.
            if own().any(|own| own == segment.destination) {
                self.flows.push(Remembered {
                    flow,
                    initial: segment.sequence,
                    more: false,
                    last: now,
                    granted_until: 0,
                });
            }
            return Reason::Grant;
        } else {
            Reason::UsedUp
        };
        if self.allows(segment.source) {
            Reason::AllowList
        } else {
            self.denied(denial)
        }
    }

    fn has_room(&self, grant: usize) -> bool {
        let Grant {
            gate, connections, ..
        } = self.grants[grant];
        let limit = self.limit(gate);
        limit == 0 || connections < limit
    }

    fn denied(&self, reason: Reason) -> Reason {
        if self.config.mode == Mode::Monitor {
            Reason::Monitor
        } else {
            reason
        }
    }

    fn guards(&self, source: IpAddr, destination: IpAddr) -> bool {
        match &self.config.addresses {
            Addresses::Every => true,
            Addresses::Listed(addresses) => addresses.contains(&destination),
            // Behind a bridge that forwards nothing: see `system::OWN`.
            Addresses::Host => {
                own().any(|own| own == destination)
                    || is_of_every_host(destination)
                    || is_of_one_link(source)
                    || is_of_one_link(destination)
            }
        }
    }

    fn guards_some_port(&self, source: IpAddr, destination: IpAddr) -> bool {
        let mut gates = self.config.gates.iter();
        self.guards(source, destination) || gates.any(|rules| is_at(rules, destination))
    }

    fn allows(&self, source: IpAddr) -> bool {
        self.config
            .allow
            .iter()
            .any(|network| network.contains(&source))
    }

    /// Returns the number of new connections that a grant admits; 0: any number.
    fn limit(&self, gate: u16) -> u32 {
        self.config.gates[usize::from(gate)].connections
    }

    fn cuts(&self, gate: u16) -> bool {
        self.config.gates[usize::from(gate)].established == Established::Cut
    }

    fn idle(&self, gate: u16) -> u64 {
        nanoseconds(self.config.gates[usize::from(gate)].session_idle)
    }
}

/// Returns whether no packet from or to an address is forwarded, whatever the settings and routes: the kernel says so where it is
/// asked (`bpf_ipv6_fib_lookup` of `net/core/filter.c`; the one for IPv4 does not look at this).
fn is_of_one_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

/// Returns whether packets to an address reach every host that listens for them, or the host's loopback network.
fn is_of_every_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_multicast() || v4.is_broadcast() || matches!(v4.octets()[0], 0 | 127)
        }
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}
