//! What a verified knock asks for, as far as its key and the gate allow it.

use super::{
    key::KEY_USER,
    message::{Head, Request, action, flag},
    outcome::Outcome,
    work::Work,
};
use crate::{
    Address as _, Env, Family,
    address::{V4, V6},
    event::NOBODY,
    grant::{
        end,
        give::{self, Opening, Terms},
    },
    rules::NO_GATE,
};

/// Does what the datagram in the CPU's [`Work`] asks for if it was verified, counts what became of it, and reports it.
/// Returns whether it was accepted.
#[inline(always)]
pub fn answer<E: Env>(env: &E) -> bool {
    let Some(work) = env.knock_work() else {
        return false;
    };
    if work.outcome == Outcome::Other as u8 {
        env.count_authenticated(Outcome::Other);
        return false;
    }
    work.gate = NO_GATE;
    work.user = NOBODY;
    work.until = 0;
    if work.outcome == Outcome::Opened as u8 {
        work.user = KEY_USER | u32::from(work.slot);
        work.outcome = open(env, work) as u8;
    }
    env.report_knock();
    work.outcome == Outcome::Opened as u8 || work.outcome == Outcome::Closed as u8
}

/// Does what a verified knock asks for, and returns the outcome.
#[inline(always)]
fn open<E: Env>(env: &E, work: &mut Work) -> Outcome {
    let slot = u32::from(work.slot);
    let head = Head::of(work.body[0], work.body[1]);
    let request = Request::of(&work.body, head.flags);
    let Some(gate) = env.key_gate(slot, head.gate) else {
        return Outcome::Gate;
    };
    let (Some(rules), Some(key)) = (env.gate(gate), env.knock_key(slot)) else {
        return Outcome::Gate;
    };
    work.gate = gate;

    let (mut v4, mut v6) = (request.v4, request.v6);
    let (mut to_v4, mut to_v6) = (head.flags & flag::IPV4 != 0, head.flags & flag::IPV6 != 0);
    let from_v4 = work.family == u32::from(V4::FAMILY);
    if head.flags & flag::OBSERVED != 0 {
        if key.bound != 0 {
            return Outcome::Address;
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
            return Outcome::Address;
        }
    }
    // Both, before either is granted.
    if rules.restricted != 0
        && ((to_v4 && !env.may_knock(v4, gate)) || (to_v6 && !env.may_knock(v6, gate)))
    {
        return Outcome::Source;
    }

    work.open_for = if request.open_for == 0 {
        u64::MAX
    } else {
        request.open_for
    };
    work.port = request.port;
    work.action = request.action;
    let mut until = 0;
    if to_v4 {
        work.to = v4.padded();
        until = env.give_v4();
    }
    if to_v6 && (!to_v4 || until != 0) {
        work.to = v6.padded();
        until = env.give_v6();
    }
    work.until = until;
    if request.action == action::CLOSE {
        work.until = 0;
        Outcome::Closed
    } else if until == 0 {
        Outcome::TableFull
    } else {
        Outcome::Opened
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
    if work.action == action::CLOSE {
        end::by_user(env, &to, &terms, now);
        return 1;
    }
    match give::give(env, &to, &terms, now) {
        Opening::Until(until) => until,
        Opening::Source | Opening::TableFull => 0,
    }
}
