//! The kernel tables and the constants that user space sets before it loads the program.
//!
//! Sizes given here are those of an empty configuration; the loader sets the real ones. Tables that
//! a flood can reach are allocated whole when they are made, so that no traffic makes them grow.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use knock_common::{
    address::{V4, V6},
    answer::Scratch,
    knock::Outcome,
    presence::Seed,
    scattered::Room,
    table::{
        Budget, CONFIG_CHUNK, Counter, Cursor, Flow, GateRules, Grant, GrantKey, GrantSlot,
        HOLDERS, Habits, Link, LinkKey, Meta, Network, Owed, Progress, ProgressSet, ROLES,
        Sequence, Session, SessionSlot, SourceKey, State, Transition, class, cursor,
    },
    verdict::Reason,
};

use crate::tables::Hash;

// What the configuration says. Read once a packet and by nobody written: the loader makes new ones
// for a new configuration.

/// What each TCP and UDP port is to the gate; see [`knock_common::table::Role`].
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
pub static ALLOW: LpmTrie<Network, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
/// Who may knock at which restricted gate.
#[map]
pub static KNOCKER: LpmTrie<Network, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
/// Destinations that are guarded, where not all are.
#[map]
pub static ADDRESS: HashMap<Network, u32> = HashMap::with_max_entries(1, 0);
/// Prefix lengths of grants, one a byte; IPv4's, then IPv6's.
#[map]
pub static LENGTHS: Array<u64> = Array::with_max_entries(2, 0);
/// The configuration as it was applied, for the commands that look at the gate. Not read here.
#[map]
pub static CONFIG: Array<[u8; CONFIG_CHUNK]> = Array::with_max_entries(1, 0);
#[map]
pub static META: Array<Meta> = Array::with_max_entries(1, 0);

// What packets change.

/// Where each source's progress is; see [`knock_common::progress`]. An array that can be mapped begins at
/// a page, so each set has a line of the processor's cache to itself.
#[map]
pub static PROGRESS_SET: Array<ProgressSet> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The ring of sources that knock.
#[map]
pub static PROGRESS: Array<Progress> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static GRANT4: Hash<GrantKey<V4>, Grant> = Hash::with_max_entries(1);
#[map]
pub static GRANT6: Hash<GrantKey<V6>, Grant> = Hash::with_max_entries(1);
/// Who may have a grant; see [`knock_common::presence`]. Other commands map it into their memory, to
/// change it by atomic instructions as is done here.
#[map]
pub static PRESENCE: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static GRANT_SLOT: Array<GrantSlot> = Array::with_max_entries(1, 0);
#[map]
pub static SESSION4: Hash<Flow<V4>, Session> = Hash::with_max_entries(1);
#[map]
pub static SESSION6: Hash<Flow<V6>, Session> = Hash::with_max_entries(1);
#[map]
pub static SESSION_SLOT: Array<SessionSlot> = Array::with_max_entries(1, 0);
/// How many slots of sessions count to each holder; see [`knock_common::session`].
#[map]
pub static HELD: Array<u32> = Array::with_max_entries(HOLDERS as u32, 0);
/// Where the rings are: [`cursor`]. An array that can be mapped begins at a page, so each has a line of the
/// processor's cache to itself.
#[map]
pub static CURSOR: Array<Cursor> = Array::with_max_entries(cursor::COUNT, BPF_F_MMAPABLE);

// What is counted and reported.

/// By [`knock_common::Verdict::counter`].
#[map]
pub static PACKETS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(Reason::COUNT as u32, 0);
/// By gate, then [`Outcome`].
#[map]
pub static KNOCKS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Outcome::COUNT, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);
#[map]
pub static BUDGET: PerCpuArray<Budget> = PerCpuArray::with_max_entries(class::COUNT, 0);
/// When the like of an event was last reported, ns of `CLOCK_MONOTONIC`: see [`knock_common::report`].
#[map]
pub static REPORTED: LruHashMap<SourceKey, u64> = LruHashMap::with_max_entries(16384, 0);

/// What a frame in several buffers is read into: see [`crate::scattered`].
#[map]
pub static SCATTERED: PerCpuArray<Room> = PerCpuArray::with_max_entries(1, 0);

// What this host is.

/// [`knock_common::table::standing`] of addresses, and [`Network::COMPLETE`] where these are all.
#[map]
pub static LOCAL: HashMap<Network, u32> = HashMap::with_max_entries(1, 0);

// What answers in place of a closed port need: see [`crate::answer`].

#[map]
pub static HABITS: Array<Habits> = Array::with_max_entries(1, 0);
#[map]
pub static DEVICE: HashMap<LinkKey, Link> = HashMap::with_max_entries(1, 0);
/// ICMP errors owed to each destination, and to all of them: [`knock_common::answer::Pool`].
#[map]
pub static OWED: LruHashMap<SourceKey, Owed> = LruHashMap::with_max_entries(1, 0);
/// Where an answer is made.
#[map]
pub static ANSWER: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static POOL: Array<u64> = Array::with_max_entries(1, 0);

/// Constants of one configuration. They stand in read-only data, so the verifier drops the code
/// that they switch off.
macro_rules! setting {
    ($(#[$doc:meta])* $name:ident, $read:ident) => {
        setting!($(#[$doc])* $name, $read, u32, 0);
    };
    ($(#[$doc:meta])* $name:ident, $read:ident, $type:ty, $empty:expr) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        static $name: $type = $empty;

        $(#[$doc])*
        #[inline(always)]
        pub fn $read() -> $type {
            // SAFETY: a static that is there for good; volatile, since the loader replaces what
            // the compiler believes to be its value.
            unsafe { core::ptr::read_volatile(&raw const $name) }
        }
    };
}

setting!(
    /// 1: deny nothing.
    MONITOR, monitor
);
setting!(
    /// 1: the allow list has entries.
    HAS_ALLOW, has_allow
);
setting!(
    /// 1: only the addresses in [`ADDRESS`] are guarded.
    HAS_ADDRESS, has_address
);
setting!(
    /// Binary logarithm of the number of timer ticks in a second, to the nearest.
    TICK_BITS, tick_bits
);
setting!(
    /// Entries of [`GRANT_SLOT`].
    GRANT_SLOTS, grant_slots
);
setting!(
    /// Entries of [`SESSION_SLOT`].
    SESSION_SLOTS, session_slots
);
setting!(
    /// 1: some gate rejects.
    REJECTS, rejects
);
setting!(
    /// Entries of [`PRESENCE`] less one: all bits set below a power of two.
    PRESENCE_MASK, presence_mask
);
setting!(
    /// Entries of [`PROGRESS`], a power of two.
    PROGRESS_PLACES, progress_places
);
setting!(
    /// What places in [`PRESENCE`] and [`PROGRESS_SET`] depend on.
    SEED, seed, Seed, Seed::NONE
);
