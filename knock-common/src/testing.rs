//! [`Env`] in ordinary memory, for tests, fuzzing and the comparison with the model.
//!
//! One thread, a clock that stands still until it is set, tables of bounded size.

pub mod knock;
mod memory;
#[cfg(test)]
mod reuse;
mod table;

use std::{
    cell::{Cell, RefCell, UnsafeCell},
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use crate::{
    address::{Address, Padded, V4, V6},
    env::{Env, HashTable},
    event::Event,
    frame::{Frame, Segment},
    grant::{Grant, GrantKey, HELD, filter, give},
    guarded::{route, which},
    keys::SourceKey,
    knock::{
        Outcome,
        authenticated::{
            self,
            held::Held,
            key::{HostSecret, Key},
            outcome,
            work::Work,
        },
        automaton::{Sequence, State, Transition},
        progress::{Progress, ProgressSet},
        ring,
    },
    reject::{Link, ReplySettings, address_kind, rate_limit::IcmpBucket},
    report::Budget,
    row::rows,
    rules::{GateRules, NO_GATE, PortRole, ROLES, Role},
    session::{
        self, Flow, Session,
        recent::{self, Recent},
        socket,
    },
    set::{Set, sets},
};

use memory::modulo;
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

impl Env for TestEnv {
    fn now(&self) -> u64 {
        self.now.get()
    }

    fn tick(&self) -> u64 {
        // Another number for each, as no test moves the clock by a multiple of 2^48 ns.
        self.now.get().wrapping_add(self.ticks.get() << 48)
    }

    fn recent(&self, index: u32) -> Option<&mut Recent> {
        modulo(&self.recent, index)
    }

    fn monitor(&self) -> bool {
        self.monitor
    }

    fn lapsed(&self) -> bool {
        self.deadline != 0 && self.now.get() >= self.deadline
    }

    fn guarded(&self) -> u32 {
        self.guarded
    }

    fn is_listed<A: Address>(&self, destination: A) -> bool {
        self.addresses.contains(&(A::FAMILY, destination.padded()))
    }

    fn allows<A: Address>(&self, source: A) -> bool {
        self.allow.iter().any(|(family, network, length)| {
            *family == A::FAMILY && source.masked(*length).padded() == *network
        })
    }

    fn may_knock<A: Address>(&self, source: A, gate: u16) -> bool {
        self.knockers.iter().any(|(of, family, network, length)| {
            *of == gate && *family == A::FAMILY && source.masked(*length).padded() == *network
        })
    }

    fn has_places(&self) -> bool {
        !self.places.is_empty()
    }

    fn is_place<A: Address>(&self, destination: A, gate: u16) -> bool {
        self.places.iter().any(|(of, family, network, length)| {
            (*of == gate || gate == NO_GATE)
                && *family == A::FAMILY
                && destination.masked(*length).padded() == *network
        })
    }

    fn port(&self, index: u32) -> PortRole {
        PortRole::unpack(self.roles[index as usize])
    }

    fn gate(&self, gate: u16) -> Option<&GateRules> {
        self.gates.get(usize::from(gate))
    }

    fn least_idle(&self) -> u64 {
        self.least_idle
    }

    fn rejects(&self, gate: u16) -> bool {
        self.gate(gate).is_some_and(|rules| rules.reject != 0)
    }

    fn sequence(&self, index: u32) -> Option<&Sequence> {
        self.sequences.get(index as usize)
    }

    fn state(&self, index: u32) -> Option<&State> {
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile(self);
        }
        self.states.get(index as usize)
    }

    fn transition(&self, state: u32, symbol: u16) -> Option<u32> {
        let symbol = u32::from(symbol);
        self.transitions.get(&Transition { state, symbol }).copied()
    }

    fn grant_lengths<A: Address>(&self) -> u64 {
        self.lengths[usize::from(A::FAMILY != 4)]
    }

    fn progress_set(&self, index: u32) -> Option<&mut ProgressSet> {
        let sets = ring::sets(self.progress_slots as usize) as u32;
        Some(self.progress_sets.entry(index & (sets - 1)))
    }

    fn progress(&self, ticket: u32) -> Option<&mut Progress> {
        Some(self.progress.entry(ticket & (self.progress_slots - 1)))
    }

    fn progress_slots(&self) -> u32 {
        self.progress_slots
    }

    fn progress_cursor(&self) -> Option<u32> {
        let cursor = self.progress_cursor.get();
        if let Some(happens) = self.at_cursor.take() {
            happens(self);
        }
        Some(cursor)
    }

    /// One CPU, and a block of one ticket.
    fn progress_ticket(&self) -> Option<u32> {
        let ticket = self.progress_cursor.get();
        self.progress_cursor.set(ticket.wrapping_add(1));
        Some(ticket)
    }

    fn next_grant_slot(&self) -> Option<u32> {
        self.grants.next()
    }

    fn next_session_slot(&self) -> Option<u32> {
        self.sessions.next()
    }

    fn claim_grant(&self, now: u64) -> u32 {
        give::claim(self, now)
    }

    fn claim_session(&self, choice: u32, holder: u16, now: u64) -> u32 {
        session::remember::claim(self, choice, holder, now)
    }

    fn vacate_session(&self, index: u32, now: u64, bars: u64) -> bool {
        session::remember::vacate(self, index, now, bars)
    }

    fn session_slots(&self) -> u32 {
        self.sessions.slots.len() as u32
    }

    fn knows_addresses(&self) -> bool {
        self.own.is_some()
    }

    fn address_kind<A: Address>(&self, address: A) -> u32 {
        let key = (A::FAMILY, address.padded());
        let is_own = self.own.as_ref().is_some_and(|own| own.contains(&key));
        if is_own {
            address_kind::OWN
        } else if self.broadcast.contains(&key) {
            address_kind::BROADCAST
        } else {
            0
        }
    }

    fn is_bridged(&self) -> bool {
        self.bridged
    }

    fn route_here<A: Address>(&self, packet: &Segment<A>) -> u32 {
        self.route(&Flow::of(packet))
    }

    fn route<A: Address>(&self, flow: &Flow<A>) -> u32 {
        let destination = (A::FAMILY, flow.destination.padded());
        // As `bpf_ipv6_fib_lookup` of the kernel's `net/core/filter.c`.
        let is_of_one_link = |address: A| match address.into() {
            IpAddr::V4(_) => false,
            IpAddr::V6(v6) => v6.is_multicast() || v6.is_loopback() || v6.is_unicast_link_local(),
        };
        if is_of_one_link(flow.source) || is_of_one_link(flow.destination) {
            route::HERE
        } else if self.forwarded.contains(&destination) {
            route::FORWARDED
        } else {
            self.not_forwarded
        }
    }

    fn socket<A: Address>(&self, flow: &Flow<A>) -> u32 {
        let sockets = self.sockets.borrow();
        let state = sockets.get(&socket_of(flow));
        state.copied().unwrap_or(socket::NONE)
    }

    fn is_connected<A: Address>(&self, datagram: &Segment<A>) -> bool {
        let own = (datagram.destination.padded(), datagram.ports.destination());
        let peer = (datagram.source.padded(), datagram.ports.source());
        self.connected.borrow().contains(&(A::FAMILY, own, peer))
    }

    fn count_knock(&self, gate: u16, outcome: Outcome) {
        *self
            .outcomes
            .borrow_mut()
            .entry((gate, outcome))
            .or_default() += 1;
    }

    fn takes_authenticated(&self) -> bool {
        self.authenticated
    }

    fn holds_knocks(&self) -> bool {
        self.holds
    }

    fn hold(&self, held: &Held) -> bool {
        let mut all = self.held.borrow_mut();
        let has_room = all.len() < self.room_for_held;
        if has_room {
            all.push(*held);
        }
        has_room
    }

    fn wall(&self) -> u64 {
        self.wall.get()
    }

    fn max_age(&self) -> u64 {
        self.window.0
    }

    fn max_ahead(&self) -> u64 {
        self.window.1
    }

    fn host_secret(&self, index: usize) -> Option<&HostSecret> {
        self.host_secrets.get(index)
    }

    fn knock_key(&self, slot: u32) -> Option<&mut Key> {
        (slot < self.key_slots).then(|| self.keys.entry(slot))
    }

    fn key_gate(&self, slot: u32, gate: u32) -> Option<u16> {
        self.key_gates.get(&(slot, gate)).copied()
    }

    fn knock_work(&self) -> Option<&mut Work> {
        // SAFETY: one thread; as in the kernel program, each step is done with it when it calls the next.
        Some(unsafe { &mut *self.knock_work.get() })
    }

    fn verify_knock<F: Frame + ?Sized>(&self, frame: &F, transport: usize) {
        authenticated::verify(self, frame, transport);
    }

    fn answer_knock(&self) -> bool {
        authenticated::answer(self)
    }

    fn report_knock(&self) {
        authenticated::report(self);
    }

    fn give_v4(&self) -> u64 {
        authenticated::give::<_, V4>(self)
    }

    fn give_v6(&self) -> u64 {
        authenticated::give::<_, V6>(self)
    }

    fn count_authenticated(&self, outcome: outcome::Outcome) {
        *self
            .authenticated_outcomes
            .borrow_mut()
            .entry(outcome)
            .or_default() += 1;
    }

    fn second(&self) -> u64 {
        self.now.get() / 1_000_000_000
    }

    fn report_budget(&self, class: u32) -> Option<&mut Budget> {
        Some(self.report_budgets.entry(class))
    }

    fn reported(&self) -> &impl HashTable<SourceKey, u64> {
        &self.reported
    }

    fn reply_settings(&self) -> Option<&ReplySettings> {
        self.reply_settings.as_ref()
    }

    fn reply_link(&self, vlans: [u16; 2]) -> Option<&Link> {
        self.reply_links.get(&vlans)
    }

    fn icmp_buckets(&self) -> &impl HashTable<SourceKey, IcmpBucket> {
        &self.icmp_buckets
    }

    fn icmp_global(&self) -> Option<&mut u64> {
        // SAFETY: one thread, and every caller is done with it before it asks again.
        Some(unsafe { &mut *self.icmp_global.get() })
    }

    fn random(&self) -> u32 {
        self.random.get()
    }

    fn hand_up<A: Address>(&self, datagram: &Segment<A>) {
        let source = datagram.source.padded();
        let handed_up = (A::FAMILY, source, datagram.ports.destination());
        self.handed_up.borrow_mut().push(handed_up);
    }

    fn send(&self, event: &Event) -> bool {
        self.events.borrow_mut().push(*event);
        true
    }
}
