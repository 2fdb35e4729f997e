//! What a verified knock asks for, as far as its key and the gate allow it.

use super::{
    held,
    key::KEY_USER,
    message::{Head, Request, action, flag},
    outcome::Outcome,
    work::Work,
};
use crate::{
    Address, Env,
    address::{Padded, V4},
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
    work.has_ended = 0;
    if work.outcome == Outcome::Opened as u8 {
        work.user = KEY_USER | u32::from(work.slot);
        open(env);
    }
    env.report_knock();
    // Asked for again: what was called has written to it.
    env.knock_work().is_some_and(|work| {
        [Outcome::Opened, Outcome::Closed, Outcome::Held]
            .iter()
            .any(|accepted| work.outcome == *accepted as u8)
    })
}

/// Does what a verified knock asks for, and leaves the outcome in the CPU's [`Work`].
#[inline(always)]
fn open<E: Env>(env: &E) {
    admit(env);
    let Some(&mut Work {
        outcome,
        families,
        v4,
        v6,
        action,
        ..
    }) = env.knock_work()
    else {
        return;
    };
    if outcome != Outcome::Opened as u8 || hold(env) {
        return;
    }
    let to_v4 = families & flag::IPV4 != 0;
    let mut until = 0;
    if to_v4 && for_address(env, v4.padded()) {
        until = env.give_v4();
    }
    if families & flag::IPV6 != 0 && (!to_v4 || until != 0) && for_address(env, v6) {
        let until_v6 = env.give_v6();
        // Without room for both, it has opened for the first.
        if until_v6 != 0 {
            until = until_v6;
        }
    }
    if let Some(work) = env.knock_work() {
        if action == action::CLOSE {
            work.outcome = Outcome::Closed as u8;
        } else if until == 0 {
            work.outcome = Outcome::TableFull as u8;
        } else {
            work.until = until;
        }
    }
}

/// Hands a verified knock to user space if grants wait. Returns whether it does: what closes waits for nobody.
#[inline(always)]
fn hold<E: Env>(env: &E) -> bool {
    if !env.holds_knocks() {
        return false;
    }
    let Some(work) = env.knock_work() else {
        return true;
    };
    held::fill(work);
    let is_handed = env.hold(&work.held);
    if work.action != action::OPEN {
        return false;
    }
    work.outcome = if is_handed {
        Outcome::Held
    } else {
        Outcome::TableFull
    } as u8;
    true
}

/// Says which address [`give`] is for.
#[inline(always)]
fn for_address<E: Env>(env: &E, address: Padded) -> bool {
    env.knock_work().map(|work| work.to = address).is_some()
}

/// Finds out what a verified knock may have of what it asks for, and leaves it in the CPU's [`Work`] with the outcome. Not
/// inlined, since what gives the grants needs the stack.
#[inline(never)]
fn admit<E: Env>(env: &E) {
    if let Some(work) = env.knock_work() {
        work.outcome = admitted(env, work) as u8;
    }
}

#[inline(always)]
fn admitted<E: Env>(env: &E, work: &mut Work) -> Outcome {
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
    work.v4 = request.v4;
    work.v6 = request.v6;
    work.families = head.flags & (flag::IPV4 | flag::IPV6);
    work.port = request.port;
    work.action = request.action;
    work.open_for = if request.open_for == 0 {
        u64::MAX
    } else {
        request.open_for
    };
    let from_v4 = work.family == u32::from(V4::FAMILY);
    if head.flags & flag::OBSERVED != 0 {
        if key.bound != 0 {
            return Outcome::Address;
        }
        if from_v4 {
            work.v4 = V4::unpadded(work.source);
            work.families |= flag::IPV4;
        } else {
            work.v6 = work.source;
            work.families |= flag::IPV6;
        }
    } else if !request.lists(head.flags, work.source, work.family) {
        return Outcome::Address;
    }
    // Both, before either is granted.
    if rules.restricted != 0
        && ((work.families & flag::IPV4 != 0 && !env.may_knock(work.v4, gate))
            || (work.families & flag::IPV6 != 0 && !env.may_knock(work.v6, gate)))
    {
        return Outcome::Source;
    }
    Outcome::Opened
}

/// Opens or closes for the address in the CPU's [`Work`], which is of family `A`. Returns when the grant ends, ns of
/// `CLOCK_MONOTONIC`; 0: there was no room. Of a knock that closes: 1.
#[inline(always)]
pub fn give<E: Env, A: Address>(env: &E) -> u64 {
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
        // The event is about the address that it comes from.
        if end::by_user(env, &to, &terms, now)
            && let Some(work) = env.knock_work()
            && work.family == u32::from(A::FAMILY)
        {
            work.has_ended = 1;
        }
        return 1;
    }
    match give::give(env, &to, &terms, now) {
        Opening::Until(until) => until,
        Opening::Source | Opening::TableFull => 0,
    }
}
