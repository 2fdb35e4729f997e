//! What a decision asks of a [`TestEnv`].

use std::net::IpAddr;

use crate::{
    address::{Address, V4, V6},
    env::{Env, HashTable},
    event::Event,
    frame::{Frame, Segment},
    grant::give,
    guarded::route,
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
    rules::{GateRules, NO_GATE, PortRole},
    session::{self, Flow, recent::Recent, socket},
};

use super::{TestEnv, memory::modulo, socket_of};

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
