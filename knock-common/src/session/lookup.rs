//! Packets of a flow that is remembered.

use super::{Flow, Session, socket};
use crate::{Env, Family, HashTable as _, frame::flag, rules::GateRules, time::TICK_SHIFT};

/// After a FIN or RST the host is asked for so long at least, in units of 2^[`TICK_SHIFT`] ns: a second.
/// Until then it may not yet have looked at it.
const SETTLED: u32 = 1_000_000_000 >> TICK_SHIFT;

/// The session of `flow` at `gate`, unless it has been idle for the gate's `session_idle` or more; and
/// the time, which is read once there is something to compare it with.
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
pub fn goes_on<E: Env, A: Family>(
    env: &E,
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
    let state = env.socket(flow);
    let time = (now >> TICK_SHIFT) as u32;
    if session.closing != 0 {
        if !socket::is_open(state) {
            A::sessions(env).remove(flow);
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
///
/// Looks the flow up once more: this happens once for each grant that its source is given, and to keep what was found
/// would cost each denied packet instructions.
#[inline(always)]
pub fn renew<E: Env, A: Family>(env: &E, flow: &Flow<A>, granted_until: u64) {
    if let Some(session) = A::sessions(env).find(flow)
        && session.tag == flow.tag()
    {
        session.granted_until = granted_until;
    }
}
