//! Sessions: flows that began under a grant and go on past it (`established = "keep"`).
//!
//! They end when the host has closed its socket, or after `session_idle` without a packet. A ring of
//! slots bounds their number as it does for grants; where it is full, a new flow lives as long as its
//! grant does.
//!
//! The program sees one direction only, and any packet may be forged. So what a flow is, it asks the
//! host, never the packets:
//!
//! - Once a FIN or RST has come, each packet behind it passes only while the host still has a socket for
//!   the flow. Where the host has not honoured it, the flow is as before after `SETTLED`.
//! - A flow counts as established where the host has a socket of its own for it, past the handshake. That
//!   is asked when the table is full and somebody has to give way.
//!
//! A flow that the host forwards has no socket here, nor has one of UDP. These never count as established,
//! and end by being idle alone. A flow to an address that the host neither has nor forwards to is not
//! remembered.
//!
//! **Shares.** Each slot counts to its source (with `grant_to = "prefix"`: to the source's prefix) until
//! it is taken again. Where the table is full, a source that holds more of it than `SHARE` gives way to
//! one that holds less: its established flows too. Others give way only with flows that are not
//! established, and only to a source that holds no more than they do. So a source that fills the table
//! pushes out its own flows, and everyone else finds room.

use crate::{
    Address, Kernel, Table,
    address::{V4, V6},
    frame::{Segment, TCP, flag},
    table::{Flow, GateRules, Session, SessionSlot, TICK_SHIFT},
};

/// How many slots a new flow looks at before it gives up. A prime, so that where one after the other
/// gives up, a slot is not found at the same turn each time the ring comes round.
const TRIES: usize = 11;
/// How many of these before it takes one of a source with more than its share.
const PATIENT: usize = 3;
/// How many of these before it takes any that is not established.
const MODEST: usize = 8;

/// What [`claim`] returns where there is no slot: more than there are.
pub const NO_SLOT: u32 = u32::MAX;

/// The part of the table that a source may hold without giving way, as a power of two below 1.
const SHARE: u32 = 6;

/// After a FIN or RST the host is asked for so long at least, in units of 2^[`TICK_SHIFT`] ns: a second.
/// Until then it may not yet have looked at it.
const SETTLED: u32 = 1_000_000_000 >> TICK_SHIFT;

/// States of a TCP socket, by the numbers of Linux (`include/net/tcp_states.h`).
pub mod socket {
    /// There is none.
    pub const NONE: u32 = 0;
    pub const ESTABLISHED: u32 = 1;
    pub const SYN_SENT: u32 = 2;
    /// By way of TCP Fast Open, before the handshake is over.
    pub const SYN_RECEIVED: u32 = 3;
    pub const TIME_WAIT: u32 = 6;
    pub const CLOSE: u32 = 7;
    /// It waits for connections, and has none of this flow's.
    pub const LISTEN: u32 = 10;
    /// Half open: the host has answered the SYN.
    pub const REQUESTED: u32 = 12;

    /// Has it ever been this flow's own?
    #[inline(always)]
    pub const fn knows_flow(state: u32) -> bool {
        !matches!(state, NONE | CLOSE | LISTEN)
    }

    /// Is there anything left to say on it?
    #[inline(always)]
    pub const fn is_open(state: u32) -> bool {
        knows_flow(state) && state != TIME_WAIT
    }

    /// Is there, and is the handshake over?
    #[inline(always)]
    pub const fn is_established(state: u32) -> bool {
        is_open(state) && !matches!(state, SYN_SENT | SYN_RECEIVED | REQUESTED)
    }
}

/// The session of `flow` at `gate`, unless it has been idle for the gate's `session_idle` or more; and
/// the time, which is read once there is something to compare it with.
#[inline(always)]
pub fn find<'k, K: Kernel, A: Address>(
    kernel: &'k K,
    flow: &Flow<A>,
    gate: u16,
    rules: &GateRules,
) -> Option<(&'k mut Session, u64)> {
    let session = A::sessions(kernel).find(flow)?;
    let now = kernel.now();
    let idle = session.idle(now);
    let ours = session.tag == flow.tag() && session.gate == gate;
    (ours && idle < rules.session_idle).then_some((session, now))
}

/// Is a SYN with these flags and this sequence number the one again that began the session? Not behind
/// any other packet of the flow: then its connection may have been established and reset, and the host
/// would take the SYN for a new one.
#[inline(always)]
pub const fn retransmits(session: &Session, flags: u8, sequence: u32) -> bool {
    session.more == 0 && session.initial == sequence && flags & (flag::RST | flag::FIN) == 0
}

/// Notes that a packet has come that is no SYN.
#[inline(always)]
pub const fn note_more(session: &mut Session) {
    // Written once: a flow's packets may come to several CPUs.
    if session.more == 0 {
        session.more = 1;
    }
}

/// Notes what a packet with these TCP flags means to its session; false where it is over.
#[inline(always)]
pub fn goes_on<K: Kernel, A: Address>(
    kernel: &K,
    flow: &Flow<A>,
    session: &mut Session,
    flags: u8,
    now: u64,
) -> bool {
    note_more(session);
    let ends = flags & (flag::FIN | flag::RST) != 0;
    if session.closing == 0 && !ends {
        return true;
    }
    let state = kernel.socket(flow);
    let time = (now >> TICK_SHIFT) as u32;
    if session.closing != 0 {
        if !socket::is_open(state) {
            A::sessions(kernel).remove(flow);
            return false;
        }
        let settled = time.wrapping_sub(session.ending) >= SETTLED;
        if settled && !ends && state == socket::ESTABLISHED {
            session.closing = 0;
        }
    }
    if ends && socket::knows_flow(state) {
        session.closing = 1;
        session.ending = time;
    }
    true
}

/// Notes that the grant of a flow lives until `granted_until`.
#[inline(always)]
pub fn renew<K: Kernel, A: Address>(kernel: &K, flow: &Flow<A>, granted_until: u64) {
    if let Some(session) = A::sessions(kernel).find(flow)
        && session.tag == flow.tag()
    {
        session.granted_until = granted_until;
    }
}

/// Remembers the flow of a packet that a grant has admitted. `initial`: its TCP client's initial sequence
/// number. False where there is no room.
///
/// In three functions, one behind the other: all that is called one within the other shares 512 bytes of
/// stack.
#[inline(always)]
pub fn remember<K: Kernel, A: Address>(
    kernel: &K,
    segment: &Segment<A>,
    gate: u16,
    initial: u32,
) -> bool {
    let holder = again(kernel, segment, gate, initial);
    if holder == NOBODY {
        return true;
    }
    let slot = kernel.claim_session(holder as u16, kernel.now());
    slot != NO_SLOT && begin(kernel, segment, gate, initial, slot)
}

/// What [`again`] returns where there is no slot to take.
const NOBODY: u32 = u32::MAX;

/// Remembers a flow where it is known already. Returns whose share it will count to where it is not, and
/// [`NOBODY`] where there is nothing left to do.
#[inline(never)]
fn again<K: Kernel, A: Address>(kernel: &K, segment: &Segment<A>, gate: u16, initial: u32) -> u32 {
    let flow = Flow::of(segment);
    if let Some(session) = A::sessions(kernel).find(&flow)
        && session.tag == flow.tag()
    {
        // The SYN may be forged, and the connection that was there go on.
        if session.closing != 0 && !socket::is_open(kernel.socket(&flow)) {
            session.closing = 0;
        }
        session.last = kernel.now();
        session.granted_until = 0;
        session.initial = initial;
        session.gate = gate;
        session.more = 0;
        return NOBODY;
    }
    if is_foreign(kernel, &flow) {
        return NOBODY;
    }
    u32::from(holder(kernel, segment.source, gate))
}

/// Puts a new flow into the slot that has been claimed for it.
#[inline(never)]
fn begin<K: Kernel, A: Address>(
    kernel: &K,
    segment: &Segment<A>,
    gate: u16,
    initial: u32,
    index: u32,
) -> bool {
    let flow = Flow::of(segment);
    let holder = holder(kernel, segment.source, gate);
    let Some(slot) = kernel.session_slot(index) else {
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
    };
    if let Some(held) = kernel.held(holder) {
        kernel.fetch_add(held);
    }
    A::sessions(kernel).insert(
        &flow,
        &Session {
            last: kernel.now(),
            tag: flow.tag(),
            // Its next packet will look for it.
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

/// Does it go to an address that is neither this host's nor one that it forwards to?
#[inline(always)]
fn is_foreign<K: Kernel, A: Address>(kernel: &K, flow: &Flow<A>) -> bool {
    kernel.knows_addresses() && !kernel.has_address(flow.destination) && !kernel.forwards(flow)
}

/// Whose share a flow counts to.
#[inline(always)]
fn holder<K: Kernel, A: Address>(kernel: &K, source: A, gate: u16) -> u16 {
    let to_prefix = kernel.gate(gate).is_some_and(|rules| rules.to_prefix != 0);
    let source = if to_prefix {
        source.masked(A::PREFIX)
    } else {
        source
    };
    let scope = u64::from(A::FAMILY) | u64::from(to_prefix) << 8;
    // Its higher bits are the better ones. Nobody can choose sources that have the same.
    (kernel.seed().hash(source.padded(), scope) >> 48) as u16
}

/// How many slots a holder has.
#[inline(always)]
fn held<K: Kernel>(kernel: &K, holder: u16) -> u32 {
    kernel.held(holder).map_or(0, |held| *held)
}

/// How many slots a holder must have to give way.
#[derive(Clone, Copy)]
struct Bars {
    /// With a flow that is not established.
    loose: u32,
    /// With any flow.
    established: u32,
}

impl Bars {
    /// Nobody must.
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

    /// At the try with this number, for somebody who holds so many of `slots`.
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

/// Takes a slot for a flow of `holder`, whose former owner has ended or, where none has, gives way. Returns
/// its index, or [`NO_SLOT`].
#[inline(always)]
pub fn claim<K: Kernel>(kernel: &K, holder: u16, now: u64) -> u32 {
    let held = held(kernel, holder);
    let slots = kernel.session_slots();
    for tried in 0..TRIES {
        let Some((index, slot)) = kernel.next_session_slot() else {
            return NO_SLOT;
        };
        let bars = Bars::at(tried, held, slots).pack();
        if slot.family == 0 {
            return index;
        }
        if kernel.vacate_session(index, now, bars) {
            if let Some(held) = kernel.held(slot.holder) {
                kernel.fetch_sub(held);
            }
            return index;
        }
    }
    NO_SLOT
}

/// Is the slot with this index free, or could it be freed? `bars`: `Bars`, packed.
#[inline(always)]
pub fn vacate<K: Kernel>(kernel: &K, index: u32, now: u64, bars: u64) -> bool {
    let Some(slot) = kernel.session_slot(index) else {
        return false;
    };
    let bars = Bars::unpack(bars);
    match slot.family {
        4 => vacate_of::<K, V4>(kernel, slot, index, now, bars),
        6 => vacate_of::<K, V6>(kernel, slot, index, now, bars),
        _ => true,
    }
}

#[inline(always)]
fn vacate_of<K: Kernel, A: Address>(
    kernel: &K,
    slot: &SessionSlot,
    index: u32,
    now: u64,
    bars: Bars,
) -> bool {
    let flow = Flow::<A> {
        source: A::unpadded(slot.source),
        destination: A::unpadded(slot.destination),
        source_port: slot.source_port,
        destination_port: slot.destination_port,
        protocol: u32::from(slot.protocol),
    };
    let sessions = A::sessions(kernel);
    let Some(owner) = sessions.find(&flow) else {
        return true;
    };
    if owner.slot != index || owner.tag != flow.tag() {
        return true;
    }
    let idle = owner.idle(now);
    let ended = kernel
        .gate(owner.gate)
        .is_none_or(|rules| idle >= rules.session_idle);
    let free = ended || gives_way(kernel, &flow, held(kernel, slot.holder), bars);
    if free {
        sessions.remove(&flow);
    }
    free
}

/// Must a flow make room, whose holder has so many slots? The host is asked only where that decides.
#[inline(always)]
fn gives_way<K: Kernel, A: Address>(kernel: &K, flow: &Flow<A>, held: u32, bars: Bars) -> bool {
    if held < bars.loose {
        return false;
    }
    if held >= bars.established {
        return true;
    }
    flow.protocol != u32::from(TCP) || !socket::is_established(kernel.socket(flow))
}

#[cfg(test)]
mod tests;
