//! Where the progress of sources is kept: a ring that forgets whoever was seen longest ago.
//!
//! A flood of forged first knocks has every packet's source remembered, so what counts is the price
//! of a source that nobody has seen, in a table that is full. A new source takes the next place of
//! the ring, and with it a ticket: the number of sources that came before. Locations are written one
//! behind the other, which is what memory does best, and those in use lie together however large the
//! ring is. Where a source is, says the set that a keyed hash leads to: one line of the processor's
//! cache with [`WAYS`] pairs of a fingerprint and a ticket. So a new source costs one line that has
//! to be waited for, and no lock. The kernel's own table of this kind (`BPF_MAP_TYPE_LRU_HASH`)
//! costs several lines, and locks that all CPUs share.
//!
//! - A ticket that is as old as the ring is long leads to another source's place, which its tag
//!   tells.
//! - A new source takes its set's oldest pair. Two CPUs that add to a set at the same time both mean
//!   that pair: one succeeds, and the other's knock is lost, as it might have been on the wire. So
//!   no source is ever there twice. (Pairs only get younger. A CPU that has read a set without the
//!   source, and means a pair other than the one that another CPU has added it by, has read an
//!   older one there than that CPU did; so it is there no more, and can't be replaced.)
//! - What is in a place is read and changed by one CPU at a time, which holds it by its tag: see
//!   `Held`. A knock that finds its source's place held is lost.
//! - Every word that says where something is, is changed by compare-and-exchange, a full barrier on every
//!   machine, after what it leads to has been written. Who reads it plainly and finds an old one looks at a
//!   place that has another tag by now, or finds none where there just came to be one: the knock is lost, or
//!   begins anew. Nothing else depends on the order in which CPUs see each other's writes.
//! - A source that is seen again in the older part of the ring moves to its front, so it is sure to
//!   be remembered until [`kept`] others have come after it was seen; unless [`WAYS`] of these came
//!   to its set, which is chance: the hash depends on a seed, so nobody can choose sources for that.

use super::progress::{Pair, Progress, ProgressSet, Step, WAYS};
use crate::{Address, Env, seed::Seed};

/// Locations in a ring for so many sources, a power of two.
pub const fn slots(sources: usize) -> usize {
    sources.next_power_of_two()
}

/// Sets for a ring of so many places. Two places for each set are a quarter of its pairs: of 1,000
/// sources in a full ring, one shares its set with too many others.
pub const fn sets(slots: usize) -> usize {
    slots / 2
}

/// The first ticket. A pair that was never used has an older one.
pub const FIRST: u32 = 1;

/// A source with a ticket older than that moves to the front when it is seen, in a ring of so many
/// places.
const fn old(slots: u32) -> u32 {
    slots / 8
}

/// How many other sources one outlives since it was last seen, in a ring of so many places.
pub const fn kept(slots: u32) -> u32 {
    slots - old(slots)
}

/// A source's set and fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Its number, modulo that of sets.
    pub set: u32,
    /// Not 0, which a pair has that was never used.
    fingerprint: u32,
}

impl Location {
    #[inline(always)]
    pub fn of<A: Address>(source: &A, seed: Seed) -> Self {
        let hash = seed.hash(source.padded(), u64::from(A::FAMILY));
        Self {
            set: (hash >> 32) as u32,
            fingerprint: (hash as u32).max(1),
        }
    }
}

/// What is known of a source.
pub enum Entry<'e> {
    Known(&'e mut Progress),
    New(Newcomer<'e>),
}

/// A source that nothing is known of.
pub struct Newcomer<'e> {
    set: &'e mut ProgressSet,
    fingerprint: u32,
    /// The pair that has its fingerprint, though another source's, and where it is.
    same: Option<(usize, Pair)>,
}

/// Looks a source up, which is seen now. `None`: another CPU is at it, and the knock is lost.
#[inline(always)]
pub fn entry<'e, E: Env, A: Address>(env: &'e E, source: &A) -> Option<Entry<'e>> {
    let Location { set, fingerprint } = Location::of(source, env.seed());
    let set = env.progress_set(set)?;
    let mut same = None;
    for way in 0..WAYS {
        let pair = set.pair(way);
        if pair.fingerprint() == fingerprint {
            let progress = env.progress(pair.ticket())?;
            if progress.is_of(source) {
                let pair_of = set.pairs.get_mut(way)?;
                let progress = kept_in_front(env, source, pair_of, pair, progress)?;
                return Some(Entry::Known(progress));
            }
            if progress.is_held() {
                // Most likely this source's, by another CPU.
                return None;
            }
            same = Some((way, pair));
            break;
        }
    }
    Some(Entry::New(Newcomer {
        set,
        fingerprint,
        same,
    }))
}

/// Moves a source to the front of the ring where it is no longer near it, and says where it is.
#[inline(always)]
fn kept_in_front<'e, E: Env, A: Address>(
    env: &'e E,
    source: &A,
    pair: &mut u64,
    before: Pair,
    progress: &'e mut Progress,
) -> Option<&'e mut Progress> {
    let next = env.progress_cursor()?;
    if before.age(*next) <= old(env.progress_slots()) {
        Some(progress)
    } else {
        move_to_front(env, source, pair, before, progress)
    }
}

/// A function of its own, to keep the way of most knocks short.
#[inline(never)]
fn move_to_front<'e, E: Env, A: Address>(
    env: &'e E,
    source: &A,
    pair: &mut u64,
    before: Pair,
    progress: &'e mut Progress,
) -> Option<&'e mut Progress> {
    let ticket = env.fetch_add(env.progress_cursor()?);
    let after = Pair::new(before.fingerprint(), ticket);
    let front = env.progress(ticket)?;
    // The oldest source of all is where it moves to.
    if core::ptr::eq(front, progress) {
        env.compare_exchange(pair, before.0, after.0);
        return Some(front);
    }
    let mut from = progress.hold(env, source)?;
    let mut to = front.take(env)?;
    to.copy(&from);
    // Where that fails, another CPU has given the pair to another source: nobody finds this one any more.
    if env.compare_exchange(pair, before.0, after.0) {
        to.give_to(from.tag());
    }
    from.give_to(0);
    drop(from);
    drop(to);
    env.progress(ticket)
}

impl Newcomer<'_> {
    /// Remembers its first knock, which led to `state`. False where the knock is lost.
    #[inline(always)]
    pub fn begin<E: Env, A: Address>(
        self,
        env: &E,
        source: &A,
        state: u32,
        step: Step,
        now: u64,
    ) -> bool {
        let Self {
            set,
            fingerprint,
            same,
        } = self;
        let Some(next) = env.progress_cursor() else {
            return false;
        };
        // A pair with its fingerprint would hide it, so that is the one it takes.
        let Some((way, before)) = same.or_else(|| oldest(set, fingerprint, *next)) else {
            return false;
        };
        let Some(pair) = set.pairs.get_mut(way) else {
            return false;
        };
        let ticket = env.fetch_add(next);
        let Some(progress) = env.progress(ticket) else {
            return false;
        };
        let Some(mut place) = progress.take(env) else {
            return false;
        };
        place.begin(source, state, step, now);
        place.give_to(Progress::tag_of(source));
        drop(place);
        // Only now can it be found.
        env.compare_exchange(pair, before.0, Pair::new(fingerprint, ticket).0)
    }
}

/// Where the oldest pair of a set is. `None`: another CPU has added this very fingerprint meanwhile.
#[inline(always)]
fn oldest(set: &ProgressSet, fingerprint: u32, next: u32) -> Option<(usize, Pair)> {
    let mut oldest = (0, set.pair(0));
    if oldest.1.fingerprint() == fingerprint {
        return None;
    }
    for way in 1..WAYS {
        let pair = set.pair(way);
        if pair.fingerprint() == fingerprint {
            return None;
        }
        if pair.age(next) > oldest.1.age(next) {
            oldest = (way, pair);
        }
    }
    Some(oldest)
}

#[cfg(test)]
mod tests;
