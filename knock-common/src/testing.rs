//! [`Env`] in ordinary memory, for tests, fuzzing and the comparison with the model.
//!
//! One thread, a clock that stands still until it is set, tables of bounded size.

mod env;
pub mod knock;
mod memory;
#[cfg(test)]
mod reuse;
mod table;

use std::{
    cell::{Cell, RefCell, UnsafeCell},
    collections::{HashMap, HashSet},
};

use crate::{
    address::{Address, Padded},
    event::Event,
    frame::Segment,
    grant::{Grant, GrantKey, HELD, filter},
    guarded::{route, which},
    keys::SourceKey,
    knock::{
        Outcome,
        authenticated::{
            held::Held,
            key::{HostSecret, Key},
            outcome,
            work::Work,
        },
        automaton::{Sequence, State, Transition},
        progress::{Progress, ProgressSet},
        ring,
    },
    reject::{Link, ReplySettings, rate_limit::IcmpBucket},
    report::Budget,
    row::rows,
    rules::{GateRules, ROLES, Role},
    session::{
        Flow, Session,
        recent::{self, Recent},
    },
    set::{Set, sets},
};

#[cfg(doc)]
use crate::Env;

use table::{Ring, zeroed};

pub use table::Map;

/// Address and port.
pub type End = (Padded, u16);

/// Returns the family of a flow, its host's own end, then its peer's.
pub fn socket_of<A: Address>(flow: &Flow<A>) -> (u8, End, End) {
    let own = (flow.destination.padded(), flow.ports.destination());
    (A::FAMILY, own, (flow.source.padded(), flow.ports.source()))
}

/// Returns a packet of a flow, behind an Ethernet and an IPv4 header.
pub const fn segment_of<A: Address>(flow: &Flow<A>) -> Segment<A> {
    Segment {
        source: flow.source,
        destination: flow.destination,
        ports: flow.ports,
        protocol: flow.protocol as u8,
        transport: 34,
    }
}

/// How many accesses are left until something happens, and what does.
pub type Interruption = (u32, fn(&TestEnv));

/// An environment whose state tests can set and read.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a constant of the program, or a fact of the host"
)]
pub struct TestEnv {
    /// ns.
    pub now: Cell<u64>,
    /// Timer ticks in which the clock has not moved.
    ticks: Cell<u64>,
    /// What the CPU [remembers](recent).
    recent: Vec<UnsafeCell<Recent>>,
    pub monitor: bool,
    /// End of the trial, ns; 0: none.
    pub deadline: u64,
    pub roles: Vec<u32>,
    pub gates: Vec<GateRules>,
    /// As [`Env::least_idle`] has it; 0: the gate of each flow is looked up.
    pub least_idle: u64,
    pub sequences: Vec<Sequence>,
    pub states: Vec<State>,
    pub transitions: HashMap<Transition, u32>,
    /// The allow list: family, padded address, prefix length.
    pub allow: Vec<(u8, Padded, u8)>,
    /// Networks that may knock at restricted gates: gate, family, padded address, prefix length.
    pub knockers: Vec<(u16, u8, Padded, u8)>,
    /// Destinations of placed gates: gate, family, padded address, prefix length.
    pub places: Vec<(u16, u8, Padded, u8)>,
    /// As [`Env::guarded`] has it.
    pub guarded: u32,
    /// The guarded destinations that are listed.
    pub addresses: HashSet<(u8, Padded)>,
    /// As [`Env::grant_lengths`] has them: IPv4, IPv6.
    pub lengths: [u64; 2],
    /// The words of [`GrantMemory::grant_filter`](crate::memory::GrantMemory::grant_filter).
    pub grant_filter: Vec<UnsafeCell<u64>>,
    /// The sets of [`GrantMemory::grant_set`](crate::memory::GrantMemory::grant_set).
    pub grant_sets: Vec<UnsafeCell<Set>>,
    /// The words of [`SessionMemory::session_row`](crate::memory::SessionMemory::session_row).
    pub session_rows: Vec<UnsafeCell<u64>>,
    /// The sets of [`SessionMemory::session_set`](crate::memory::SessionMemory::session_set).
    pub session_sets: Vec<UnsafeCell<Set>>,
    /// Slots of the ring of sources, a power of two.
    pub progress_slots: u32,
    /// Sets and slots, made when they are first looked at.
    pub progress_sets: Map<u32, ProgressSet>,
    pub progress: Map<u32, Progress>,
    pub progress_cursor: Cell<u32>,
    /// How many session slots count to each holder.
    pub session_counts: Map<u16, u32>,
    /// Own addresses, if they are known: family, padded address.
    pub own: Option<HashSet<(u8, Padded)>>,
    /// Broadcast addresses of its networks.
    pub broadcast: HashSet<(u8, Padded)>,
    /// As [`Env::is_bridged`] has it.
    pub bridged: bool,
    /// What [`Env::route`] says of addresses that are not forwarded to.
    pub not_forwarded: u32,
    /// Addresses that it forwards to.
    pub forwarded: HashSet<(u8, Padded)>,
    /// States of the host's TCP sockets, by [`socket_of`] their flow.
    pub sockets: RefCell<HashMap<(u8, End, End), u32>>,
    /// The host's connected UDP sockets, by family: its own end, then its peer's.
    pub connected: RefCell<HashSet<(u8, End, End)>>,
    pub outcomes: RefCell<HashMap<(u16, Outcome), u64>>,
    /// Some port takes authenticated knocks.
    pub authenticated: bool,
    /// What opens is held.
    pub holds: bool,
    /// What was held, up to as many as there is room for.
    pub held: RefCell<Vec<Held>>,
    pub room_for_held: usize,
    /// Unix ns.
    pub wall: Cell<u64>,
    /// How old an authenticated knock may be, and how far ahead, ns.
    pub window: (u64, u64),
    pub host_secrets: [HostSecret; HostSecret::COUNT],
    /// By slot.
    pub keys: Map<u32, Key>,
    /// Number of slots.
    pub key_slots: u32,
    /// By slot, and the gate as a knock names it.
    pub key_gates: HashMap<(u32, u32), u16>,
    pub authenticated_outcomes: RefCell<HashMap<outcome::Outcome, u64>>,
    knock_work: UnsafeCell<Work>,
    pub reply_settings: Option<ReplySettings>,
    /// By VLANs, outer first.
    pub reply_links: HashMap<[u16; 2], Link>,
    pub icmp_buckets: Map<SourceKey, IcmpBucket>,
    pub icmp_global: UnsafeCell<u64>,
    /// The next random number, and all others.
    pub random: Cell<u32>,
    pub report_budgets: Map<u32, Budget>,
    pub reported: Map<SourceKey, u64>,
    pub events: RefCell<Vec<Event>>,
    /// Datagrams to ports of fwknop's: family, padded source, port.
    pub handed_up: RefCell<Vec<(u8, Padded, u16)>>,
    /// What happens before this CPU reads or changes shared memory by the methods of [`Memory`](crate::Memory), and how many
    /// accesses come first.
    pub at_access: Cell<Option<Interruption>>,
    /// Other CPUs change the words of rows each time that this one tries to.
    pub rows_are_busy: Cell<bool>,
    /// What another CPU does when this one reads a state; once.
    pub meanwhile: Cell<Option<fn(&Self)>>,
    /// What another CPU does when this one has read the cursor of sources; once.
    pub at_cursor: Cell<Option<fn(&Self)>>,
    grants: Ring<Grant>,
    sessions: Ring<Session>,
}

impl TestEnv {
    /// Makes one without a configuration, with room for this many grants and sessions.
    pub fn new(grants: usize, sessions: usize) -> Self {
        Self {
            now: Cell::new(1_000_000_000),
            ticks: Cell::new(0),
            recent: zeroed(recent::ENTRIES as usize),
            monitor: false,
            deadline: 0,
            roles: vec![Role::Foreign.pack(); ROLES as usize],
            gates: Vec::new(),
            least_idle: 0,
            sequences: Vec::new(),
            states: Vec::new(),
            transitions: HashMap::new(),
            allow: Vec::new(),
            knockers: Vec::new(),
            places: Vec::new(),
            guarded: which::EVERY,
            addresses: HashSet::new(),
            lengths: [0; 2],
            grant_filter: zeroed(filter::words(grants)),
            grant_sets: zeroed(sets(grants)),
            session_rows: zeroed(rows(sessions)),
            session_sets: zeroed(sets(sessions)),
            progress_slots: 1 << 20,
            progress_sets: Map::with_capacity(usize::MAX),
            progress: Map::with_capacity(usize::MAX),
            progress_cursor: Cell::new(ring::FIRST),
            session_counts: Map::with_capacity(usize::MAX),
            own: None,
            broadcast: HashSet::new(),
            bridged: false,
            not_forwarded: route::OFF,
            forwarded: HashSet::new(),
            sockets: RefCell::default(),
            connected: RefCell::default(),
            outcomes: RefCell::default(),
            authenticated: false,
            holds: false,
            held: RefCell::default(),
            room_for_held: 0,
            wall: Cell::new(1_700_000_000_000_000_000),
            window: (90_000_000_000, 15_000_000_000),
            host_secrets: bytemuck::Zeroable::zeroed(),
            keys: Map::with_capacity(usize::MAX),
            key_slots: 0,
            key_gates: HashMap::new(),
            authenticated_outcomes: RefCell::default(),
            knock_work: UnsafeCell::new(bytemuck::Zeroable::zeroed()),
            reply_settings: None,
            reply_links: HashMap::new(),
            icmp_buckets: Map::with_capacity(usize::MAX),
            icmp_global: UnsafeCell::new(0),
            random: Cell::new(1),
            report_budgets: Map::with_capacity(usize::MAX),
            reported: Map::with_capacity(usize::MAX),
            events: RefCell::default(),
            handed_up: RefCell::default(),
            at_access: Cell::default(),
            rows_are_busy: Cell::default(),
            meanwhile: Cell::default(),
            at_cursor: Cell::default(),
            grants: Ring::with_size(grants),
            sessions: Ring::with_size(sessions),
        }
    }

    /// Moves the clock, ns.
    pub fn advance(&self, by: u64) {
        self.now.set(self.now.get() + by);
    }

    /// Lets a timer tick pass, for which whoever removes a grant waits.
    pub fn pass_tick(&self) {
        self.ticks.set(self.ticks.get() + 1);
    }

    /// Returns the slots of grants, as they are now.
    pub fn grants(&self) -> Vec<Grant> {
        self.grants.copy()
    }

    /// Returns the grants of a family, live or not.
    pub fn grants_of<A: Address>(&self) -> Vec<(GrantKey<A>, Grant)> {
        let slots = self.grants().into_iter();
        let grants = slots.filter(|grant| grant.until > HELD);
        grants
            .filter_map(|grant| Some((grant.key()?, grant)))
            .collect()
    }

    /// Returns the sessions of both families, with their slots.
    pub fn sessions(&self) -> Vec<(u32, Session)> {
        let slots = (0..).zip(self.sessions.copy());
        slots
            .filter(|(_, session)| session.tenancy.is_live())
            .collect()
    }

    /// Returns how often `outcome` has been counted at `gate`.
    pub fn counted(&self, gate: u16, outcome: Outcome) -> u64 {
        self.outcomes
            .borrow()
            .get(&(gate, outcome))
            .copied()
            .unwrap_or(0)
    }
}
