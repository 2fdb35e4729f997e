//! The program's decisions, called on the host over ordinary collections. Time stands still unless a test moves it, so
//! verdicts are defined even close to a boundary.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use knock_common::{
    Address, Env as _,
    address::{V4, V6},
    frame::{
        TCP,
        link::{BareIp, Ethernet},
    },
    grant::{
        BY_HAND, GrantKey,
        table::{self, Details},
    },
    judge,
    knock::{Outcome, authenticated::outcome::Outcome as Authenticated},
    memory::SessionMemory as _,
    rules::NO_GATE,
    session::{self, Session},
    testing::TestEnv,
};
use knock_user::{
    config::{Config, Established, Mode},
    datapath::{Framing, compile::compile, keys::KeyRows, open_ports},
    values::Protocol,
};

use super::{Flow, GrantSeen, SystemUnderTest, Tally, Verdict};
use crate::{
    keyring::{self, EPOCH},
    nanoseconds,
};

/// The decisions without a kernel.
pub struct Hosted {
    config: Config,
    framing: Framing,
    host: TestEnv,
    tally: Tally,
}

impl Hosted {
    /// Returns a system on Ethernet. Panics if the configuration cannot be compiled.
    pub fn new(config: &Config) -> Self {
        Self::on(config, Framing::Ethernet)
    }

    /// As [`Hosted::new`], for links of this kind.
    pub fn on(config: &Config, framing: Framing) -> Self {
        Self {
            config: config.clone(),
            framing,
            host: host_for(config),
            tally: Tally::of(config),
        }
    }
}

impl Hosted {
    /// Gives a grant by hand, in place of one that there was. Returns false if there is no room.
    fn give<A: Address>(&self, key: &GrantKey<A>, until: u64) -> bool {
        let details = Details::new(BY_HAND, 0);
        if let Some(found) = table::find(&self.host, key) {
            return if found.until > self.now() {
                table::renew(&self.host, found, until, details)
            } else {
                table::retake(&self.host, key, found)
                    && table::give(&self.host, found.slot, key, until, details)
            };
        }
        // As commands do: they look at all slots.
        let mut slots = 0..self.config.limits.grants;
        let slot = slots.find(|slot| table::take(&self.host, *slot, self.now()));
        slot.is_some_and(|slot| table::give(&self.host, slot, key, until, details))
    }

    fn remove_grants<A: Address>(&self, source: IpNet, gate: u16) {
        for (key, _) in self.host.grants_of::<A>() {
            if key.gate == gate && source.contains(&network(key.address, key.length)) {
                table::remove(&self.host, &key);
            }
        }
    }

    /// Makes the flows from a network look their grant up again, since it may now end earlier than they have stored.
    fn look_again(&self, network: IpNet, of: u16) {
        for (slot, session) in self.host.sessions() {
            let [source, _] = session.ends();
            if session.tenancy.gate() == of
                && network.contains(&source.ip())
                && let Some(session) = self.host.session(slot)
            {
                session.set_granted(0);
            }
        }
    }
}

impl SystemUnderTest for Hosted {
    fn framing(&self) -> Framing {
        self.framing
    }

    /// The program stores the times of knocks in units of 2^20 ns, rounded in favour of the client.
    fn grain(&self) -> Duration {
        Duration::from_millis(5)
    }

    fn now(&self) -> u64 {
        self.host.now.get()
    }

    fn wait(&mut self, time: Duration) {
        self.host.advance(nanoseconds(time));
        let wall = self.host.wall.get() + nanoseconds(time);
        self.host.wall.set(wall);
    }

    fn judge(&mut self, frame: &[u8]) -> bool {
        let verdict = match self.framing {
            Framing::Ethernet => judge::<Ethernet, _, _>(&self.host, frame),
            Framing::BareIp => judge::<BareIp, _, _>(&self.host, frame),
        };
        let seen = Verdict {
            reason: verdict.reason,
            gate: (verdict.gate != NO_GATE).then_some(verdict.gate),
        };
        self.tally.packet(seen, frame.len());
        verdict.reason.passes()
    }

    fn allow(&mut self, source: IpNet, gate: u16, length: Duration) -> bool {
        let until = self.now() + nanoseconds(length);
        let given = match source.addr() {
            IpAddr::V4(address) => {
                let key = GrantKey::<V4>::new(address.into(), source.prefix_len(), gate);
                let given = self.give(&key, until);
                add_length::<V4>(&mut self.host.lengths[0], key.length);
                given
            }
            IpAddr::V6(address) => {
                let key = GrantKey::<V6>::new(address.into(), source.prefix_len(), gate);
                let given = self.give(&key, until);
                add_length::<V6>(&mut self.host.lengths[1], key.length);
                given
            }
        };
        if given {
            self.look_again(source, gate);
        }
        given
    }

    fn revoke(&mut self, source: IpNet, gate: u16) {
        self.remove_grants::<V4>(source, gate);
        self.remove_grants::<V6>(source, gate);
        for (slot, session) in self.host.sessions() {
            let [from, _] = session.ends();
            if session.tenancy.gate() == gate && source.contains(&from.ip()) {
                session::table::end(&self.host, slot, session.tenancy);
            }
        }
        self.host.pass_tick();
    }

    fn connect(&mut self, own: SocketAddr, peer: SocketAddr) {
        let end = |end: SocketAddr| {
            let (family, address, _) = padded(end.ip(), 0);
            (family, (address, end.port()))
        };
        let ((family, own), (_, peer)) = (end(own), end(peer));
        self.host.connected.borrow_mut().insert((family, own, peer));
    }

    fn counted(&self, verdict: Verdict) -> (u64, u64) {
        self.tally.packets[verdict.index()]
    }

    fn tally(&self) -> Tally {
        let gates = (0_u16..).zip(&self.config.gates);
        let knocks = gates
            .flat_map(|(gate, _)| Outcome::ALL.map(|outcome| self.host.counted(gate, outcome)));
        let authenticated = self.host.authenticated_outcomes.borrow();
        let authenticated = Authenticated::ALL
            .map(|outcome| authenticated.get(&outcome).copied().unwrap_or_default());
        Tally {
            knocks: knocks.collect(),
            authenticated: authenticated.to_vec(),
            ..self.tally.clone()
        }
    }

    fn grants(&self) -> Vec<GrantSeen> {
        let v4 = self.host.grants_of::<V4>().into_iter();
        let v4 = v4.map(|(key, grant)| (network(key.address, key.length), key.gate, grant));
        let v6 = self.host.grants_of::<V6>().into_iter();
        let v6 = v6.map(|(key, grant)| (network(key.address, key.length), key.gate, grant));
        let live = v4
            .chain(v6)
            .filter(|(_, _, grant)| grant.until > self.now());
        let mut seen: Vec<GrantSeen> = live
            .map(|(source, gate, grant)| GrantSeen {
                gate,
                source,
                until: grant.until,
                connections: grant.connections,
                user: (grant.earned.user() != BY_HAND).then_some(grant.earned.user()),
            })
            .collect();
        seen.sort();
        seen
    }

    fn flows(&self) -> Vec<Flow> {
        let sessions = self.host.sessions().into_iter();
        let kept = sessions.filter(|(_, session)| {
            let rules = &self.config.gates[usize::from(session.tenancy.gate())];
            let idle = nanoseconds(rules.session_idle);
            rules.established == Established::Keep && self.now() - session.last < idle
        });
        let mut flows: Vec<Flow> = kept.map(|(_, session)| flow_of(&session)).collect();
        flows.sort();
        flows
    }

    fn forget(&mut self) {
        *self = Self::on(&self.config, self.framing);
    }
}

fn host_for(config: &Config) -> TestEnv {
    let limits = config.limits;
    let contents = compile(config, None).expect("a small configuration");
    let open = open_ports(config).expect("listed ports need no asking");
    let mut host = TestEnv::new(limits.grants as usize, limits.sessions as usize);
    host.monitor = config.mode == Mode::Monitor;
    for (index, role) in contents.roles(&open) {
        host.roles[index as usize] = role;
    }
    host.gates = contents.gates;
    host.least_idle = contents.settings.least_idle;
    host.allow = config
        .allow
        .iter()
        .map(|network| padded(network.addr(), network.prefix_len()))
        .collect();
    for (gate, index) in config.gates.iter().zip(0_u16..) {
        for network in &gate.sources {
            let (family, address, length) = padded(network.addr(), network.prefix_len());
            host.knockers.push((index, family, address, length));
        }
        for network in &gate.protect_at {
            let (family, address, length) = padded(network.addr(), network.prefix_len());
            host.places.push((index, family, address, length));
        }
    }
    host.guarded = contents.settings.guarded;
    host.bridged = true;
    for address in config.addresses.listed() {
        let (family, address, _) = padded(*address, 0);
        host.addresses.insert((family, address));
    }
    host.lengths = contents.grant_lengths;
    let own = super::own().map(|address| padded(address, 0));
    host.own = Some(own.map(|(family, address, _)| (family, address)).collect());
    host.sequences = contents.automaton.sequences;
    host.states = contents.automaton.states;
    host.transitions = contents.automaton.transitions;
    if !config.knock.ports.is_empty() {
        let keys = keyring::key_set(1);
        let rows = KeyRows::compile(&keys, &contents.applied).expect("they fit");
        give_keys(&mut host, config, &rows);
    }
    host
}

fn give_keys(host: &mut TestEnv, config: &Config, rows: &KeyRows) {
    host.authenticated = true;
    host.wall.set(EPOCH);
    host.window = (
        nanoseconds(config.knock.max_age),
        nanoseconds(config.knock.max_ahead),
    );
    host.host_secrets = rows.secrets;
    host.key_slots = config.limits.keys;
    for (slot, row) in &rows.keys {
        let key = host
            .knock_key(*slot)
            .expect("it is below the number of slots");
        key.secret = row.secret;
        key.newest = EPOCH;
        key.not_after = row.not_after;
        key.state = row.state;
        key.bound = u8::from(row.bound);
    }
    host.key_gates = rows
        .gates
        .iter()
        .map(|(gate, id)| ((gate.slot, gate.gate), u16::try_from(*id).expect("an id")))
        .collect();
}

/// Adds a prefix length to those that are looked up, longest first.
fn add_length<A: Address>(lengths: &mut u64, length: u8) {
    let mut all = lengths.to_le_bytes();
    if length != A::BITS && !all.contains(&length) {
        all[7] = length;
        all.sort_by_key(|&length| u8::MAX - length);
        *lengths = u64::from_le_bytes(all);
    }
}

fn network<A: Address>(address: A, length: u8) -> IpNet {
    IpNet::new(address.into(), length).expect("a key's length suits its family")
}

fn flow_of(session: &Session) -> Flow {
    let [source, destination] = session.ends();
    Flow {
        gate: session.tenancy.gate(),
        protocol: if session.tenancy.protocol() == TCP {
            Protocol::Tcp
        } else {
            Protocol::Udp
        },
        source,
        destination,
    }
}

fn padded(address: IpAddr, length: u8) -> (u8, knock_common::address::Padded, u8) {
    match address {
        IpAddr::V4(address) => (4, V4::from(address).padded(), length),
        IpAddr::V6(address) => (6, V6::from(address).padded(), length),
    }
}
