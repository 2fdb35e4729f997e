//! Constants of one configuration, which the loader sets before it loads the program.

use knock_common::seed::Seed;

#[cfg(doc)]
use crate::maps;

/// Defines a constant in read-only data. The verifier knows its value, and drops the code that it switches off.
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
    /// 1: the configuration may be on trial; see [`DEADLINE`](maps::DEADLINE).
    TRIAL, trial
);
setting!(
    /// 1: the allow list has entries.
    HAS_ALLOW, has_allow
);
setting!(
    /// 1: some gate has destinations of its own.
    HAS_PLACES, has_places
);
setting!(
    /// The shortest `session_idle` of all gates, ns.
    LEAST_IDLE, least_idle, u64, 0
);
setting!(
    /// One of [`which`](knock_common::guarded::which).
    GUARDED, guarded
);
setting!(
    /// 1: some port takes authenticated knocks.
    TAKES_AUTHENTICATED, takes_authenticated
);
setting!(
    /// 1: what an authenticated knock opens is [held](knock_common::knock::authenticated::held).
    HOLDS_KNOCKS, holds_knocks
);
setting!(
    /// How old an authenticated knock may be, ns.
    MAX_AGE, max_age, u64, 0
);
setting!(
    /// How far ahead of this host's clock it may be, ns.
    MAX_AHEAD, max_ahead, u64, 0
);
setting!(
    /// Binary logarithm of the number of timer ticks in a second, to the nearest.
    TICK_BITS, tick_bits
);
setting!(
    /// Entries of [`GRANT`](maps::GRANT).
    GRANT_SLOTS, grant_slots
);
setting!(
    /// Entries of [`SESSION`](maps::SESSION).
    SESSION_SLOTS, session_slots
);
setting!(
    /// Entries of [`SESSION_ROW`](maps::SESSION_ROW).
    SESSION_ROWS, session_rows
);
setting!(
    /// 1: some gate rejects.
    REJECTS, rejects
);
setting!(
    /// 1: clients of fwknop may open a gate.
    HAS_FWKNOP, has_fwknop
);
setting!(
    /// One of [`slot`](knock_common::next::slot).
    NEXT_SLOT, next
);
setting!(
    /// [`slot_mask`](knock_common::set::slot_mask) of [`GRANT`](maps::GRANT), from which follow the entries of
    /// [`GRANT_SET`](maps::GRANT_SET) and [`GRANT_FILTER`](maps::GRANT_FILTER).
    GRANT_SLOT_MASK, grant_slot_mask
);
setting!(
    /// [`slot_mask`](knock_common::set::slot_mask) of [`SESSION`](maps::SESSION), from which follow the entries of
    /// [`SESSION_SET`](maps::SESSION_SET).
    SESSION_SLOT_MASK, session_slot_mask
);
setting!(
    /// Entries of [`PROGRESS`](maps::PROGRESS), a power of two.
    PROGRESS_SLOTS, progress_slots
);
setting!(
    /// Key of the hash that leads to entries of [`GRANT_FILTER`](maps::GRANT_FILTER), [`GRANT_SET`](maps::GRANT_SET),
    /// [`SESSION_ROW`](maps::SESSION_ROW), [`SESSION_SET`](maps::SESSION_SET) and [`PROGRESS_SET`](maps::PROGRESS_SET).
    SEED, seed, Seed, Seed::NONE
);
