//! Remembering a flow: which slot it claims, and which flow gives way if the table is full.

use super::{Flow, SLOT_SHIFT, Session, SessionSlot, note, socket, state};
use crate::{
    Address, Env, Family, HashTable as _,
    address::{V4, V6},
    frame::{Segment, TCP},
    guarded::route,
    seed::Seed,
};

/// How many slots a new flow looks at before it gives up. A prime, so that a slot is not looked at in the same try each
/// time the ring wraps around.
const TRIES: usize = 11;
/// How many of these before it takes one of a holder of more than its share.
const PATIENT: usize = 3;
/// How many of these before it takes any that is not established.
const MODEST: usize = 8;

/// What [`claim`] returns if there is no slot: more than there are.
pub const NO_SLOT: u32 = u32::MAX;

/// The part of the table that a source may hold without giving way, as a power of two below 1.
const SHARE: u32 = 6;

/// Remembers the flow of a packet that a grant has admitted. `initial`: its TCP client's initial sequence
/// number. Returns false if there is no room.
///
/// Three functions are called one after the other, since nested calls share 512 bytes of stack.
#[inline(always)]
pub fn remember<E: Env, A: Family>(env: &E, segment: &Segment<A>, gate: u16, initial: u32) -> bool {
    let holder = again(env, segment, gate, initial);
    if holder == NOBODY {
        return true;
    }
    let slot = env.claim_session(holder as u16, env.now());
    slot != NO_SLOT && begin(env, segment, gate, initial, slot)
}

/// What [`again`] returns if there is no slot to claim.
const NOBODY: u32 = u32::MAX;

/// Restarts the session of a flow that is remembered already. Returns [`NOBODY`] if nothing is left to do, or else the
/// holder to which the new session will count.
#[inline(never)]
fn again<E: Env, A: Family>(env: &E, segment: &Segment<A>, gate: u16, initial: u32) -> u32 {
    let flow = Flow::of(segment);
    if let Some(session) = A::sessions(env).find(&flow)
        && session.tag == flow.tag()
    {
        // The SYN may be forged, and the earlier connection continue.
        if session.closing != 0 && !socket::is_open(env.socket(&flow)) {
            session.closing = 0;
        }
        session.last = env.now();
        session.granted_until = 0;
        session.initial = initial;
        session.gate = gate;
        session.more = 0;
        note(env, session, session.closing);
        return NOBODY;
    }
    if is_foreign(env, &flow) {
        return NOBODY;
    }
    u32::from(holder(env, segment.source, gate))
}

/// Inserts a new session with the slot that has been claimed for it.
#[inline(never)]
fn begin<E: Env, A: Family>(
    env: &E,
    segment: &Segment<A>,
    gate: u16,
    initial: u32,
    index: u32,
) -> bool {
    let flow = Flow::of(segment);
    let holder = holder(env, segment.source, gate);
    let now = env.now();
    let Some(slot) = env.session_slot(index) else {
        return false;
    };
    *slot = SessionSlot {
        source: flow.source.padded(),
        destination: flow.destination.padded(),
        source_port: flow.source_port,
        destination_port: flow.destination_port,
        holder,
        protocol: flow.protocol as u8,
        family: A::FAMILY,
        last: (now >> SLOT_SHIFT) as u32,
        gate,
        state: state::OPEN,
        zero: 0,
    };
    if let Some(held) = env.session_count(holder) {
        env.fetch_add(held);
    }
    A::sessions(env).insert(
        &flow,
        &Session {
            last: now,
            tag: flow.tag(),
            // Its next packet will look the grant up.
            granted_until: 0,
            initial,
            slot: index,
            gate,
            more: 0,
            closing: 0,
            ending: 0,
        },
    )
}

/// Returns whether a flow goes to an address that is neither this host's nor one that it forwards to.
#[inline(always)]
fn is_foreign<E: Env, A: Family>(env: &E, flow: &Flow<A>) -> bool {
    env.knows_addresses()
        && env.address_kind(flow.destination) == 0
        && env.route(flow) != route::FORWARDED
}

/// Returns the holder to whose share a flow counts.
#[inline(always)]
pub(super) fn holder<E: Env, A: Family>(env: &E, source: A, gate: u16) -> u16 {
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
        let established = held.max(share) + 1;
        let loose = if tried < MODEST {
            held.max(share + 1)
        } else {
            held
        };
        Self { loose, established }
    }
}

/// Claims a slot for a flow of `holder`: an unused one, one whose owner has ended, or one whose owner gives way. Returns
/// its index, or [`NO_SLOT`].
#[inline(always)]
pub fn claim<E: Env>(env: &E, holder: u16, now: u64) -> u32 {
    let held = held(env, holder);
    let slots = env.session_slots();
    for tried in 0..TRIES {
        let Some((index, slot)) = env.next_session_slot() else {
            return NO_SLOT;
        };
        let bars = Bars::at(tried, held, slots).pack();
        if slot.family == 0 {
            return index;
        }
        if env.vacate_session(index, now, bars) {
            if let Some(held) = env.session_count(slot.holder) {
                env.fetch_sub(held);
            }
            return index;
        }
    }
    NO_SLOT
}

/// Returns whether the slot with this index is free, after removing its owner if that has ended or gives way. `bars`:
/// `Bars`, packed.
#[inline(always)]
pub fn vacate<E: Env>(env: &E, index: u32, now: u64, bars: u64) -> bool {
    let Some(slot) = env.session_slot(index) else {
        return false;
    };
    let bars = Bars::unpack(bars);
    match slot.family {
        4 => vacate_of::<E, V4>(env, slot, index, now, bars),
        6 => vacate_of::<E, V6>(env, slot, index, now, bars),
        _ => true,
    }
}

#[inline(always)]
fn vacate_of<E: Env, A: Family>(
    env: &E,
    slot: &SessionSlot,
    index: u32,
    now: u64,
    bars: Bars,
) -> bool {
    let flow = slot.flow::<A>();
    let sessions = A::sessions(env);
    let Some(owner) = sessions.find(&flow) else {
        return true;
    };
    if owner.slot != index || owner.tag != flow.tag() {
        return true;
    }
    let idle = owner.idle(now);
    let ended = env
        .gate(owner.gate)
        .is_none_or(|rules| idle >= rules.session_idle);
    let free = ended || gives_way(env, &flow, held(env, slot.holder), bars);
    if free {
        sessions.remove(&flow);
    }
    free
}

/// Returns whether a flow gives way whose holder has `held` slots. The host is asked only if that decides.
#[inline(always)]
fn gives_way<E: Env, A: Family>(env: &E, flow: &Flow<A>, held: u32, bars: Bars) -> bool {
    if held < bars.loose {
        return false;
    }
    if held >= bars.established {
        return true;
    }
    flow.protocol != u32::from(TCP) || !socket::is_established(env.socket(flow))
}
