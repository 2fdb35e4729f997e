//! Packets of a flow that is remembered.

use super::{Flow, MORE, Session, ending, socket, table};
use crate::{
    Address, Env,
    frame::{Segment, flag},
    set::NO_SLOT,
    time::{TICK_SHIFT, is_within},
};

/// The least time for which the host is asked after a FIN or RST, in units of 2^[`TICK_SHIFT`] ns: a second. Before that
/// it may not have processed it yet.
const SETTLED: i32 = 1_000_000_000 >> TICK_SHIFT;

/// Returns the session of `flow` at `gate`, unless it has been idle for the gate's `session_idle` or longer, and
/// the time, which is read only if there is a session.
#[inline(always)]
pub fn find<'e, E: Env, A: Address>(
    env: &'e E,
    flow: &Flow<A>,
    gate: u16,
) -> Option<(&'e mut Session, u64)> {
    live(env, table::find_at(env, flow, Some(gate))?, gate)
}

/// As [`find`], for code that does not run for each packet; see [`table::find_except`].
#[inline(always)]
pub fn find_again<'e, E: Env, A: Address>(
    env: &'e E,
    flow: &Flow<A>,
    gate: u16,
) -> Option<(&'e mut Session, u64)> {
    let found = table::find_except(env, flow, Some(gate), NO_SLOT)?;
    live(env, found, gate)
}

#[inline(always)]
fn live<'e, E: Env>(
    env: &E,
    table::Found { session, last, .. }: table::Found<'e>,
    gate: u16,
) -> Option<(&'e mut Session, u64)> {
    let now = env.now();
    // Most packets of a flow come sooner than that, and for them the gate is not looked up.
    let lives = is_within(last, now, env.least_idle())
        || env
            .gate(gate)
            .is_some_and(|rules| is_within(last, now, rules.session_idle));
    lives.then_some((session, now))
}

/// Returns whether a SYN with these flags and this sequence number is a retransmission of the one that began the
/// session. Never true after other packets of the flow: then its connection may have been established and reset, and the
/// host would take the SYN for a new one.
#[inline(always)]
pub const fn retransmits(session: &Session, flags: u8, sequence: u32) -> bool {
    !session.has_more() && session.initial == sequence && flags & (flag::RST | flag::FIN) == 0
}

/// Records that a packet other than a SYN has arrived.
#[inline(always)]
pub const fn note_more(session: &mut Session) {
    // Written once: a flow's packets may arrive at several CPUs. If another CPU stores the end of the grant at the same moment,
    // one of the two writes is lost; a later packet repeats it.
    if !session.has_more() {
        session.granted |= MORE;
    }
}

/// Updates the session of a packet with these TCP flags. Returns false if the session has ended.
///
/// `segment`: its flow, in a form that the caller has in memory anyway: nested calls share 512 bytes of stack.
#[inline(always)]
pub fn goes_on<E: Env, A: Address>(
    env: &E,
    segment: &Segment<A>,
    session: &mut Session,
    flags: u8,
    now: u64,
) -> bool {
    note_more(session);
    let ends = flags & (flag::FIN | flag::RST) != 0;
    (!session.is_closing() && !ends) || closes(env, segment, session, ends, now)
}

/// As [`goes_on`], for a session that is closing or that this packet closes (`ends`).
#[inline(never)]
fn closes<E: Env, A: Address>(
    env: &E,
    segment: &Segment<A>,
    session: &mut Session,
    ends: bool,
    now: u64,
) -> bool {
    let flow = &Flow::of(segment);
    let socket = env.socket(flow);
    let time = ending(now);
    if session.is_closing() {
        if !socket::is_open(socket) {
            table::remove(env, flow);
            return false;
        }
        // Signed, since another CPU's clock may have been ahead.
        let settled = time.wrapping_sub(session.ending).cast_signed() >= SETTLED;
        if settled && !ends && socket == socket::ESTABLISHED {
            session.ending = 0;
        }
    }
    if ends && socket::knows_flow(socket) {
        // 0 means that none has arrived.
        session.ending = time.max(1);
    }
    true
}
