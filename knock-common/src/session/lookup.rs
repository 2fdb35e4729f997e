//! Packets of a flow that is remembered.

use super::{Flow, Session, note, socket, state};
use crate::{Env, Family, HashTable as _, frame::flag, rules::GateRules, time::TICK_SHIFT};

/// The least time for which the host is asked after a FIN or RST, in units of 2^[`TICK_SHIFT`] ns: a second. Before that
/// it may not have processed it yet.
const SETTLED: i32 = 1_000_000_000 >> TICK_SHIFT;

/// Returns the session of `flow` at `gate`, unless it has been idle for the gate's `session_idle` or longer, and
/// the time, which is read only if there is a session.
#[inline(always)]
pub fn find<'e, E: Env, A: Family>(
    env: &'e E,
    flow: &Flow<A>,
    gate: u16,
    rules: &GateRules,
) -> Option<(&'e mut Session, u64)> {
    let session = A::sessions(env).find(flow)?;
    let now = env.now();
    let idle = session.idle(now);
    let ours = session.tag == flow.tag() && session.gate == gate;
    (ours && idle < rules.session_idle).then_some((session, now))
}

/// Returns whether a SYN with these flags and this sequence number is a retransmission of the one that began the
/// session. Never true after other packets of the flow: then its connection may have been established and reset, and the
/// host would take the SYN for a new one.
#[inline(always)]
pub const fn retransmits(session: &Session, flags: u8, sequence: u32) -> bool {
    session.more == 0 && session.initial == sequence && flags & (flag::RST | flag::FIN) == 0
}

/// Records that a packet other than a SYN has arrived.
#[inline(always)]
pub const fn note_more(session: &mut Session) {
    // Written once: a flow's packets may arrive at several CPUs.
    if session.more == 0 {
        session.more = 1;
    }
}

/// Updates a session by a packet with these TCP flags. Returns false if the session has ended.
#[inline(always)]
pub fn goes_on<E: Env, A: Family>(
    env: &E,
    flow: &Flow<A>,
    session: &mut Session,
    flags: u8,
    now: u64,
) -> bool {
    note_more(session);
    let ends = flags & (flag::FIN | flag::RST) != 0;
    (session.closing == 0 && !ends) || closes(env, flow, session, ends, now)
}

/// As [`goes_on`], for a session that is closing or that this packet closes (`ends`).
#[inline(never)]
fn closes<E: Env, A: Family>(
    env: &E,
    flow: &Flow<A>,
    session: &mut Session,
    ends: bool,
    now: u64,
) -> bool {
    let socket = env.socket(flow);
    let time = (now >> TICK_SHIFT) as u32;
    if session.closing != 0 {
        if !socket::is_open(socket) {
            note(env, session, state::ENDED);
            A::sessions(env).remove(flow);
            return false;
        }
        // Signed, since another CPU's clock may have been ahead.
        let settled = time.wrapping_sub(session.ending).cast_signed() >= SETTLED;
        if settled && !ends && socket == socket::ESTABLISHED {
            session.closing = 0;
            note(env, session, state::OPEN);
        }
    }
    if ends && socket::knows_flow(socket) {
        session.closing = 1;
        session.ending = time;
        note(env, session, state::CLOSING);
    }
    true
}

/// Records that the grant of a flow lives until `granted_until`.
///
/// Looks the flow up again. This happens once for each grant that its source is given, and with each packet in the last 134 ms
/// of the grant, while a reference to the session that was found would cost each denied packet instructions.
#[inline(always)]
pub fn renew<E: Env, A: Family>(env: &E, flow: &Flow<A>, granted_until: u64) {
    if let Some(session) = A::sessions(env).find(flow)
        && session.tag == flow.tag()
    {
        session.set_granted(granted_until);
    }
}
