//! The decisions' surroundings as ordinary collections, for tests, fuzzing and the model checks.
//!
//! One thread, a clock that stands still until it is set, tables that are full when they are full.

use std::{
    cell::{Cell, RefCell, UnsafeCell},
    collections::{HashMap, HashSet},
    hash::Hash,
};

use bytemuck::Zeroable;

use crate::{
    Address, Kernel, Table,
    address::{Padded, V4, V6},
    event::Event,
    frame::Segment,
    knock::Outcome,
    presence::{self, Seed},
    progress,
    session::{self, socket},
    table::{
        Flow, GateRules, Grant, GrantKey, GrantSlot, Progress, ProgressSet, ROLES, Role, Sequence,
        Session, SessionSlot, State, Transition,
    },
};

/// Address and port.
pub type End = (Padded, u16);

/// A gate without a kernel.
pub struct Host {
    /// ns.
    pub now: Cell<u64>,
    pub monitor: bool,
    pub roles: Vec<u32>,
    pub gates: Vec<GateRules>,
    pub sequences: Vec<Sequence>,
    pub states: Vec<State>,
    pub transitions: HashMap<Transition, u32>,
    /// Allow list: family, padded address, prefix length.
    pub allow: Vec<(u8, Padded, u8)>,
    /// Who may knock at restricted gates: gate, family, padded address, prefix length.
    pub knockers: Vec<(u16, u8, Padded, u8)>,
    /// Guarded destinations; empty: all.
    pub addresses: HashSet<(u8, Padded)>,
    /// As [`Kernel::grant_lengths`] has them: IPv4, IPv6.
    pub lengths: [u64; 2],
    /// The words of [`Kernel::presence`].
    pub presence: Vec<UnsafeCell<u64>>,
    /// Of the ring of sources, a power of two.
    pub places: u32,
    /// Sets and places, made when they are first looked at.
    pub progress_sets: Map<u32, ProgressSet>,
    pub progress: Map<u32, Progress>,
    pub progress_cursor: UnsafeCell<u32>,
    pub grants_v4: Map<GrantKey<V4>, Grant>,
    pub grants_v6: Map<GrantKey<V6>, Grant>,
    pub sessions_v4: Map<Flow<V4>, Session>,
    pub sessions_v6: Map<Flow<V6>, Session>,
    /// Slots of the sessions that count to each holder.
    pub held: Map<u16, u32>,
    /// Own addresses, if they are known: family, padded address.
    pub own: Option<HashSet<(u8, Padded)>>,
    /// Those that it forwards to.
    pub forwarded: HashSet<(u8, Padded)>,
    /// States of the host's TCP sockets, by family and [`Flow::tag`] of their flow.
    pub sockets: RefCell<HashMap<(u8, u64), u32>>,
    /// The host's connected UDP sockets, by family: its own end, then its peer's.
    pub connected: RefCell<HashSet<(u8, End, End)>>,
    pub outcomes: RefCell<HashMap<(u16, Outcome), u64>>,
    pub events: RefCell<Vec<Event>>,
    /// What another CPU does when this one looks at a state; once.
    pub meanwhile: Cell<Option<fn(&Self)>>,
    grant_slots: Ring<GrantSlot>,
    session_slots: Ring<SessionSlot>,
}

impl Host {
    /// An empty gate with room for so many grants and sessions.
    pub fn new(grants: usize, sessions: usize) -> Self {
        Self {
            now: Cell::new(1_000_000_000),
            monitor: false,
            roles: vec![Role::Foreign.pack(); ROLES as usize],
            gates: Vec::new(),
            sequences: Vec::new(),
            states: Vec::new(),
            transitions: HashMap::new(),
            allow: Vec::new(),
            knockers: Vec::new(),
            addresses: HashSet::new(),
            lengths: [0; 2],
            presence: zeroed(presence::words(grants)),
            places: 1 << 20,
            progress_sets: Map::with_capacity(usize::MAX),
            progress: Map::with_capacity(usize::MAX),
            progress_cursor: UnsafeCell::new(progress::FIRST),
            grants_v4: Map::with_capacity(grants),
            grants_v6: Map::with_capacity(grants),
            sessions_v4: Map::with_capacity(sessions),
            sessions_v6: Map::with_capacity(sessions),
            held: Map::with_capacity(usize::MAX),
            own: None,
            forwarded: HashSet::new(),
            sockets: RefCell::default(),
            connected: RefCell::default(),
            outcomes: RefCell::default(),
            events: RefCell::default(),
            meanwhile: Cell::default(),
            grant_slots: Ring::with_size(grants),
            session_slots: Ring::with_size(sessions),
        }
    }

    /// Moves the clock, ns.
    pub fn advance(&self, by: u64) {
        self.now.set(self.now.get() + by);
    }

    /// How often `outcome` has been counted at `gate`.
    pub fn counted(&self, gate: u16, outcome: Outcome) -> u64 {
        self.outcomes
            .borrow()
            .get(&(gate, outcome))
            .copied()
            .unwrap_or(0)
    }
}

impl Kernel for Host {
    fn now(&self) -> u64 {
        self.now.get()
    }

    fn monitor(&self) -> bool {
        self.monitor
    }

    fn guards<A: Address>(&self, destination: A) -> bool {
        self.addresses.is_empty() || self.addresses.contains(&(A::FAMILY, destination.padded()))
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

    fn role(&self, index: u32) -> Role {
        Role::unpack(self.roles[index as usize])
    }

    fn gate(&self, gate: u16) -> Option<&GateRules> {
        self.gates.get(usize::from(gate))
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

    fn seed(&self) -> Seed {
        // Any numbers.
        Seed::new(0x1234_5677_89ab_cdef, 0x0f1e_2d3d_4b5a_6979)
    }

    fn presence(&self, index: u32) -> Option<&mut u64> {
        let index = (index as usize).checked_rem(self.presence.len())?;
        // SAFETY: one thread, and every caller is done with a word before it asks for the next.
        Some(unsafe { &mut *self.presence[index].get() })
    }

    fn progress_set(&self, index: u32) -> Option<&mut ProgressSet> {
        let sets = progress::sets(self.places as usize) as u32;
        Some(self.progress_sets.entry(index & (sets - 1)))
    }

    fn progress(&self, ticket: u32) -> Option<&mut Progress> {
        Some(self.progress.entry(ticket & (self.places - 1)))
    }

    fn progress_places(&self) -> u32 {
        self.places
    }

    fn progress_cursor(&self) -> Option<&mut u32> {
        // SAFETY: one thread, and every caller is done with it before it asks for anything else.
        Some(unsafe { &mut *self.progress_cursor.get() })
    }

    fn grants_v4(&self) -> &impl Table<GrantKey<V4>, Grant> {
        &self.grants_v4
    }

    fn grants_v6(&self) -> &impl Table<GrantKey<V6>, Grant> {
        &self.grants_v6
    }

    fn sessions_v4(&self) -> &impl Table<Flow<V4>, Session> {
        &self.sessions_v4
    }

    fn sessions_v6(&self) -> &impl Table<Flow<V6>, Session> {
        &self.sessions_v6
    }

    fn next_grant_slot(&self) -> Option<(u32, &mut GrantSlot)> {
        self.grant_slots.next()
    }

    fn next_session_slot(&self) -> Option<(u32, &mut SessionSlot)> {
        self.session_slots.next()
    }

    fn session_slot(&self, index: u32) -> Option<&mut SessionSlot> {
        let slot = self.session_slots.slots.get(index as usize)?;
        // SAFETY: as in `Ring::next`.
        Some(unsafe { &mut *slot.get() })
    }

    fn claim_session(&self, holder: u16, now: u64) -> u32 {
        session::claim(self, holder, now)
    }

    fn vacate_session(&self, index: u32, now: u64, bars: u64) -> bool {
        session::vacate(self, index, now, bars)
    }

    fn session_slots(&self) -> u32 {
        self.session_slots.slots.len() as u32
    }

    fn held(&self, holder: u16) -> Option<&mut u32> {
        Some(self.held.entry(holder))
    }

    fn knows_addresses(&self) -> bool {
        self.own.is_some()
    }

    fn has_address<A: Address>(&self, address: A) -> bool {
        let own = self.own.as_ref();
        own.is_some_and(|own| own.contains(&(A::FAMILY, address.padded())))
    }

    fn forwards<A: Address>(&self, flow: &Flow<A>) -> bool {
        let destination = (A::FAMILY, flow.destination.padded());
        self.forwarded.contains(&destination)
    }

    fn socket<A: Address>(&self, flow: &Flow<A>) -> u32 {
        let sockets = self.sockets.borrow();
        let state = sockets.get(&(A::FAMILY, flow.tag()));
        state.copied().unwrap_or(socket::NONE)
    }

    fn is_connected<A: Address>(&self, datagram: &Segment<A>) -> bool {
        let own = (datagram.destination.padded(), datagram.destination_port);
        let peer = (datagram.source.padded(), datagram.source_port);
        self.connected.borrow().contains(&(A::FAMILY, own, peer))
    }

    fn compare_exchange(&self, cell: &mut u64, current: u64, new: u64) -> bool {
        let equal = *cell == current;
        if equal {
            *cell = new;
        }
        equal
    }

    fn fetch_add(&self, cell: &mut u32) -> u32 {
        let before = *cell;
        *cell = before.wrapping_add(1);
        before
    }

    fn fetch_sub(&self, cell: &mut u32) -> u32 {
        let before = *cell;
        *cell = before.wrapping_sub(1);
        before
    }

    fn count_knock(&self, gate: u16, outcome: Outcome) {
        *self
            .outcomes
            .borrow_mut()
            .entry((gate, outcome))
            .or_default() += 1;
    }

    fn wants_report(&self, _class: u32) -> bool {
        true
    }

    fn report(&self, event: &Event) {
        self.events.borrow_mut().push(*event);
    }
}

/// A table of bounded size. Entries stay where they are until the table is dropped, as a kernel's do
/// until a program has run.
pub struct Map<K, V> {
    capacity: usize,
    live: RefCell<HashMap<K, *mut V>>,
    /// All entries ever made, for [`Drop`].
    all: RefCell<Vec<*mut V>>,
    /// What was inserted last, as it was then.
    pub inserted: Cell<Option<V>>,
}

impl<K: Copy + Eq + Hash, V: Copy> Map<K, V> {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            capacity,
            live: RefCell::default(),
            all: RefCell::default(),
            inserted: Cell::new(None),
        }
    }

    /// The entry, made of zeros where there is none.
    fn entry(&self, key: K) -> &mut V
    where
        V: Zeroable,
    {
        self.insert(&key, &V::zeroed());
        self.find(&key).expect("it is there now")
    }

    /// A copy of all entries.
    pub fn rows(&self) -> Vec<(K, V)> {
        let live = self.live.borrow();
        // SAFETY: every pointer came from `Box::into_raw` and is freed by `Drop` alone.
        live.iter()
            .map(|(key, value)| (*key, unsafe { **value }))
            .collect()
    }
}

impl<K: Copy + Eq + Hash, V: Copy> Table<K, V> for Map<K, V> {
    fn find(&self, key: &K) -> Option<&mut V> {
        let value = self.live.borrow().get(key).copied()?;
        // SAFETY: see `rows`. A second reference to the same entry may be alive, as in the kernel,
        // but every use of one ends before the next is used: there is one thread.
        Some(unsafe { &mut *value })
    }

    fn insert(&self, key: &K, value: &V) -> bool {
        let mut live = self.live.borrow_mut();
        if live.contains_key(key) || live.len() >= self.capacity {
            return false;
        }
        self.inserted.set(Some(*value));
        let value = Box::into_raw(Box::new(*value));
        self.all.borrow_mut().push(value);
        live.insert(*key, value);
        true
    }

    fn remove(&self, key: &K) -> bool {
        self.live.borrow_mut().remove(key).is_some()
    }
}

impl<K, V> Drop for Map<K, V> {
    fn drop(&mut self) {
        for value in self.all.get_mut().drain(..) {
            // SAFETY: from `Box::into_raw` in `insert`, once each; no reference outlives the map.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

/// A ring of slots with its cursor.
struct Ring<T> {
    slots: Vec<UnsafeCell<T>>,
    cursor: Cell<usize>,
}

fn zeroed<T: Zeroable>(size: usize) -> Vec<UnsafeCell<T>> {
    (0..size).map(|_| UnsafeCell::new(T::zeroed())).collect()
}

impl<T: Zeroable> Ring<T> {
    fn with_size(size: usize) -> Self {
        Self {
            slots: zeroed(size),
            cursor: Cell::new(0),
        }
    }

    #[expect(clippy::mut_from_ref, reason = "see `Table::find`")]
    fn next(&self) -> Option<(u32, &mut T)> {
        let index = self.cursor.get().checked_rem(self.slots.len())?;
        self.cursor.set(self.cursor.get() + 1);
        // SAFETY: one thread, and every caller is done with a slot before it asks for the next.
        Some((index as u32, unsafe { &mut *self.slots[index].get() }))
    }
}
