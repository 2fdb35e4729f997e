//! The kernel tables.
//!
//! Sizes given here are those of an empty configuration; the loader sets the real ones. Tables that
//! a flood can reach are allocated whole when they are made, so that no traffic makes them grow.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, ProgramArray, RingBuf},
};
use knock_common::{
    cursor::{self, Cursor, Tickets},
    grant::Grant,
    keys::{ScopedAddress, SourceKey},
    knock::{
        Outcome,
        authenticated::{
            self,
            key::{HostSecret, Key, KeyGate, NAME},
            work::Work,
        },
        automaton::{Sequence, State, Transition},
        fwknop,
        progress::{Progress, ProgressSet},
    },
    layout::{CONFIG_CHUNK, Meta},
    next,
    reject::{Link, LinkKey, ReplySettings, rate_limit::IcmpBucket, reply::ReplyBuffer},
    report::{Budget, class},
    rules::{GateRules, ROLES},
    scattered::Room,
    session::{
        HOLDERS, HolderCount, Session,
        recent::{self, Recent},
    },
    set::Set,
    verdict::{Counter, Reason},
};

use crate::hash::LruHash;

// Configuration. The program never writes these; the loader makes new ones for a new configuration.

/// The [`Role`](knock_common::rules::Role) of each TCP and UDP port.
#[map]
pub static ROLE: Array<u32> = Array::with_max_entries(ROLES, 0);
#[map]
pub static GATE: Array<GateRules> = Array::with_max_entries(1, 0);
#[map]
pub static SEQUENCE: Array<Sequence> = Array::with_max_entries(1, 0);
#[map]
pub static STATE: Array<State> = Array::with_max_entries(1, 0);
#[map]
pub static TRANSITION: HashMap<Transition, u32> = HashMap::with_max_entries(1, 0);
/// The allow list.
#[map]
pub static ALLOW: LpmTrie<ScopedAddress, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
/// Networks that may knock at restricted gates.
#[map]
pub static KNOCKER: LpmTrie<ScopedAddress, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
/// The destinations of placed gates: of each, and of all.
#[map]
pub static PLACE: LpmTrie<ScopedAddress, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
/// The guarded destinations, if the configuration lists them.
#[map]
pub static GUARDED_ADDRESS: HashMap<ScopedAddress, u32> = HashMap::with_max_entries(1, 0);
/// Prefix lengths of grants, one a byte: of IPv4, then of IPv6.
#[map]
pub static GRANT_LENGTHS: Array<u64> = Array::with_max_entries(2, 0);
/// The configuration as it was applied, for commands that read it back. Not read here.
#[map]
pub static CONFIG: Array<[u8; CONFIG_CHUNK]> = Array::with_max_entries(1, 0);
#[map]
pub static META: Array<Meta> = Array::with_max_entries(1, 0);
/// The end of the trial of this configuration, ns of `CLOCK_MONOTONIC`; 0: it is on no trial.
#[map]
pub static DEADLINE: Array<u64> = Array::with_max_entries(1, 0);

/// The gates that each key opens.
#[map]
pub static KEY_GATE: HashMap<KeyGate, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
/// The names of keys, by slot, for commands. Not read here.
#[map]
pub static KEY_NAME: Array<[u8; NAME]> = Array::with_max_entries(1, 0);
/// This host's secret for authenticated knocks, and the one before it.
#[map]
pub static HOST_SECRET: Array<HostSecret> = Array::with_max_entries(HostSecret::COUNT as u32, 0);
/// What `CLOCK_TAI` is ahead of Unix time, ns.
#[map]
pub static CLOCK_OFFSET: Array<u64> = Array::with_max_entries(1, 0);

// State. Packets change it.

/// Sets of sources, which lead to their progress; see [`knock_common::knock::ring`]. An array that can be mapped begins at
/// a page, so each set is a cache line of its own.
#[map]
pub static PROGRESS_SET: Array<ProgressSet> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The ring of sources that knock.
#[map]
pub static PROGRESS: Array<Progress> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Keys, by slot, with the newest time of each.
#[map]
pub static KEY: Array<Key> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The grants of both families; see [`knock_common::grant::table`]. Commands map this and what follows, up to
/// [`SESSION_COUNT`], into their memory, to change it by atomic instructions, as the program does.
#[map]
pub static GRANT: Array<Grant> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Sets of keys, which lead to their grants.
#[map]
pub static GRANT_SET: Array<Set> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The filter in front of them; see [`knock_common::grant::filter`].
#[map]
pub static GRANT_FILTER: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The sessions of both families; see [`knock_common::session::table`].
#[map]
pub static SESSION: Array<Session> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// A word for each row of sessions, which leads to most of them; see [`knock_common::row`].
#[map]
pub static SESSION_ROW: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Sets of flows, which lead to the others.
#[map]
pub static SESSION_SET: Array<Set> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// How many session slots count to each holder; see [`knock_common::session`].
#[map]
pub static SESSION_COUNT: Array<HolderCount> =
    Array::with_max_entries(HOLDERS as u32, BPF_F_MMAPABLE);
/// What each CPU remembers of the flows that have just passed, one CPU after the other; see [`recent`]. Not a table of the
/// kernel's for each CPU, whose entries begin anywhere: an array that can be mapped begins at a page, so none is on two cache lines.
#[map]
pub static RECENT: Array<Recent> = Array::with_max_entries(recent::ENTRIES, BPF_F_MMAPABLE);
/// The cursor of the ring of sources.
#[map]
pub static PROGRESS_CURSOR: Array<Cursor> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The tickets of that ring that each CPU has taken; see [`Tickets`].
#[map]
pub static PROGRESS_TICKETS: PerCpuArray<Tickets> = PerCpuArray::with_max_entries(1, 0);
/// The cursors of the rings of slots; see [`cursor`]. An array that can be mapped begins at a page, so each is a cache
/// line of its own.
#[map]
pub static CURSOR: Array<Cursor> = Array::with_max_entries(cursor::COUNT, BPF_F_MMAPABLE);

// Counters and reports.

/// By [`knock_common::Verdict::counter`].
#[map]
pub static PACKETS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(Reason::COUNT as u32, 0);
/// By gate, then [`Outcome`].
#[map]
pub static KNOCKS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Outcome::COUNT as u32, 0);
/// By [`authenticated::outcome::Outcome`].
#[map]
pub static AUTHENTICATED: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(authenticated::outcome::Outcome::COUNT as u32, 0);
/// What smaller tables of counters held before they were replaced, over all CPUs. Not read here.
#[map]
pub static EARLIER_PACKETS: Array<Counter> = Array::with_max_entries(Reason::COUNT as u32, 0);
#[map]
pub static EARLIER_KNOCKS: Array<u64> = Array::with_max_entries(Outcome::COUNT as u32, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);
#[map]
pub static BUDGET: PerCpuArray<Budget> = PerCpuArray::with_max_entries(class::COUNT, 0);
/// When an event was last reported, ns of `CLOCK_MONOTONIC`, by [`knock_common::report::subject`].
#[map]
pub static REPORTED: LruHash<SourceKey, u64> = LruHash::with_max_entries(16384);

// Packets of fwknop's clients; see [`crate::fwknop`].

/// Datagrams that look like one.
#[map]
pub static FWKNOP: RingBuf = RingBuf::with_byte_size(4096, 0);
/// How many found no room there.
#[map]
pub static FWKNOP_OVERRUN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// What became of the others, by [`fwknop::Outcome`]. Not read here.
#[map]
pub static FWKNOP_COUNT: Array<u64> = Array::with_max_entries(fwknop::Outcome::COUNT as u32, 0);

/// Memory that a frame in several pieces is read into; see [`knock_common::scattered`].
#[map]
pub static SCATTERED: PerCpuArray<Room> = PerCpuArray::with_max_entries(1, 0);

/// What each CPU knows of the authenticated knock that it looks at.
#[map]
pub static KNOCK_WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Authenticated knocks that are [held](authenticated::held).
#[map]
pub static HELD: RingBuf = RingBuf::with_byte_size(4096, 0);

// This host.

/// This host's addresses, by [`knock_common::reject::address_kind`]; with [`ScopedAddress::COMPLETE`] if these are
/// all, and [`ScopedAddress::BRIDGED`] if other hosts' are behind a guarded interface.
#[map]
pub static LOCAL_ADDRESS: HashMap<ScopedAddress, u32> = HashMap::with_max_entries(1, 0);

/// The guarded bond that an interface is in, both by index.
#[map]
pub static BOND: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);

// What follows on an interface; see [`crate::next`].

/// The programs that packets of Ethernet interfaces go on to, by slot.
#[map]
pub static NEXT: ProgramArray = ProgramArray::with_max_entries(next::MOST as u32, 0);
/// The same for links without a header.
#[map]
pub static NEXT_IP: ProgramArray = ProgramArray::with_max_entries(next::MOST as u32, 0);
#[map]
pub static NEXT_INTERFACE: Array<next::Interfaces> = Array::with_max_entries(1, 0);

// Replies in place of a closed port; see [`crate::reject`].

#[map]
pub static REPLY_SETTINGS: Array<ReplySettings> = Array::with_max_entries(1, 0);
#[map]
pub static REPLY_LINK: HashMap<LinkKey, Link> = HashMap::with_max_entries(1, 0);
/// ICMP errors that each destination may still get.
#[map]
pub static ICMP_BUCKET: LruHash<SourceKey, IcmpBucket> = LruHash::with_max_entries(1);
/// The reply in the making.
#[map]
pub static REPLY: PerCpuArray<ReplyBuffer> = PerCpuArray::with_max_entries(1, 0);
/// ICMP errors that all destinations together may still get: [`knock_common::reject::rate_limit::GlobalIcmpBucket`].
#[map]
pub static ICMP_GLOBAL: Array<u64> = Array::with_max_entries(1, 0);
