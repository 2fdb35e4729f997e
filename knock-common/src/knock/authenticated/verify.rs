//! Whether a datagram is a knock by the holder of a valid key, and one that was not accepted before.

use super::{
    key::{HostSecret, Key, state},
    message::{Head, Request, has_length, is_well_formed},
    outcome::Outcome,
    sha256,
    siphash::siphash128,
    work::Work,
};
use crate::{Env, frame::Frame, memory::read};

/// How far a clock may be wrong, ns: 30 days. What is further off is most likely no knock: of other datagrams, one in 4,096 has a
/// head, and of those one in 3,500 has a time within this.
pub(super) const WRONG: u64 = 30 * 24 * 60 * 60 * 1_000_000_000;

/// How often a CPU tries to set the newest time of a key that others set at the same moment.
const TRIES: usize = 4;

/// Verifies the datagram at `transport` in `frame`. The CPU's [`Work`] knows its source, and gets outcome and body.
#[inline(always)]
pub fn verify<E: Env, F: Frame + ?Sized>(env: &E, frame: &F, transport: usize) {
    let Some(work) = env.knock_work() else {
        return;
    };
    if !frame.copy(transport, &mut work.datagram) || !has_length(&work.datagram) {
        return;
    }
    if let Some((secret, head, wall)) = unmask_head(env, work) {
        work.slot = head.slot;
        work.outcome = judged(env, work, wall, secret, head) as u8;
    }
}

/// Returns the secret of this host that the message was masked with, its head, and the time, Unix ns.
///
/// The clock is read where it matters: for junk, only while there is a secret before the present one.
#[inline(always)]
fn unmask_head<E: Env>(env: &E, work: &mut Work) -> Option<([u64; 2], Head, u64)> {
    let mut index = 0;
    while index < HostSecret::COUNT {
        let &HostSecret { words, not_after } = env.host_secret(index)?;
        if not_after == 0 || (index > 0 && not_after < env.wall()) {
            return None;
        }
        let mask = mask(words, work, 0);
        work.body[0] = work.datagram[3] ^ mask[0];
        work.body[1] = work.datagram[4] ^ mask[1];
        let head = Head::of(work.body[0], work.body[1]);
        if head.is_plausible() {
            let wall = env.wall();
            return (wall <= not_after).then_some((words, head, wall));
        }
        index += 1;
    }
    None
}

#[inline(always)]
fn judged<E: Env>(env: &E, work: &mut Work, wall: u64, secret: [u64; 2], head: Head) -> Outcome {
    let (max_age, max_ahead) = (env.max_age(), env.max_ahead());
    // Where the sum would wrap, the time is far outside the window.
    if wall.wrapping_add(max_ahead).wrapping_sub(head.time) > max_age.saturating_add(max_ahead) {
        return if wall.abs_diff(head.time) > WRONG {
            Outcome::Other
        } else {
            Outcome::Stale
        };
    }
    let Some(key) = env.knock_key(u32::from(head.slot)) else {
        return Outcome::Unknown;
    };
    match key.state {
        state::VALID => {}
        state::REVOKED => return Outcome::Revoked,
        _ => return Outcome::Unknown,
    }
    if key.not_after != 0 && key.not_after < wall {
        return Outcome::Expired;
    }
    if head.time > key.newest {
        unmask_rest(work, secret);
        if !has_tag(key, work) || !is_well_formed(&work.body) {
            return Outcome::Forged;
        }
        if let Some(outcome) = accept(env, key, work, head.time) {
            return outcome;
        }
    }
    repeated(env, key, work, secret, head.time)
}

/// Returns the outcome of a knock that is not newer than one that was accepted.
#[inline(always)]
fn repeated<E: Env>(env: &E, key: &Key, work: &mut Work, secret: [u64; 2], time: u64) -> Outcome {
    // A knock is known to be captured only where it is known where one of its time or later came from. It is not where the
    // program knows of none since the key began, where another host has accepted one, and until a CPU that has has written it.
    let source_time = read(&key.source_time);
    let is_unknown = time > source_time;
    let source = env.read_after(&key.source, source_time);
    let family = env.read_after(&key.family, source_time);
    let is_from_there = source == work.source && u32::from(family) == work.family;
    if is_unknown || is_from_there {
        return Outcome::Duplicate;
    }
    // One that lists where it comes from was not captured elsewhere: another one of the same client has overtaken it.
    unmask_rest(work, secret);
    if lists_source(work) {
        Outcome::Duplicate
    } else {
        Outcome::Replay
    }
}

/// Returns whether the body lists the address that the datagram comes from.
#[inline(always)]
fn lists_source(work: &Work) -> bool {
    let head = Head::of(work.body[0], work.body[1]);
    let request = Request::of(&work.body, head.flags);
    request.lists(head.flags, work.source, work.family)
}

#[inline(always)]
fn unmask_rest(work: &mut Work, secret: [u64; 2]) {
    let mut block = 1;
    while block < 3 {
        let mask = mask(secret, work, block);
        let at = 2 * block;
        work.body[at] = work.datagram[at + 3] ^ mask[0];
        work.body[at + 1] = work.datagram[at + 4] ^ mask[1];
        block += 1;
    }
}

/// Returns a block of the mask of a message.
#[inline(always)]
fn mask(secret: [u64; 2], work: &Work, block: usize) -> [u64; 2] {
    let words = [
        u64::from_le(work.datagram[1]),
        u64::from_le(work.datagram[2]),
        block as u64,
    ];
    siphash128(secret, words).map(u64::to_le)
}

/// Returns whether the tag of the message is that of its body. Compares all of it in any case.
#[inline(always)]
fn has_tag(key: &Key, work: &mut Work) -> bool {
    let mut index = 0;
    while index < 6 {
        let pair = u64::from_be(work.body[index]);
        work.hash.schedule[2 * index] = (pair >> 32) as u32;
        work.hash.schedule[2 * index + 1] = pair as u32;
        index += 1;
    }
    sha256::hmac(&key.secret, &mut work.hash);
    let state = &work.hash.state;
    let first = u64::from(state[0]) << 32 | u64::from(state[1]);
    let second = u64::from(state[2]) << 32 | u64::from(state[3]);
    (first.to_be() ^ work.datagram[1]) | (second.to_be() ^ work.datagram[2]) == 0
}

/// Sets the newest time of the key. `None`: another CPU has set a later one.
#[inline(always)]
fn accept<E: Env>(env: &E, key: &mut Key, work: &Work, time: u64) -> Option<Outcome> {
    for _ in 0..TRIES {
        let newest = key.newest;
        if time <= newest {
            return None;
        }
        if env.compare_exchange(&mut key.newest, newest, time) {
            // Unless another CPU has accepted a later one meanwhile, and may have written where that came from.
            if read(&key.newest) == time {
                key.source = work.source;
                key.family = work.family as u8;
                // A full barrier: whoever sees this time sees what was written before it.
                let before = key.source_time;
                if before < time {
                    env.compare_exchange(&mut key.source_time, before, time);
                }
            }
            return Some(Outcome::Opened);
        }
    }
    Some(Outcome::Duplicate)
}
