//! Compiles a checked configuration to the contents of the tables: a value, made without a kernel.

pub mod applied;
pub mod automaton;
pub mod ids;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{
    Address as _,
    address::{V4, V6},
    guarded::which,
    keys::ScopedAddress,
    knock::ring,
    next::slot,
    row::rows,
    rules::{GateRules, NO_GATE, PortRole, Role},
    set::slot_mask,
};

use self::{
    applied::{Applied, Circumstances},
    automaton::Automaton,
    ids::Ids,
};
use super::tables::{Counts, Limits, cpus};
use crate::{
    config::{Addresses, Config, Deny, Established, Following, Gate, GrantTo, Mode},
    sys::clock::monotonic_now,
    values::{Port, Protocol},
};

/// The contents of every table that follows from the configuration alone.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The configuration and its ids.
    pub applied: Applied,
    pub automaton: Automaton,
    /// By id.
    pub gates: Vec<GateRules>,
    pub allow: Vec<Prefix>,
    /// Networks that may knock, of the gates that restrict them.
    pub knockers: Vec<Prefix>,
    /// Destinations of placed gates: of each, and of all.
    pub places: Vec<Prefix>,
    /// The guarded destinations that the configuration lists.
    pub guarded_addresses: Vec<ScopedAddress>,
    /// Prefix lengths of the grants that knocks give, IPv4's and IPv6's; 0: whole addresses alone.
    pub grant_lengths: [u64; 2],
    /// The applied configuration as JSON, in bytes.
    pub config: Vec<u8>,
    pub settings: Settings,
    /// Roles of protected ports, knock ports and those of fwknop's clients, by index of the role table.
    roles: BTreeMap<u32, PortRole>,
}

/// The key of a trie: a network, at one gate or at any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// Bits of the key that count.
    pub length: u32,
    pub network: ScopedAddress,
}

/// The constants of the program that follow from the configuration.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each switches off other code of the program"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub monitor: bool,
    /// The configuration may be on trial.
    pub trial: bool,
    pub has_allow: bool,
    /// Some gate has destinations of its own.
    pub has_places: bool,
    /// The shortest `session_idle` of all gates, ns.
    pub least_idle: u64,
    pub rejects: bool,
    pub has_fwknop: bool,
    /// What an authenticated knock opens waits for the fleet.
    pub holds_knocks: bool,
    /// One of [`which`].
    pub guarded: u32,
    pub grant_slots: u32,
    pub session_slots: u32,
    pub session_rows: u32,
    /// [`slot_mask`] of the grants.
    pub grant_slot_mask: u32,
    /// The same of the sessions.
    pub session_slot_mask: u32,
    pub progress_slots: u32,
    /// One of [`slot`].
    pub next_slot: u32,
    /// Of authenticated knocks, if some port takes them.
    pub window: Option<Window>,
}

/// How the time in an authenticated knock may differ from the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// ns.
    pub max_age: u64,
    /// ns.
    pub max_ahead: u64,
}

/// Compiles `config`. `previous`: the ids of the configuration that it replaces.
pub fn compile(config: &Config, previous: Option<&Ids>) -> Result<Contents> {
    compile_as(config, previous, Circumstances::default())
}

/// As [`compile`], for a configuration that is applied in these circumstances.
pub fn compile_as(
    config: &Config,
    previous: Option<&Ids>,
    circumstances: Circumstances,
) -> Result<Contents> {
    let ids = Ids::assign(config, previous.map(|ids| (ids, monotonic_now())));
    let applied = Applied::new(config.clone(), ids, circumstances);
    let automaton = Automaton::compile(&applied)?;
    let mut gates = vec![bytemuck::Zeroable::zeroed(); applied.ids.gates_end()];
    let (mut knockers, mut places) = (Vec::new(), Vec::new());
    for (id, gate) in applied.gates() {
        gates[usize::from(id)] = gate_rules(gate);
        knockers.extend(gate.sources.iter().map(|network| Prefix::at(*network, id)));
        for network in &gate.protect_at {
            places.extend([id, NO_GATE].map(|gate| Prefix::place(*network, gate)));
        }
    }
    let to_prefix = |gate: &Gate| gate.grant_to == GrantTo::Prefix;
    let grant_lengths = if config.gates.iter().any(to_prefix) {
        [V4::PREFIX, V6::PREFIX].map(u64::from)
    } else {
        [0; 2]
    };
    Ok(Contents {
        roles: roles(&applied, &automaton),
        gates,
        allow: config.allow.iter().copied().map(Prefix::of).collect(),
        knockers,
        places,
        guarded_addresses: config
            .addresses
            .listed()
            .iter()
            .copied()
            .map(address_key)
            .collect(),
        grant_lengths,
        config: applied.to_json()?,
        settings: Settings::of(config, applied.circumstances.trial.is_some())?,
        automaton,
        applied,
    })
}

impl Contents {
    /// Returns the entries of the role table that are not [`Role::Foreign`]. `open`: ports on which a packet is no probe; of
    /// these, those that the configuration says more of keep their role.
    pub fn roles(&self, open: &BTreeSet<Port>) -> BTreeMap<u32, u32> {
        let is_open = PortRole::of(Role::Open);
        let mut roles: BTreeMap<u32, PortRole> = open
            .iter()
            .map(|port| (role_index(*port), is_open))
            .collect();
        roles.extend(&self.roles);
        // A packet to such a port is no probe.
        for port in &self.applied.config.knock.ports {
            let role = roles.entry(role_index(*port)).or_insert(is_open);
            *role = role.and_authenticated();
        }
        let packed = |(index, role): (u32, PortRole)| (index, role.packed());
        roles.into_iter().map(packed).collect()
    }

    /// Returns the numbers that tables are sized by.
    pub fn counts(&self) -> Counts {
        let limits = self.applied.config.limits;
        Counts {
            gates: self.gates.len(),
            sequences: self.automaton.sequences.len(),
            states: self.automaton.states.len(),
            transitions: self.automaton.transitions.len(),
            allow: self.allow.len(),
            knockers: self.knockers.len(),
            places: self.places.len(),
            guarded_addresses: self.guarded_addresses.len(),
            config_bytes: self.config.len(),
            limits: Limits {
                sources: limits.sources as usize,
                grants: limits.grants as usize,
                sessions: limits.sessions as usize,
            },
            rejects: self.settings.rejects,
            keys: if self.settings.window.is_some() {
                limits.keys as usize
            } else {
                0
            },
            has_fwknop: self.settings.has_fwknop,
            holds_knocks: self.settings.holds_knocks,
            cpus: cpus(),
        }
    }
}

impl Settings {
    /// Returns the constants of a configuration. `trial`: it may be on trial.
    pub fn of(config: &Config, trial: bool) -> Result<Self> {
        let limits = config.limits;
        Ok(Self {
            monitor: config.mode == Mode::Monitor,
            trial,
            has_allow: !config.allow.is_empty(),
            has_places: config.gates.iter().any(Gate::is_placed),
            least_idle: least_idle(config),
            guarded: match config.addresses {
                Addresses::Every => which::EVERY,
                Addresses::Host => which::HOST,
                Addresses::Listed(_) => which::LISTED,
            },
            rejects: rejects(config),
            has_fwknop: config.has_fwknop(),
            holds_knocks: config.holds_knocks(),
            grant_slots: limits.grants,
            session_slots: limits.sessions,
            session_rows: u32::try_from(rows(limits.sessions as usize))?,
            grant_slot_mask: slot_mask(limits.grants as usize),
            session_slot_mask: slot_mask(limits.sessions as usize),
            progress_slots: u32::try_from(ring::slots(limits.sources as usize))?,
            next_slot: match config.following() {
                Following::None => slot::NONE,
                Following::Same => slot::FIRST,
                Following::Various => slot::OF_INTERFACE,
            },
            window: (!config.knock.ports.is_empty()).then(|| Window {
                max_age: nanoseconds(config.knock.max_age),
                max_ahead: nanoseconds(config.knock.max_ahead),
            }),
        })
    }
}

impl Prefix {
    /// Makes the key of a network at any gate.
    pub fn of(network: IpNet) -> Self {
        let key = address_key(network.network());
        Self::new(key, network)
    }

    /// Makes the key of a network that may knock at one gate.
    pub fn at(network: IpNet, gate: u16) -> Self {
        let key = match network.network() {
            IpAddr::V4(address) => ScopedAddress::of_gate(V4::from(address), gate),
            IpAddr::V6(address) => ScopedAddress::of_gate(V6::from(address), gate),
        };
        Self::new(key, network)
    }

    /// Makes the key of destinations of one placed gate, or of any ([`NO_GATE`]).
    pub fn place(network: IpNet, gate: u16) -> Self {
        let key = match network.network() {
            IpAddr::V4(address) => ScopedAddress::of_place(V4::from(address), gate),
            IpAddr::V6(address) => ScopedAddress::of_place(V6::from(address), gate),
        };
        Self::new(key, network)
    }

    fn new(key: ScopedAddress, network: IpNet) -> Self {
        Self {
            length: ScopedAddress::HEAD_BITS + u32::from(network.prefix_len()),
            network: key,
        }
    }
}

/// Returns the key of a whole address, at any gate.
pub fn address_key(address: IpAddr) -> ScopedAddress {
    match address {
        IpAddr::V4(address) => ScopedAddress::new(V4::from(address)),
        IpAddr::V6(address) => ScopedAddress::new(V6::from(address)),
    }
}

/// Returns the shortest `session_idle` of all gates, ns.
fn least_idle(config: &Config) -> u64 {
    let idle = config
        .gates
        .iter()
        .map(|gate| nanoseconds(gate.session_idle));
    idle.min().unwrap_or(0)
}

/// Returns whether some gate replies to what it denies.
pub fn rejects(config: &Config) -> bool {
    config.gates.iter().any(|gate| gate.deny == Deny::Reject)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn role_index(port: Port) -> u32 {
    Role::index(port.protocol == Protocol::Udp, port.number)
}

fn roles(applied: &Applied, automaton: &Automaton) -> BTreeMap<u32, PortRole> {
    let mut roles = BTreeMap::new();
    if applied.config.has_fwknop() {
        for port in &applied.config.fwknop.ports {
            roles.insert(role_index(*port), PortRole::of(Role::Fwknop));
        }
    }
    for (port, symbol) in automaton.symbols.iter().zip(0_u16..) {
        let starts = usize::from(symbol) < automaton.starts;
        let role = PortRole::of(Role::Knock { symbol, starts });
        roles.insert(role_index(*port), role);
    }
    for (id, gate) in applied.gates() {
        for port in &gate.protect {
            let role = PortRole::of(Role::Protected { gate: id });
            let role = if gate.is_placed() {
                role.and_placed()
            } else {
                role
            };
            let role = if gate.established == Established::Cut {
                role.and_cut()
            } else {
                role
            };
            roles.insert(role_index(*port), role);
        }
    }
    roles
}

fn gate_rules(gate: &Gate) -> GateRules {
    let Gate {
        name: _,
        protect: _,
        protect_at: _,
        open_for,
        session_idle,
        established: _,
        connections,
        grant_to,
        deny,
        sources,
        knocks: _,
        keys: _,
        hooks: _,
        fwknop: _,
    } = gate;
    GateRules {
        open_for: nanoseconds(*open_for),
        session_idle: nanoseconds(*session_idle),
        connections: *connections,
        to_prefix: u8::from(*grant_to == GrantTo::Prefix),
        restricted: u8::from(!sources.is_empty()),
        reject: u8::from(*deny == Deny::Reject),
        zero: 0,
    }
}

#[cfg(test)]
mod tests;
