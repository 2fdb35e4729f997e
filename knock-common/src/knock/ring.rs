//! The table of sources that knock: a ring that forgets the source that was seen longest ago.
//!
//! In a flood of forged first knocks every packet has a new source, so the table is made for the cost
//! of a new source when it is full. A new source takes the next slot of the ring and a ticket: the number of sources
//! before it. So slots are written in order, which is fast, and those in use lie together, however large the
//! ring is. A keyed hash of the source selects a set: one cache line with
//! [`WAYS`] pairs of a fingerprint and a ticket, which leads to the slot. So a new source costs one cache miss and no
//! lock. The kernel's own table of this kind (`BPF_MAP_TYPE_LRU_HASH`) costs several, and locks that all CPUs share.
//!
//! - A ticket that is as old as the ring is long leads to another source's slot; the tag there shows that.
//! - A new source replaces the oldest pair of its set. If two CPUs add to a set at the same time, both replace
//!   that pair: one succeeds, and the other's knock is lost, as it might have been on the network. So
//!   no source is ever in the table twice. (Pairs only get younger. If a CPU has read a set without the source, and would
//!   replace another pair than the CPU that has added the source meanwhile, then it has read an older pair in that place;
//!   that pair is gone, and replacing it fails.)
//! - A slot is read and changed by one CPU at a time, which holds it by its tag: see
//!   `Held`. A knock that finds the slot of its source held is lost.
//! - A pair is changed by compare-and-exchange, a full barrier on every architecture, after the slot that it leads to has
//!   been written. A CPU that reads an old pair finds a slot with another tag, or does not find a source that was just
//!   added: the knock is lost, or begins a new run. Nothing else depends on the order in which CPUs see each other's writes.
//! - A source that is seen again in the older part of the ring moves to its front, so it is
//!   remembered until [`kept`] others have been added since; unless [`WAYS`] of these are in its set, which is
//!   chance: without the seed of the hash nobody can choose such sources.

use super::progress::{Pair, Progress, ProgressSet, Step, WAYS};
use crate::{Address, Env, seed::Seed};

/// Returns the number of slots of a ring for this many sources, a power of two.
pub const fn slots(sources: usize) -> usize {
    sources.next_power_of_two()
}

/// Returns the number of sets for a ring of this many slots. Two slots for each set are a quarter of its pairs: of 1,000
/// sources in a full ring, one shares its set with too many others.
pub const fn sets(slots: usize) -> usize {
    slots / 2
}

/// How many tickets other CPUs may take while one CPU adds a source; far more than they ever do. It reads the cursor before it
/// reads the pairs of a set, so some of these pairs may have later tickets.
const AHEAD: u32 = 1 << 30;

/// The first ticket. A pair that was never used has an older one.
pub const FIRST: u32 = 1;

/// Returns the age of a ticket, in a ring of this many slots, from which on its source moves to the front when it is seen.
const fn old(slots: u32) -> u32 {
    slots / 8
}

/// Returns how many other sources can be added, in a ring of this many slots, until one is forgotten; but for a block of
/// [`Tickets`](crate::cursor::Tickets) on each other CPU, which it has taken and not used.
pub const fn kept(slots: u32) -> u32 {
    slots - old(slots)
}

/// A source's set and fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Index of the set, modulo their number.
    pub set: u32,
    /// Not 0, which marks an unused pair.
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

    /// Returns the pair that leads to the source's slot, for user space, which fills a ring before it is used.
    pub const fn pair(self, ticket: u32) -> Pair {
        Pair::new(self.fingerprint, ticket)
    }
}

/// The result of looking a source up.
pub enum Entry<'e> {
    Known(&'e mut Progress),
    New(Newcomer<'e>),
}

/// A source that is not in the table.
pub struct Newcomer<'e> {
    set: &'e mut ProgressSet,
    fingerprint: u32,
    /// The pair of another source with the same fingerprint; unused: there is none.
    same: Pair,
}

/// Looks up a source that is seen now. `None`: another CPU is changing it, and the knock is lost.
#[inline(always)]
pub fn entry<'e, E: Env, A: Address>(env: &'e E, source: &A) -> Option<Entry<'e>> {
    let Location { set, fingerprint } = Location::of(source, env.seed());
    let set = env.progress_set(set)?;
    let pair = find(set, fingerprint);
    if pair != Pair::UNUSED {
        let progress = env.progress(pair.ticket())?;
        if progress.is_of(source) {
            let progress = kept_in_front(env, source, set, pair, progress)?;
            return Some(Entry::Known(progress));
        }
        if progress.is_held() {
            // Most likely it is this source's.
            return None;
        }
    }
    Some(Entry::New(Newcomer {
        set,
        fingerprint,
        same: pair,
    }))
}

/// Returns the pair with this fingerprint, or an unused one; not its index, which is rarely needed and would cost each knock
/// instructions.
#[inline(always)]
fn find(set: &ProgressSet, fingerprint: u32) -> Pair {
    for way in 0..WAYS {
        let pair = set.pair(way);
        if pair.fingerprint() == fingerprint {
            return pair;
        }
    }
    Pair::UNUSED
}

/// Returns the index of a pair, unless another CPU has replaced it.
#[inline(always)]
fn way_of(set: &ProgressSet, pair: Pair) -> Option<usize> {
    (0..WAYS).find(|way| set.pair(*way) == pair)
}

/// Moves a source to the front of the ring if it is in the older part. Returns its progress.
#[inline(always)]
fn kept_in_front<'e, E: Env, A: Address>(
    env: &'e E,
    source: &A,
    set: &mut ProgressSet,
    before: Pair,
    progress: &'e mut Progress,
) -> Option<&'e mut Progress> {
    let next = env.progress_cursor()?;
    if before.age(next) <= old(env.progress_slots()) {
        Some(progress)
    } else {
        move_to_front(env, source, set, before, progress)
    }
}

/// Not inlined, so that most knocks do not pay for it.
#[inline(never)]
fn move_to_front<'e, E: Env, A: Address>(
    env: &'e E,
    source: &A,
    set: &mut ProgressSet,
    before: Pair,
    progress: &'e mut Progress,
) -> Option<&'e mut Progress> {
    let way = way_of(set, before)?;
    let pair = set.pairs.get_mut(way)?;
    let ticket = env.progress_ticket()?;
    let after = Pair::new(before.fingerprint(), ticket);
    let front = env.progress(ticket)?;
    // It is the oldest source, and its slot the next one.
    if core::ptr::eq(front, progress) {
        env.compare_exchange(pair, before.0, after.0);
        return Some(front);
    }
    let mut from = progress.hold(env, source)?;
    let mut to = front.take(env)?;
    to.copy(&from);
    // If that fails, another CPU has given the pair to another source, and this one is not found any more.
    if env.compare_exchange(pair, before.0, after.0) {
        to.give_to(from.tag());
    }
    from.give_to(0);
    drop(from);
    drop(to);
    env.progress(ticket)
}

impl Newcomer<'_> {
    /// Adds the source with its first knock, which led to `state`. Returns false if the knock is lost.
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
        // Ages are taken as of a later moment, so that a pair that another CPU is just adding counts as young, and not as the
        // oldest. (An unused pair would count as young a quarter before the tickets come round: by then there is none.)
        let next = next.wrapping_add(AHEAD);
        // A pair with the same fingerprint would hide it, so it replaces that one.
        let place = if same == Pair::UNUSED {
            oldest(set, fingerprint, next)
        } else {
            way_of(set, same).map(|way| (way, same))
        };
        let Some((way, before)) = place else {
            return false;
        };
        let Some(pair) = set.pairs.get_mut(way) else {
            return false;
        };
        let Some(ticket) = env.progress_ticket() else {
            return false;
        };
        let Some(progress) = env.progress(ticket) else {
            return false;
        };
        let Some(mut place) = progress.take(env) else {
            return false;
        };
        place.begin(source, state, step, now);
        place.give_to(Progress::tag_of(source));
        drop(place);
        // Now it can be found.
        env.compare_exchange(pair, before.0, Pair::new(fingerprint, ticket).0)
    }
}

/// Returns the oldest pair of a set, with its index: of several, the first. `None`: another CPU has changed the set meanwhile.
#[inline(always)]
fn oldest(set: &ProgressSet, fingerprint: u32, next: u32) -> Option<(usize, Pair)> {
    const LAST: usize = WAYS - 1;
    const BITS: u32 = WAYS.ilog2();
    // Age, and index from the end, in one number: one comparison finds both.
    let mut oldest = 0;
    for way in 0..WAYS {
        let pair = set.pair(way);
        if pair.fingerprint() == fingerprint {
            return None;
        }
        let (age, from_end) = (u64::from(pair.age(next)), (LAST - way) as u64);
        oldest = oldest.max(age << BITS | from_end);
    }
    let way = LAST - oldest as usize % WAYS;
    let pair = set.pair(way);
    (u64::from(pair.age(next)) == oldest >> BITS).then_some((way, pair))
}

#[cfg(test)]
mod tests;
