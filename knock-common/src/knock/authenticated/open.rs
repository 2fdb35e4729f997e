//! What a verified knock asks for, as far as its key and the gate allow it.

use super::{
    Outcome, Verified, Work,
    key::{KEY_USER, NO_KEY},
    message::{Head, Request, action, flag},
};
use crate::{
    Address as _, Env, Family,
    address::{V4, V6},
    event::{Cause, Event, Kind, NOBODY},
    frame::UDP,
    grant::{
        end,
        give::{self, Opening, Terms},
    },
    knock,
    report::{class_of, send},
    rules::NO_GATE,
};

/// Does what a knock asks for if it was verified, counts what became of it, and reports it. Returns 1 if it was accepted,
/// or else 0.
#[inline(always)]
pub fn answer<E: Env>(env: &E, verified: Verified) -> u32 {
    let Some(work) = env.knock_work() else {
        return 0;
    };
    work.gate = NO_GATE;
    work.user = NOBODY;
    let slot = (verified >> 16) as u16;
    let mut outcome = Outcome::from_number(verified as u8).unwrap_or(Outcome::Other);
    let mut until = 0;
    if outcome as u8 == Outcome::Opened as u8 {
        work.user = KEY_USER | u32::from(slot);
        (outcome, until) = open(env, work, slot);
    }
    env.count_authenticated(outcome);
    report(env, work, outcome, slot, until);
    u32::from(matches!(outcome, Outcome::Opened | Outcome::Closed))
}

/// Returns the outcome, and when the grant ends, ns of `CLOCK_MONOTONIC`.
#[inline(always)]
fn open<E: Env>(env: &E, work: &mut Work, slot: u16) -> (Outcome, u64) {
    let head = Head::of(work.body[0], work.body[1]);
    let request = Request::of(&work.body, head.flags);
    let Some(gate) = env.key_gate(u32::from(slot), head.gate) else {
        return (Outcome::Gate, 0);
    };
    let (Some(rules), Some(key)) = (env.gate(gate), env.knock_key(u32::from(slot))) else {
        return (Outcome::Gate, 0);
    };
    work.gate = gate;

    let (mut v4, mut v6) = (request.v4, request.v6);
    let (mut to_v4, mut to_v6) = (head.flags & flag::IPV4 != 0, head.flags & flag::IPV6 != 0);
    let from_v4 = work.family == u32::from(V4::FAMILY);
    if head.flags & flag::OBSERVED != 0 {
        if key.bound != 0 {
            return (Outcome::Address, 0);
        }
        if from_v4 {
            (v4, to_v4) = (V4::unpadded(work.source), true);
        } else {
            (v6, to_v6) = (V6::unpadded(work.source), true);
        }
    } else {
        let lists_source = if from_v4 {
            to_v4 && v4 == V4::unpadded(work.source)
        } else {
            to_v6 && v6 == V6::unpadded(work.source)
        };
        if !lists_source {
            return (Outcome::Address, 0);
        }
    }
    // Both, before either is granted.
    if rules.restricted != 0
        && ((to_v4 && !env.may_knock(v4, gate)) || (to_v6 && !env.may_knock(v6, gate)))
    {
        return (Outcome::Source, 0);
    }

    work.open_for = if request.open_for == 0 {
        u64::MAX
    } else {
        request.open_for
    };
    work.port = request.port;
    work.action = u16::from(request.action);
    let mut until = 0;
    if to_v4 {
        work.to = v4.padded();
        until = env.give_v4();
    }
    if to_v6 && (!to_v4 || until != 0) {
        work.to = v6.padded();
        until = env.give_v6();
    }
    if request.action == action::CLOSE {
        (Outcome::Closed, 0)
    } else if until == 0 {
        (Outcome::TableFull, 0)
    } else {
        (Outcome::Opened, until)
    }
}

/// Opens or closes for the address in the CPU's [`Work`], which is of family `A`. Returns when the grant ends, ns of
/// `CLOCK_MONOTONIC`; 0: there was no room. Of a knock that closes: 1.
#[inline(always)]
pub fn give<E: Env, A: Family>(env: &E) -> u64 {
    let Some(work) = env.knock_work() else {
        return 0;
    };
    let to = A::unpadded(work.to);
    let now = env.now();
    let terms = Terms {
        open_for: work.open_for,
        user: work.user,
        gate: work.gate,
        port: work.port,
    };
    if work.action == u16::from(action::CLOSE) {
        end::by_user(env, &to, &terms, now);
        return 1;
    }
    match give::give(env, &to, &terms, now) {
        Opening::Until(until) => until,
        Opening::Source | Opening::TableFull => 0,
    }
}

/// Counts an outcome at its gate, and reports it.
#[inline(always)]
fn report<E: Env>(env: &E, work: &mut Work, outcome: Outcome, slot: u16, until: u64) {
    let (kind, cause) = match outcome {
        Outcome::Other | Outcome::Duplicate => return,
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
    };
    let at_gate = match outcome {
        Outcome::Opened => Some(knock::Outcome::Opened),
        Outcome::TableFull => Some(knock::Outcome::TableFull),
        Outcome::Source => Some(knock::Outcome::Source),
        _ => None,
    };
    if let Some(counted) = at_gate {
        env.count_knock(work.gate, counted);
    }
    let class = class_of(kind, cause);
    if !send::wants(env, class) {
        return;
    }
    work.event = Event {
        time: env.now(),
        until,
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
        key: if outcome as u8 == Outcome::Unknown as u8 {
            NO_KEY
        } else {
            slot
        },
    };
    send::send(env, class, &work.event);
}
