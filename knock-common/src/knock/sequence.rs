//! Knocks of a sequence: one step of the automaton that all sequences of all gates are compiled to.
//!
//! It is an Aho-Corasick automaton (Communications of the ACM 18(6), 1975): its state after a probe stands
//! for the longest suffix of the source's probes that is a prefix of a sequence. So "the last k
//! probes are the sequence" is one look-up, however many sequences there are. A state's transitions
//! are stored if they differ from the root's; most states have one, which is stored with them. See
//! the compiler in user space.
//!
//! Clients retry, from a new source port each time. So another probe of the port that was counted
//! last follows the automaton only if the run does not get shorter, and is ignored otherwise: see
//! `Repeat`.

use super::{
    MAX_SEQUENCE, Outcome,
    authenticated::key::NO_KEY,
    automaton::State,
    progress::{Progress, Step},
    ring::{self, Entry},
};
use crate::{
    Address, Env,
    event::{Cause, Event, Kind, NOBODY},
    frame::{Segment, UDP},
    grant::give::{self, Opening, Terms},
    guarded,
    report::{class, class_of, send},
    rules::NO_GATE,
    time::TICK_SHIFT,
};

/// Processes a probe to a port that no sequence has: it breaks the source's run, if there is one.
#[inline(never)]
pub fn foreign<E: Env, A: Address>(env: &E, probe: &Segment<A>) {
    if let Some(Entry::Known(progress)) = ring::entry(env, &probe.source)
        && progress.state != 0
        && guarded::is(env, probe)
        && !is_own(env, probe)
        && let Some(mut progress) = progress.hold(env, &probe.source)
        && progress.state != 0
    {
        broken(env, probe, &progress);
        progress.reset();
    }
}

/// Processes a knock on the port `symbol`. `starts`: a sequence begins with it.
#[inline(always)]
pub fn knock<E: Env, A: Address>(env: &E, probe: &Segment<A>, symbol: u16, starts: bool) {
    let now = env.now();
    let reached = advance(env, probe, symbol, starts, now);
    if reached != 0 {
        let (user, late) = ((reached & !TOO_LATE) - 1, reached & TOO_LATE != 0);
        completed(env, probe, user, late, now);
    }
}

/// Set in what [`advance`] returns: the sequence took longer than it may.
const TOO_LATE: u32 = 1 << 31;

/// Takes the source one step further. Returns the index of the sequence that it completed, plus one; 0:
/// none. One number, since a BPF function returns one register; and a completed sequence is processed by the caller, since
/// nested calls share 512 bytes of stack.
#[inline(never)]
fn advance<E: Env, A: Address>(
    env: &E,
    probe: &Segment<A>,
    symbol: u16,
    starts: bool,
    now: u64,
) -> u32 {
    let start = if starts { u32::from(symbol) + 1 } else { 0 };
    let step = Step {
        time: (now >> TICK_SHIFT) as u32,
        source_port: probe.ports.source(),
        symbol,
    };
    let progress = match ring::entry(env, &probe.source) {
        Some(Entry::Known(progress)) => progress,
        Some(Entry::New(newcomer)) => {
            if start != 0
                && newcomer.begin(env, &probe.source, start, step, now)
                && let Some(state) = env.state(start)
            {
                stepped(env, probe, state);
            }
            return 0;
        }
        None => return 0,
    };
    // Fails if the slot has been given to another source since it was found.
    let Some(mut held) = progress.hold(env, &probe.source) else {
        return 0;
    };
    let progress = &mut *held;
    if progress.is_forgotten(now) {
        progress.reset();
    }
    let state = progress.state;
    let Some(before) = env.state(state) else {
        return 0;
    };
    if is_duplicate(progress, &step, before.within) {
        env.count_knock(before.gate, Outcome::Duplicate);
        return 0;
    }
    if state != 0 && is_own(env, probe) {
        return 0;
    }
    let onward = if before.several != 0 {
        env.transition(state, symbol)
    } else {
        (before.next != 0 && before.symbol == symbol).then_some(before.next)
    };
    let next = onward.unwrap_or(start);
    let Some(after) = env.state(next) else {
        return 0;
    };
    let repeat = Repeat::of(progress, state, symbol, before, after);
    if repeat == Repeat::Shortens && is_recent(env, progress, step.time) {
        progress.renew(step.time, now);
        env.count_knock(before.gate, Outcome::Duplicate);
        return 0;
    }
    let extends = after.depth == before.depth.wrapping_add(1);
    let keeps = extends || repeat == Repeat::Keeps;
    if !keeps && after.completes == 0 && state != 0 {
        broken(env, probe, progress);
    }
    if next == 0 {
        progress.reset();
        return 0;
    }
    // Packets of a run that continues are still recognised as duplicates.
    let known = if keeps {
        MAX_SEQUENCE as u8
    } else {
        after.depth
    };
    progress.push(next, known, step, now);
    if after.completes == 0 {
        stepped(env, probe, after);
        return 0;
    }
    progress.counted = 0;
    match env.sequence(after.completes - 1) {
        Some(sequence) if elapsed(progress, sequence.length) <= sequence.within => after.completes,
        Some(_) => after.completes | TOO_LATE,
        None => 0,
    }
}

/// Processes the completion of the sequence with index `user`.
#[inline(never)]
fn completed<E: Env, A: Address>(env: &E, probe: &Segment<A>, user: u32, late: bool, now: u64) {
    let Some(sequence) = env.sequence(user) else {
        return;
    };
    let gate = sequence.gate;
    let mut event = Event {
        user,
        gate,
        step: sequence.length as u8,
        of: sequence.length as u8,
        ..report_of(probe, now)
    };
    let (outcome, kind, cause) = if late {
        (Outcome::Late, Kind::Failed, Cause::Late)
    } else {
        match give::give(env, &probe.source, &Terms::of(user, gate), now) {
            Opening::Until(until) => {
                event.until = until;
                (Outcome::Opened, Kind::Opened, Cause::None)
            }
            Opening::Source => (Outcome::Source, Kind::Failed, Cause::Source),
            Opening::TableFull => (Outcome::TableFull, Kind::Refused, Cause::TableFull),
        }
    };
    env.count_knock(gate, outcome);
    let class = class_of(kind, cause);
    if send::wants(env, class) {
        event.kind = kind as u8;
        event.cause = cause as u8;
        send::send(env, class, &event);
    }
}

/// Returns the time from the first of the last `length` knocks to the latest, in units of [`Step::time`].
#[inline(always)]
fn elapsed(progress: &Progress, length: u16) -> u32 {
    let first = progress.step((length as u8).wrapping_sub(1));
    progress.step(0).time.wrapping_sub(first.time)
}

/// What another probe of the port that was counted last would do to the run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It is a probe of another port.
    Not,
    /// The run stays as long, or gets longer.
    Keeps,
    /// The run would get shorter.
    Shortens,
}

impl Repeat {
    #[inline(always)]
    fn of(progress: &Progress, state: u32, symbol: u16, before: &State, after: &State) -> Self {
        if state == 0 || progress.step(0).symbol != symbol {
            Self::Not
        } else if after.depth < before.unfinished {
            Self::Shortens
        } else {
            Self::Keeps
        }
    }
}

/// Returns whether the run can still be completed. Otherwise there is nothing to lose, and a sequence that begins with
/// this probe must count.
#[inline(always)]
fn is_recent<E: Env>(env: &E, progress: &Progress, time: u32) -> bool {
    let Some(root) = env.state(0) else {
        return false;
    };
    time.wrapping_sub(progress.step(0).time) <= root.within
}

/// Returns whether a probe is a datagram to a socket of this host that is connected to its sender: part of a conversation
/// of the host, such as a VPN's, and no probe. Called only if there is a run that it could break or continue, so that a
/// flood of first knocks does not pay for it.
#[inline(always)]
fn is_own<E: Env, A: Address>(env: &E, probe: &Segment<A>) -> bool {
    probe.protocol == UDP && env.is_connected(probe)
}

/// Returns whether this is a packet of a knock that the present run has counted already.
#[inline(always)]
fn is_duplicate(progress: &Progress, step: &Step, within: u32) -> bool {
    for back in 0..MAX_SEQUENCE as u8 {
        if back >= progress.counted {
            return false;
        }
        let known = progress.step(back);
        if known.source_port == step.source_port
            && known.symbol == step.symbol
            && step.time.wrapping_sub(known.time) <= within
        {
            return true;
        }
    }
    false
}

#[inline(always)]
fn stepped<E: Env, A: Address>(env: &E, probe: &Segment<A>, state: &State) {
    env.count_knock(state.gate, Outcome::Step);
    if send::wants(env, class::STEPS) {
        tell(env, probe, state, (Kind::Step, Cause::None));
    }
}

/// Counts and reports a broken run, unless it had completed a sequence.
#[inline(always)]
fn broken<E: Env, A: Address>(env: &E, probe: &Segment<A>, progress: &Progress) {
    if !progress.is_complete()
        && let Some(state) = env.state(progress.state)
    {
        env.count_knock(state.gate, Outcome::Wrong);
        if send::wants(env, class::STEPS) {
            tell(env, probe, state, (Kind::Failed, Cause::Wrong));
        }
    }
}

/// Reports how far a run is or was. Not inlined, to keep the event off the stack of callers that make deeper calls.
#[inline(never)]
fn tell<E: Env, A: Address>(
    env: &E,
    probe: &Segment<A>,
    state: &State,
    (kind, cause): (Kind, Cause),
) {
    let event = Event {
        kind: kind as u8,
        cause: cause as u8,
        gate: state.gate,
        step: state.depth,
        of: state.of,
        ..report_of(probe, env.now())
    };
    send::send(env, class::STEPS, &event);
}

#[inline(always)]
fn report_of<A: Address>(probe: &Segment<A>, now: u64) -> Event {
    Event {
        time: now,
        until: 0,
        source: probe.source.padded(),
        user: NOBODY,
        gate: NO_GATE,
        port: probe.ports.destination(),
        kind: 0,
        cause: 0,
        family: A::FAMILY,
        protocol: probe.protocol,
        step: 0,
        of: 0,
        key: NO_KEY,
    }
}
