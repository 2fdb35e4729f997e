//! What a decision asks of its environment: BPF maps and helpers in the kernel, ordinary collections in tests.

use crate::{
    address::Address,
    event::Event,
    frame::{Frame, Segment},
    keys::SourceKey,
    knock::{
        Outcome,
        authenticated::{
            held::Held,
            key::{HostSecret, Key},
            outcome::Outcome as AuthenticatedOutcome,
            work::Work,
        },
        automaton::{Sequence, State},
        progress::{Progress, ProgressSet},
    },
    memory::{GrantMemory, SessionMemory},
    reject::{Link, ReplySettings, rate_limit::IcmpBucket},
    report::Budget,
    rules::{GateRules, PortRole},
    session::{Flow, recent::Recent},
};

/// A hash table of the kernel that evicts its oldest entries. CPUs share its entries.
///
/// An entry stays readable until its packet has been judged. Meanwhile it may be evicted and its memory given to another
/// key. Values do not carry their key: the worst outcome is one report or one ICMP error too many or too few.
pub trait HashTable<K, V> {
    /// Returns the entry, to be read and changed in place. Other CPUs may change it at the same time: its
    /// fields are single words, and exact changes are made by [`Memory::compare_exchange`](crate::Memory::compare_exchange) or
    /// [`Memory::fetch_add`](crate::Memory::fetch_add).
    #[expect(
        clippy::mut_from_ref,
        reason = "a kernel table hands out pointers into itself; see above for what guards them"
    )]
    fn find(&self, key: &K) -> Option<&mut V>;

    /// Adds an entry. Returns false if the key is there already or the table is full.
    fn insert(&self, key: &K, value: &V) -> bool;

    /// Removes an entry. Returns whether it was there.
    fn remove(&self, key: &K) -> bool;
}

/// Clock, configuration and tables.
pub trait Env: GrantMemory + SessionMemory {
    /// Returns the time in ns of `CLOCK_MONOTONIC`, as of the last timer tick.
    fn now(&self) -> u64;

    /// Returns the number of the present timer tick, not 0. [`now`](Self::now) moves with it.
    fn tick(&self) -> u64;

    /// Returns an entry of what this CPU [remembers](crate::session::recent), by its index.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn recent(&self, index: u32) -> Option<&mut Recent>;

    /// Returns whether packets that would be denied are only counted and reported.
    fn monitor(&self) -> bool;

    /// Returns whether the configuration was on trial, and its trial has ended: then every packet passes.
    fn lapsed(&self) -> bool;

    /// Returns which destinations are guarded; see [`which`](crate::guarded::which).
    fn guarded(&self) -> u32;
    /// Returns whether `destination` is one of those that the configuration lists.
    fn is_listed<A: Address>(&self, destination: A) -> bool;

    /// Returns whether some gate has destinations of its own.
    fn has_places(&self) -> bool;
    /// Returns whether `destination` is one of those of `gate`, or, with [`NO_GATE`](crate::rules::NO_GATE), of any gate.
    fn is_place<A: Address>(&self, destination: A, gate: u16) -> bool;

    /// Returns whether `source` is on the allow list.
    fn allows<A: Address>(&self, source: A) -> bool;

    /// Returns whether `source` is in one of the networks that may knock at `gate`, which is a restricted one.
    fn may_knock<A: Address>(&self, source: A, gate: u16) -> bool;

    /// Returns the entry of a port; see [`Role::index`](crate::rules::Role::index).
    fn port(&self, index: u32) -> PortRole;
    fn gate(&self, gate: u16) -> Option<&GateRules>;
    /// Returns the shortest [`GateRules::session_idle`] of all gates, ns.
    fn least_idle(&self) -> u64;

    /// Returns whether this gate replies to packets that it denies.
    fn rejects(&self, gate: u16) -> bool;

    fn sequence(&self, index: u32) -> Option<&Sequence>;
    fn state(&self, index: u32) -> Option<&State>;

    /// Returns where `symbol` leads from a `state` with several transitions, if that differs from where it leads from the
    /// root.
    fn transition(&self, state: u32, symbol: u16) -> Option<u32>;

    /// Returns the prefix lengths of this family's grants, one a byte, except the whole length; 0 ends the list.
    fn grant_lengths<A: Address>(&self) -> u64;

    /// Returns a set of sources; see [`ring`](crate::knock::ring). `index` is taken modulo their number.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn progress_set(&self, index: u32) -> Option<&mut ProgressSet>;
    /// Returns a slot of the ring of sources. `ticket` is taken modulo their number.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn progress(&self, ticket: u32) -> Option<&mut Progress>;
    fn progress_slots(&self) -> u32;
    /// Returns the cursor of that ring: the next ticket that no CPU has taken.
    fn progress_cursor(&self) -> Option<u32>;
    /// Takes a ticket of that ring; see [`Tickets`](crate::cursor::Tickets).
    fn progress_ticket(&self) -> Option<u32>;

    /// Returns the index of the next slot of the ring of grants. No two callers get the same one until the ring has wrapped
    /// around.
    fn next_grant_slot(&self) -> Option<u32>;

    /// Returns the index of the next slot at the cursor of sessions, in the same way.
    fn next_session_slot(&self) -> Option<u32>;
    fn session_slots(&self) -> u32;

    /// [`claim`](crate::grant::give::claim): in the kernel program this is a function that the verifier checks once, and not at
    /// each call.
    fn claim_grant(&self, now: u64) -> u32;

    /// [`claim`](crate::session::remember::claim) and [`vacate`](crate::session::remember::vacate): each is a function that the
    /// verifier checks once.
    fn claim_session(&self, choice: u32, holder: u16, now: u64) -> u32;
    fn vacate_session(&self, index: u32, now: u64, bars: u64) -> bool;

    /// Returns whether all of this host's addresses are known.
    fn knows_addresses(&self) -> bool;
    /// Returns what this address is to the host; see [`address_kind`](crate::reject::address_kind).
    fn address_kind<A: Address>(&self, address: A) -> u32;
    /// Returns whether a guarded interface forwards packets by their MAC addresses.
    fn is_bridged(&self) -> bool;
    /// Returns what the host's routes do with packets of `flow`; see [`route`](crate::guarded::route).
    fn route<A: Address>(&self, flow: &Flow<A>) -> u32;
    /// As [`route`](Self::route), in the caller's frame: nested calls share 512 bytes of stack.
    fn route_here<A: Address>(&self, packet: &Segment<A>) -> u32;

    /// Returns the state of this host's TCP socket for `flow`; see [`socket`](crate::session::socket).
    fn socket<A: Address>(&self, flow: &Flow<A>) -> u32;

    /// Returns whether this host has a UDP socket for this datagram that is connected to its sender.
    fn is_connected<A: Address>(&self, datagram: &Segment<A>) -> bool;

    /// Counts the result of a knock.
    fn count_knock(&self, gate: u16, outcome: Outcome);

    /// Returns whether some port takes authenticated knocks.
    fn takes_authenticated(&self) -> bool;

    /// Returns the time in ns since 1970, by the host's clock.
    fn wall(&self) -> u64;

    /// Returns how old an authenticated knock may be, ns.
    fn max_age(&self) -> u64;

    /// Returns how far ahead of the host's clock it may be, ns.
    fn max_ahead(&self) -> u64;

    /// Returns whether what opens is [held](crate::knock::authenticated::held) until user space gives the grants.
    fn holds_knocks(&self) -> bool;

    /// Hands a knock that is held to user space. Returns false if there is no room; never waits.
    fn hold(&self, held: &Held) -> bool;

    /// Returns the secret of this host, or the one before it (1).
    fn host_secret(&self, index: usize) -> Option<&HostSecret>;

    /// Returns the key of a slot.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn knock_key(&self, slot: u32) -> Option<&mut Key>;

    /// Returns the gate that a knock names, if the key in this slot opens it; see
    /// [`KeyGate`](crate::knock::authenticated::key::KeyGate).
    fn key_gate(&self, slot: u32, gate: u32) -> Option<u16>;

    /// Returns what this CPU knows of the datagram that it looks at.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn knock_work(&self) -> Option<&mut Work>;

    /// [`verify`](crate::knock::authenticated::verify()), [`answer`](crate::knock::authenticated::answer), [`report`](crate::knock::authenticated::report()) and [`give`](crate::knock::authenticated::give) for either
    /// family: in the kernel program these are functions that the verifier checks once, and not at each call. There,
    /// `frame` is the packet of the context.
    fn verify_knock<F: Frame + ?Sized>(&self, frame: &F, transport: usize);
    fn answer_knock(&self) -> bool;
    fn report_knock(&self);
    fn give_v4(&self) -> u64;
    fn give_v6(&self) -> u64;

    /// Counts what became of a datagram to a port for authenticated knocks.
    fn count_authenticated(&self, outcome: AuthenticatedOutcome);

    /// Returns the number of the present second, by a clock with any epoch that may be off by a third.
    fn second(&self) -> u64;

    /// Returns what this CPU may still report of a [class](crate::report::class).
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn report_budget(&self, class: u32) -> Option<&mut Budget>;

    /// Returns the table of when an event was last reported, ns of `CLOCK_MONOTONIC`, by
    /// [`subject`](crate::report::subject). It evicts the oldest entries.
    fn reported(&self) -> &impl HashTable<SourceKey, u64>;

    /// Returns how this host replies to packets to its closed ports; `None` if that is not known.
    fn reply_settings(&self) -> Option<&ReplySettings>;

    /// Returns the interface that the packet arrived by, or a VLAN on it. `vlans`: outer first, 0 for none.
    fn reply_link(&self, vlans: [u16; 2]) -> Option<&Link>;

    /// Returns the table of ICMP errors that each destination may still get. It evicts the oldest entries.
    fn icmp_buckets(&self) -> &impl HashTable<SourceKey, IcmpBucket>;

    /// Returns the [`GlobalIcmpBucket`](crate::reject::rate_limit::GlobalIcmpBucket).
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn icmp_global(&self) -> Option<&mut u64>;

    /// Returns a pseudo-random number.
    fn random(&self) -> u32;

    /// Hands a datagram to the service, if it [looks](crate::knock::fwknop::looks_right) like a packet of fwknop's.
    fn hand_up<A: Address>(&self, datagram: &Segment<A>);

    /// Hands a report to user space. Returns false if there is no room; never waits.
    fn send(&self, event: &Event) -> bool;
}
