//! Remembering a flow: which slot it claims, and which flow gives way if the table is full.

use super::{
    Flow, Tenancy, socket, state,
    table::{self, Beginning},
};
use crate::{
    Address, Env,
    address::{V4, V6},
    frame::{Segment, TCP},
    guarded::route,
    memory::read,
    row,
    seed::Seed,
    set::NO_SLOT,
};

/// In how many rows, from the cursor on, a new flow whose home row is full looks for a free slot. Until a table is nearly full,
/// it finds one.
const ROWS: u32 = 64;
/// How many slots, from the cursor on, it looks at if there is none, before it gives up. A prime, so that a slot is not looked at
/// in the same try each time the cursor comes around.
const TRIES: usize = 11;
/// How many of these before it takes one of a holder of more than its share that is not established. Anyone may have begun these
/// in the name of a source that has a grant.
const PATIENT: usize = 3;
/// How many of these before it takes any of such a holder.
const FIRM: usize = 6;
/// How many of these before it takes any that is not established.
const MODEST: usize = 8;

/// The part of the table that a source may hold without giving way, as a power of two below 1.
const SHARE: u32 = 6;

/// Remembers the flow of a packet that a grant has admitted. `initial`: its TCP client's initial sequence
/// number. Returns false if there is no room.
///
/// Functions are called one after the other, since nested calls share 512 bytes of stack.
#[inline(always)]
pub fn remember<E: Env, A: Address>(
    env: &E,
    segment: &Segment<A>,
    gate: u16,
    initial: u32,
) -> bool {
    if again(env, segment, gate, initial) {
        return true;
    }
    let newcomer = newcomer(env, segment, gate);
    if newcomer == NOBODY {
        return true;
    }
    let slot = env.claim_session((newcomer >> 32) as u32, newcomer as u16, env.now());
    slot != NO_SLOT && begin(env, segment, gate, initial, slot)
}

/// What [`newcomer`] returns if the flow is not to be remembered.
const NOBODY: u64 = u64::MAX;

/// Restarts the session of a flow that is remembered already. Returns false if it is not.
#[inline(never)]
fn again<E: Env, A: Address>(env: &E, segment: &Segment<A>, gate: u16, initial: u32) -> bool {
    let flow = Flow::of(segment);
    let Some(table::Found {
        session, tenancy, ..
    }) = table::find_except(env, &flow, None, NO_SLOT)
    else {
        return false;
    };
    // Usually the gate is the same, and the exchange changes nothing. It then proves that the slot still has this tenancy.
    let next = tenancy.with_gate(gate);
    if !env.compare_exchange(&mut session.tenancy.0, tenancy.0, next.0) {
        return false;
    }
    // The SYN may be forged, and the earlier connection continue.
    if session.is_closing() && !socket::is_open(env.socket(&flow)) {
        session.ending = 0;
    }
    session.last = env.now();
    session.granted = 0;
    session.initial = initial;
    // Another CPU may have taken it meanwhile.
    read(&session.tenancy) == next
}

/// Returns the holder to which the session of a new flow will count, and from the 32nd bit on the flow's
/// [first choice](row::first_choice) of a slot; or [`NOBODY`].
#[inline(never)]
fn newcomer<E: Env, A: Address>(env: &E, segment: &Segment<A>, gate: u16) -> u64 {
    let flow = Flow::of(segment);
    if is_foreign(env, &flow) {
        return NOBODY;
    }
    let choice = row::first_choice(flow.position(env.seed()), env.session_rows());
    u64::from(choice) << 32 | u64::from(holder(env, segment.source, gate))
}

/// Begins a session in the slot that has been claimed for it.
#[inline(never)]
fn begin<E: Env, A: Address>(
    env: &E,
    segment: &Segment<A>,
    gate: u16,
    initial: u32,
    slot: u32,
) -> bool {
    let beginning = Beginning {
        gate,
        initial,
        last: env.now(),
        // Its next packet will look the grant up.
        granted: 0,
        ending: 0,
    };
    let holder = holder(env, segment.source, gate);
    table::begin(env, slot, &Flow::of(segment), holder, &beginning)
}

/// Returns whether a flow goes to an address that is neither this host's nor one that it forwards to.
#[inline(always)]
fn is_foreign<E: Env, A: Address>(env: &E, flow: &Flow<A>) -> bool {
    env.knows_addresses()
        && env.address_kind(flow.destination) == 0
        && env.route(flow) != route::FORWARDED
}

/// Returns the holder to whose share a flow counts.
#[inline(always)]
pub(super) fn holder<E: Env, A: Address>(env: &E, source: A, gate: u16) -> u16 {
    let to_prefix = env.gate(gate).is_some_and(|rules| rules.to_prefix != 0);
    holder_of(source, to_prefix, env.seed())
}

/// Returns the holder to whose share a flow from `source` counts. `to_prefix`: the gate gives its grants to prefixes.
#[inline(always)]
pub fn holder_of<A: Address>(source: A, to_prefix: bool, seed: Seed) -> u16 {
    let source = if to_prefix {
        source.masked(A::PREFIX)
    } else {
        source
    };
    let scope = u64::from(A::FAMILY) | u64::from(to_prefix) << 8;
    // The higher bits are the better ones. Without the seed nobody can choose sources with the same holder.
    (seed.hash(source.padded(), scope) >> 48) as u16
}

/// Returns how many slots a holder has.
#[inline(always)]
pub(super) fn held<E: Env>(env: &E, holder: u16) -> u32 {
    env.session_count(holder).map_or(0, |held| *held)
}

/// How many slots a holder must have at least to give way.
#[derive(Clone, Copy)]
struct Bars {
    /// With a flow that is not established.
    loose: u32,
    /// With any flow.
    established: u32,
}

impl Bars {
    /// No holder gives way.
    const NONE: Self = Self {
        loose: u32::MAX,
        established: u32::MAX,
    };

    #[inline(always)]
    const fn pack(self) -> u64 {
        // Widening; `From` is not const.
        (self.established as u64) << 32 | self.loose as u64
    }

    #[inline(always)]
    const fn unpack(packed: u64) -> Self {
        Self {
            loose: packed as u32,
            established: (packed >> 32) as u32,
        }
    }

    /// Returns the bars in try number `tried` of a holder with `held` of all `slots`.
    #[inline(always)]
    fn at(tried: usize, held: u32, slots: u32) -> Self {
        if tried < PATIENT {
            return Self::NONE;
        }
        let share = (slots >> SHARE).max(1);
        let established = if tried < FIRM {
            u32::MAX
        } else {
            held.max(share) + 1
        };
        let loose = if tried < MODEST {
            held.max(share + 1)
        } else {
            held
        };
        Self { loose, established }
    }
}

/// Claims a slot for a flow of `holder` with this [first choice](row::first_choice): one that is unused, or whose session has
/// ended or gives way. Returns its index, or [`NO_SLOT`]. The caller holds it.
///
/// First in the home row, where the flow's packets find it at once.
#[inline(always)]
pub fn claim<E: Env>(env: &E, choice: u32, holder: u16, now: u64) -> u32 {
    let slot = env.take_free_session(choice);
    if slot != NO_SLOT {
        return slot;
    }
    for slot in row::slots(choice) {
        if env.vacate_session(slot, now, Bars::NONE.pack()) {
            return slot;
        }
    }
    let Some(first) = env.next_session_slot() else {
        return NO_SLOT;
    };
    let rows = env.session_rows();
    let slot = elsewhere(env, first.checked_rem(rows).unwrap_or(0), rows);
    if slot != NO_SLOT {
        return slot;
    }
    let held = held(env, holder);
    let slots = env.session_slots();
    let mut slot = first;
    for tried in 0..TRIES {
        if tried > 0 {
            let Some(next) = env.next_session_slot() else {
                break;
            };
            slot = next;
        }
        let bars = Bars::at(tried, held, slots).pack();
        if env.vacate_session(slot, now, bars) {
            return slot;
        }
    }
    NO_SLOT
}

/// Takes a free slot in one of [`ROWS`] rows, from this one on. Returns its index, or [`NO_SLOT`].
#[inline(always)]
fn elsewhere<E: Env>(env: &E, mut row: u32, rows: u32) -> u32 {
    for _ in 0..ROWS {
        let slot = env.take_free_session(row * row::SLOTS);
        if slot != NO_SLOT {
            return slot;
        }
        row += 1;
        if row >= rows {
            row = 0;
        }
    }
    NO_SLOT
}

/// Takes the slot with this index, if its session has ended or gives way, or there is none. Returns whether the caller holds
/// it. `bars`: `Bars`, packed.
#[inline(always)]
pub fn vacate<E: Env>(env: &E, slot: u32, now: u64, bars: u64) -> bool {
    let Some(session) = env.session(slot) else {
        return false;
    };
    let tenancy = read(&session.tenancy);
    let session = env.read_after(session, tenancy.0);
    let idle = session.idle(now);
    let bars = Bars::unpack(bars);
    let is_free = match tenancy.state() {
        state::UNUSED | state::ENDED => true,
        state::HELD => false,
        V4::FAMILY => may_go(env, &session.flow::<V4>(), tenancy, idle, bars),
        _ => may_go(env, &session.flow::<V6>(), tenancy, idle, bars),
    };
    // If another flow has been given the slot since, that fails.
    is_free && table::take(env, slot, tenancy)
}

/// Returns whether a session has ended or gives way.
#[inline(always)]
fn may_go<E: Env, A: Address>(
    env: &E,
    flow: &Flow<A>,
    tenancy: Tenancy,
    idle: u64,
    bars: Bars,
) -> bool {
    let ended = env
        .gate(tenancy.gate())
        .is_none_or(|rules| idle >= rules.session_idle);
    ended || gives_way(env, flow, held(env, tenancy.holder()), bars)
}

/// Returns whether a flow gives way whose holder has `held` slots. The host is asked only if that decides.
#[inline(always)]
fn gives_way<E: Env, A: Address>(env: &E, flow: &Flow<A>, held: u32, bars: Bars) -> bool {
    if held < bars.loose {
        return false;
    }
    if held >= bars.established {
        return true;
    }
    flow.protocol != u32::from(TCP) || !socket::is_established(env.socket(flow))
}
