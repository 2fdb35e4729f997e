//! Counts and reports what became of a datagram.

use super::{key::NO_KEY, outcome::Outcome, work::Work};
use crate::{
    Env,
    event::{Cause, Event, Kind},
    frame::UDP,
    knock,
    report::{class_of, send},
};

/// Counts and reports the outcome in the CPU's [`Work`].
#[inline(always)]
pub fn report<E: Env>(env: &E) {
    let Some(work) = env.knock_work() else {
        return;
    };
    let outcome = Outcome::from_number(work.outcome).unwrap_or(Outcome::Other);
    env.count_authenticated(outcome);
    if let Some(counted) = at_gate(outcome) {
        env.count_knock(work.gate, counted);
    }
    let Some((kind, cause)) = event(outcome) else {
        return;
    };
    if matches!(outcome, Outcome::Closed) && work.has_ended == 0 {
        return;
    }
    let class = class_of(kind, cause);
    if send::wants(env, class) {
        write_event(env, work, outcome, (kind, cause));
        send::send(env, class, &work.event);
    }
}

#[inline(always)]
fn write_event<E: Env>(env: &E, work: &mut Work, outcome: Outcome, (kind, cause): (Kind, Cause)) {
    work.event = Event {
        time: env.now(),
        until: work.until,
        source: work.source,
        user: work.user,
        gate: work.gate,
        port: work.destination_port,
        kind: kind as u8,
        cause: cause as u8,
        family: work.family as u8,
        protocol: UDP,
        step: 0,
        of: 0,
        key: if matches!(outcome, Outcome::Unknown) {
            NO_KEY
        } else {
            work.slot
        },
    };
}

/// Returns what is reported; `None`: nothing.
#[inline(always)]
const fn event(outcome: Outcome) -> Option<(Kind, Cause)> {
    Some(match outcome {
        // Of one that is held, user space says what becomes of it.
        Outcome::Other | Outcome::Duplicate | Outcome::Held => return None,
        Outcome::Opened => (Kind::Opened, Cause::None),
        Outcome::Closed => (Kind::Closed, Cause::Asked),
        Outcome::TableFull => (Kind::Refused, Cause::TableFull),
        Outcome::Replay => (Kind::Captured, Cause::Replay),
        Outcome::Stale => (Kind::Failed, Cause::Stale),
        Outcome::Unknown => (Kind::Failed, Cause::Unknown),
        Outcome::Expired => (Kind::Failed, Cause::Expired),
        Outcome::Revoked => (Kind::Failed, Cause::Revoked),
        Outcome::Forged => (Kind::Failed, Cause::Forged),
        Outcome::Gate => (Kind::Failed, Cause::Gate),
        Outcome::Address => (Kind::Failed, Cause::Address),
        Outcome::Source => (Kind::Failed, Cause::Source),
    })
}

/// Returns the result under which it counts as a knock at its gate, if it names one.
#[inline(always)]
const fn at_gate(outcome: Outcome) -> Option<knock::Outcome> {
    match outcome {
        Outcome::Opened => Some(knock::Outcome::Opened),
        Outcome::TableFull => Some(knock::Outcome::TableFull),
        Outcome::Source => Some(knock::Outcome::Source),
        _ => None,
    }
}
