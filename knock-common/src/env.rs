//! What the decisions need of their surroundings: in the kernel BPF maps and helpers, in tests
//! ordinary collections.

use crate::{
    address::{Address, V4, V6},
    event::Event,
    frame::Segment,
    grant::{Grant, GrantKey, GrantSlot},
    keys::SourceKey,
    knock::{
        Outcome,
        automaton::{Sequence, State},
        progress::{Progress, ProgressSet},
    },
    reject::{Link, ReplySettings, rate_limit::IcmpBucket},
    report::Budget,
    rules::{GateRules, Role},
    seed::Seed,
    session::{Flow, Session, SessionSlot},
};

/// A hash table whose entries are shared with other CPUs.
///
/// An entry stays readable for as long as its packet is being judged, but it may meanwhile be
/// removed and its memory given to another key: values carry a tag of their key where that matters.
pub trait HashTable<K, V> {
    /// The entry, to be read and changed in place. Other CPUs may change it at the same time: its
    /// fields are single words, and what has to be exact goes through
    /// [`Env::compare_exchange`] or [`Env::fetch_add`].
    #[expect(
        clippy::mut_from_ref,
        reason = "a kernel table hands out pointers into itself; see above for what guards them"
    )]
    fn find(&self, key: &K) -> Option<&mut V>;

    /// Adds an entry; false where the key is there already or the table is full.
    fn insert(&self, key: &K, value: &V) -> bool;

    /// Says whether it was there.
    fn remove(&self, key: &K) -> bool;
}

/// Clock, configuration and tables.
pub trait Env {
    /// ns of `CLOCK_MONOTONIC`, coarse.
    fn now(&self) -> u64;

    /// Count and report what would be denied, and deny nothing.
    fn monitor(&self) -> bool;

    /// Is a packet to `destination` the gate's business?
    fn guards<A: Address>(&self, destination: A) -> bool;

    /// Is `source` on the allow list?
    fn allows<A: Address>(&self, source: A) -> bool;

    /// Is `source` in one of the networks that may knock at `gate`? Asked for restricted gates.
    fn may_knock<A: Address>(&self, source: A, gate: u16) -> bool;

    fn role(&self, index: u32) -> Role;
    fn gate(&self, gate: u16) -> Option<&GateRules>;

    /// Does this gate reply to what it denies?
    fn rejects(&self, gate: u16) -> bool;

    fn sequence(&self, index: u32) -> Option<&Sequence>;
    fn state(&self, index: u32) -> Option<&State>;

    /// Where `symbol` leads from a `state` with several transitions, if that is anywhere but where it
    /// leads from the root.
    fn transition(&self, state: u32, symbol: u16) -> Option<u32>;

    /// The prefix lengths that this family's grants have, one a byte, whole addresses left out; 0
    /// ends the list.
    fn grant_lengths<A: Address>(&self) -> u64;

    fn seed(&self) -> Seed;

    /// A word of the filter in front of the grants; see [`filter`](crate::grant::filter). `index` is
    /// taken modulo their number.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn grant_filter(&self, index: u32) -> Option<&mut u64>;

    /// A set of sources; see [`ring`](crate::knock::ring). `index` is taken modulo their number.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn progress_set(&self, index: u32) -> Option<&mut ProgressSet>;
    /// A slot of the ring of sources, by a ticket: modulo their number.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn progress(&self, ticket: u32) -> Option<&mut Progress>;
    fn progress_slots(&self) -> u32;
    /// The next ticket for a slot.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn progress_cursor(&self) -> Option<&mut u32>;

    fn grants_v4(&self) -> &impl HashTable<GrantKey<V4>, Grant>;
    fn grants_v6(&self) -> &impl HashTable<GrantKey<V6>, Grant>;
    fn sessions_v4(&self) -> &impl HashTable<Flow<V4>, Session>;
    fn sessions_v6(&self) -> &impl HashTable<Flow<V6>, Session>;

    /// The next slot of the ring of grants to look at, with its index. No two callers get the same
    /// one until the ring has come round.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn next_grant_slot(&self) -> Option<(u32, &mut GrantSlot)>;

    /// The same for sessions.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn next_session_slot(&self) -> Option<(u32, &mut SessionSlot)>;

    /// A slot by its index.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn session_slot(&self, index: u32) -> Option<&mut SessionSlot>;
    fn session_slots(&self) -> u32;

    /// [`claim`](crate::session::remember::claim) and [`vacate`](crate::session::remember::vacate): in the kernel
    /// program functions that the verifier looks at once, and not wherever they are called.
    fn claim_session(&self, holder: u16, now: u64) -> u32;
    fn vacate_session(&self, index: u32, now: u64, bars: u64) -> bool;

    /// How many of these slots count to a holder.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn session_count(&self, holder: u16) -> Option<&mut u32>;

    /// Are all of this host's addresses known?
    fn knows_addresses(&self) -> bool;
    /// Returns what this address is to the host; see [`address_kind`](crate::reject::address_kind).
    fn address_kind<A: Address>(&self, address: A) -> u32;
    /// Does this host forward packets of `flow`?
    fn forwards<A: Address>(&self, flow: &Flow<A>) -> bool;

    /// The state of this host's TCP socket for `flow`, as [`socket`](crate::session::socket) names
    /// them.
    fn socket<A: Address>(&self, flow: &Flow<A>) -> u32;

    /// Is there a UDP socket of this host's for this datagram that is connected to its sender?
    fn is_connected<A: Address>(&self, datagram: &Segment<A>) -> bool;

    /// Stores `new` if `cell` still holds `current`; says whether it did.
    fn compare_exchange(&self, cell: &mut u64, current: u64, new: u64) -> bool;

    /// Adds one; returns what was there before.
    fn fetch_add(&self, cell: &mut u32) -> u32;

    /// Takes one away; returns what was there before.
    fn fetch_sub(&self, cell: &mut u32) -> u32;

    fn count_knock(&self, gate: u16, outcome: Outcome);

    /// The present second, by a clock that may be off by a third and has any epoch.
    fn second(&self) -> u64;

    /// What this CPU may still report of a [class](crate::report::class).
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn report_budget(&self, class: u32) -> Option<&mut Budget>;

    /// When the like of an event was last reported, ns of `CLOCK_MONOTONIC`, by [`subject`](crate::report::subject).
    /// It forgets the oldest.
    fn reported(&self) -> &impl HashTable<SourceKey, u64>;

    /// How this host replies to packets to its closed ports; `None` where it does not.
    fn reply_settings(&self) -> Option<&ReplySettings>;

    /// The interface that the packet arrived by, or a VLAN on it. `vlans`: outer first, 0 for none.
    fn reply_link(&self, vlans: [u16; 2]) -> Option<&Link>;

    /// The ICMP errors that each destination may still get. It forgets the oldest.
    fn icmp_buckets(&self) -> &impl HashTable<SourceKey, IcmpBucket>;

    /// A [`GlobalIcmpBucket`](crate::reject::rate_limit::GlobalIcmpBucket).
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn icmp_global(&self) -> Option<&mut u64>;

    fn random(&self) -> u32;

    /// Hands a report to user space. Returns false where there is no room: it never waits.
    fn send(&self, event: &Event) -> bool;
}

/// An address family with its tables.
pub trait Family: Address {
    fn grants<E: Env>(env: &E) -> &impl HashTable<GrantKey<Self>, Grant>;
    fn sessions<E: Env>(env: &E) -> &impl HashTable<Flow<Self>, Session>;
}

impl Family for V4 {
    #[inline(always)]
    fn grants<E: Env>(env: &E) -> &impl HashTable<GrantKey<Self>, Grant> {
        env.grants_v4()
    }

    #[inline(always)]
    fn sessions<E: Env>(env: &E) -> &impl HashTable<Flow<Self>, Session> {
        env.sessions_v4()
    }
}

impl Family for V6 {
    #[inline(always)]
    fn grants<E: Env>(env: &E) -> &impl HashTable<GrantKey<Self>, Grant> {
        env.grants_v6()
    }

    #[inline(always)]
    fn sessions<E: Env>(env: &E) -> &impl HashTable<Flow<Self>, Session> {
        env.sessions_v6()
    }
}
