//! The rules of knockgate in a second, plain and slow implementation: a list of probes for each source, a list of
//! grants, a list of flows. It shares nothing with the program but the type of the configuration and the names of
//! reasons and outcomes, so that both are unlikely to have the same mistake.
//!
//! The caller passes the time in ns; see [`Model::clearance`] for the precision that is needed.

pub mod frame;
mod probes;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    iter,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use knock_common::{Reason, knock::Outcome};
use knock_user::{
    config::{Config, Established, GrantTo, Mode, OpenPorts},
    datapath::Framing,
    values::{Port, Protocol},
};

use self::{
    frame::{Contents, Segment},
    probes::{Sequence, Source, sequences},
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
    tally: Tally,
}

#[derive(Debug)]
struct Grant {
    source: IpNet,
    gate: u16,
    until: u64,
    connections: u32,
    /// Index among all users of all gates; `None`: by hand.
    user: Option<u32>,
}

#[derive(Debug)]
struct Remembered {
    flow: Flow,
    /// The client's initial sequence number.
    initial: u32,
    /// Whether a packet other than a SYN has arrived since.
    more: bool,
    last: u64,
}

impl<'c> Model<'c> {
    /// Returns a model that has seen no packet, for links of this kind. The configuration must list its open ports.
    pub fn new(config: &'c Config, framing: Framing) -> Self {
        Self {
            config,
            framing,
            sources: HashMap::new(),
            grants: Vec::new(),
            flows: Vec::new(),
            connected: HashSet::new(),
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
        self.put_grant(source, gate, until, None, now)
    }

    /// Ends every grant and flow at `gate` whose source is in `source`.
    pub fn revoke(&mut self, source: IpNet, gate: u16) {
        self.grants
            .retain(|grant| grant.gate != gate || !source.contains(&grant.source));
        self.flows.retain(|remembered| {
            remembered.flow.gate != gate || !source.contains(&remembered.flow.source.ip())
        });
    }

    /// Returns the time since the latest boundary, and the time until the next. Boundaries are the moments at which a
    /// grant or a flow ends, or a knock becomes too old. A system whose clock is less precise than that cannot be
    /// expected to agree.
    pub fn clearance(&self, now: u64) -> (Duration, Duration) {
        let grants = self.grants.iter().map(|grant| grant.until);
        let flows = self
            .flows
            .iter()
            .map(|remembered| remembered.last + self.idle(remembered.flow.gate));
        let withins = sequences(self.config).map(|sequence| nanoseconds(sequence.knock.within));
        let withins: BTreeSet<u64> = withins.collect();
        let knocks = self.sources.values().flat_map(Source::latest);
        let knocks = knocks.flat_map(|time| withins.iter().map(move |within| time + within));
        let boundaries = grants.chain(flows).chain(knocks);
        let (mut behind, mut ahead) = (u64::MAX, u64::MAX);
        for boundary in boundaries {
            if boundary <= now {
                behind = behind.min(now - boundary);
            } else {
                ahead = ahead.min(boundary - now);
            }
        }
        (Duration::from_nanos(behind), Duration::from_nanos(ahead))
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

    fn judge(&mut self, bytes: &[u8], now: u64) -> Verdict {
        let contents = match self.framing {
            Framing::Ethernet => frame::read(bytes),
            Framing::BareIp => frame::read_bare(bytes),
        };
        let reason = match contents {
            Contents::NotIp => Reason::NotIp,
            Contents::OtherProtocol => Reason::OtherProtocol,
            Contents::LaterFragment => Reason::Fragment,
            Contents::Malformed(Some((_, destination))) if !self.guards(destination) => {
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
            sequence: _,
        } = *segment;
        let config = self.config;
        if !self.guards(destination) {
            return Verdict::of(Reason::Unguarded);
        }
        let gates = iter::zip(0_u16.., &config.gates);
        if let Some((gate, _)) = gates
            .into_iter()
            .find(|(_, rules)| rules.protect.contains(&port))
        {
            let reason = self.protected(segment, gate, now);
            return Verdict {
                reason,
                gate: Some(gate),
            };
        }
        let is_knock = sequences(config).any(|sequence| sequence.knock.sequence.contains(&port));
        let OpenPorts::List(open) = &config.open_ports else {
            panic!("a model needs its open ports listed");
        };
        let is_open = open.contains(&port) && !is_knock;
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

    /// Returns the outcome of the last knock of a sequence, `took` ns after the first.
    fn completed(&mut self, from: IpAddr, sequence: &Sequence<'_>, took: u64, now: u64) -> Outcome {
        let rules = sequence.rules;
        if took > nanoseconds(sequence.knock.within) {
            return Outcome::Late;
        }
        let may_knock = |network: &IpNet| network.contains(&from);
        if !rules.sources.is_empty() && !rules.sources.iter().any(may_knock) {
            return Outcome::Source;
        }
        let length = match (rules.grant_to, from) {
            (GrantTo::Address, IpAddr::V4(_)) => 32,
            (GrantTo::Address, IpAddr::V6(_)) => 128,
            (GrantTo::Prefix, IpAddr::V4(_)) => 24,
            (GrantTo::Prefix, IpAddr::V6(_)) => 64,
        };
        let to = IpNet::new(from, length).expect("a valid length").trunc();
        let mut until = now + nanoseconds(rules.open_for);
        // A knock renews a grant, and never shortens a longer one that was given by hand: only time, `revoke` and
        // `connections` end a grant.
        let old = self
            .grants
            .iter()
            .find(|grant| grant.source == to && grant.gate == sequence.gate);
        until = until.max(old.map_or(0, |grant| grant.until));
        if self.put_grant(to, sequence.gate, until, Some(sequence.user), now) {
            Outcome::Opened
        } else {
            Outcome::TableFull
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
                grant.gate == gate && grant.until > now && grant.source.contains(&segment.source)
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
            return if granted {
                Reason::Grant
            } else {
                Reason::Session
            };
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

    fn put_grant(
        &mut self,
        source: IpNet,
        gate: u16,
        until: u64,
        user: Option<u32>,
        now: u64,
    ) -> bool {
        self.grants
            .retain(|grant| grant.until > now && (grant.source != source || grant.gate != gate));
        let room = self.grants.len() < self.config.limits.grants as usize;
        if room {
            self.grants.push(Grant {
                source,
                gate,
                until,
                connections: 0,
                user,
            });
        }
        room
    }

    fn denied(&self, reason: Reason) -> Reason {
        if self.config.mode == Mode::Monitor {
            Reason::Monitor
        } else {
            reason
        }
    }

    fn guards(&self, destination: IpAddr) -> bool {
        let addresses = &self.config.addresses;
        addresses.is_empty() || addresses.contains(&destination)
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
