//! Which keys may have a grant: a filter in front of the grant tables.
//!
//! Hardly any source of a flood has one, and to learn that from a large hash table takes two cache
//! misses. Here it takes one at most, in a table of 2 bytes a grant: each word holds seven
//! fingerprints of keys, and how many more keys have found no place in it. (Cuckoo filters, which
//! keep fingerprints too, need less room, but move them about.)
//!
//! **A key that is in a grant table is counted in its word**: it has its fingerprint there, or is
//! among those without a position. That holds at any time, since a key is counted in before it is
//! inserted, and counted out by whoever has removed it, afterwards. Each of these changes a word by
//! one compare-and-exchange, in user space too, so none is lost.
//!
//! - Keys with the same fingerprint are alike: which of them goes makes no difference. Where one goes
//!   of which no fingerprint is there, it is one of those without a place, so these are never fewer
//!   than they should be.
//! - Their number stays at 255 once it has come there: it may stand for more, so it isn't counted
//!   down. That, and what a command that was killed in between leaves counted in, costs look-ups in
//!   vain, and never overlooks a grant.

use super::GrantKey;
use crate::{Address, Env, seed::Seed};

/// How often a change is tried. Each failure means that another CPU has changed the same word just
/// then.
const TRIES: usize = 8;

/// The lowest bit of each fingerprint, and the highest. The word's highest byte has none.
const LOWEST: u64 = 0x0001_0101_0101_0101;
const HIGHEST: u64 = LOWEST << 7;
/// One more without a place, and the most that can be counted.
const PLACELESS: u64 = 1 << 56;
const MOST: u64 = 255 * PLACELESS;

/// Number of words for a limit of so many grants, a power of two: four for each word at most. A page
/// at least.
pub const fn words(grants: usize) -> usize {
    let words = grants.div_ceil(4).next_power_of_two();
    if words < 512 { 512 } else { words }
}

/// Where a key is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Names the word, modulo their number.
    pub word: u32,
    /// 1 to 255.
    fingerprint: u64,
}

impl Position {
    #[inline(always)]
    pub fn of<A: Address>(key: &GrantKey<A>, seed: Seed) -> Self {
        let scope = u64::from(key.gate) | u64::from(key.length) << 16;
        let hash = seed.hash(key.address.padded(), scope);
        Self {
            word: (hash >> 32) as u32,
            fingerprint: (hash >> 24 & 0xff).max(1),
        }
    }

    /// May the key be there, going by its word?
    #[inline(always)]
    pub const fn is_counted(self, word: u64) -> bool {
        self.find(word) != 0 || word >= PLACELESS
    }

    /// The word with the key counted in.
    #[inline(always)]
    pub const fn count_in(self, word: u64) -> u64 {
        let free = zero(word);
        if free != 0 {
            word + self.fingerprint * free
        } else if word < MOST {
            word + PLACELESS
        } else {
            word
        }
    }

    /// The word with the key counted out.
    #[inline(always)]
    pub const fn count_out(self, word: u64) -> u64 {
        let found = self.find(word);
        if found != 0 {
            word - self.fingerprint * found
        } else if word >= PLACELESS && word < MOST {
            word - PLACELESS
        } else {
            word
        }
    }

    /// The lowest bit of the first place that has the key's fingerprint; 0: none has.
    #[inline(always)]
    const fn find(self, word: u64) -> u64 {
        zero(word ^ (self.fingerprint * LOWEST))
    }
}

/// Can `key` be in its grant table?
#[inline(always)]
pub fn may_have<E: Env, A: Address>(env: &E, key: &GrantKey<A>) -> bool {
    let position = Position::of(key, env.seed());
    env.grant_filter(position.word)
        .is_none_or(|word| position.is_counted(*word))
}

/// Before `key` is inserted. `false`: it must not be, since it couldn't be counted.
#[inline(always)]
pub fn count_in<E: Env, A: Address>(env: &E, key: &GrantKey<A>) -> bool {
    let position = Position::of(key, env.seed());
    change(env, position.word, |word| position.count_in(word))
}

/// After `key` has been removed, by whoever has removed it.
#[inline(always)]
pub fn count_out<E: Env, A: Address>(env: &E, key: &GrantKey<A>) {
    let position = Position::of(key, env.seed());
    // Where that fails it stays counted in, which does no harm.
    change(env, position.word, |word| position.count_out(word));
}

#[inline(always)]
fn change<E: Env>(env: &E, word: u32, to: impl Fn(u64) -> u64) -> bool {
    let Some(word) = env.grant_filter(word) else {
        return false;
    };
    for _ in 0..TRIES {
        let before = *word;
        if env.compare_exchange(word, before, to(before)) {
            return true;
        }
    }
    false
}

/// The lowest bit of the first place that is zero; 0: none is.
#[inline(always)]
const fn zero(word: u64) -> u64 {
    // Whatever is borrowed from a place comes from a zero below it, so the first one is exact.
    let zeros = word.wrapping_sub(LOWEST) & !word & HIGHEST;
    (zeros & zeros.wrapping_neg()) >> 7
}

#[cfg(test)]
mod tests;
