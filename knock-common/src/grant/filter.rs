//! Which keys may have a grant: a filter in front of the grant tables.
//!
//! Hardly any source of a flood has a grant, and a look-up in a large hash table takes two cache
//! misses. The filter takes at most one, in a table of 2 bytes a grant: each word holds seven
//! fingerprints of keys, and the number of further keys that have no fingerprint in it. (Cuckoo filters,
//! which keep fingerprints too, need less room, but move them about.)
//!
//! **A key that is in a grant table is counted in its word**: by its fingerprint, or in the number of further keys.
//! That holds at any time, since a key is counted in before it is inserted, and counted out after it has been removed.
//! Each change of a word is one compare-and-exchange, in user space too, so none is lost.
//!
//! - Keys with the same fingerprint are interchangeable. If a key is counted out whose fingerprint is not in the word, it
//!   is one of the further keys, so their number is never too small.
//! - That number stays at 255 once it is reached: it may stand for more, so it is not counted
//!   down. That, and a command that was killed between two steps, costs unnecessary look-ups, and never hides a
//!   grant.

use super::GrantKey;
use crate::{Address, Env, seed::Seed};

/// How often a change is tried. Each failure means that another CPU has changed the same word in between.
const TRIES: usize = 8;

/// The lowest bit of each fingerprint, and the highest. The word's highest byte has none.
const LOWEST: u64 = 0x0001_0101_0101_0101;
const HIGHEST: u64 = LOWEST << 7;
/// One further key without a fingerprint, and the most that can be counted.
const PLACELESS: u64 = 1 << 56;
const MOST: u64 = 255 * PLACELESS;

/// Returns the number of words for this limit of grants, a power of two: at most four grants a word, and at least a page.
pub const fn words(grants: usize) -> usize {
    let words = grants.div_ceil(4).next_power_of_two();
    if words < 512 { 512 } else { words }
}

/// Where a key is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Index of the word, modulo their number.
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

    /// Returns whether the key may be there, according to its word.
    #[inline(always)]
    pub const fn is_counted(self, word: u64) -> bool {
        self.find(word) != 0 || word >= PLACELESS
    }

    /// Returns the word with the key counted in.
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

    /// Returns the word with the key counted out.
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

    /// Returns the lowest bit of the first byte with the key's fingerprint; 0: there is none.
    #[inline(always)]
    const fn find(self, word: u64) -> u64 {
        zero(word ^ (self.fingerprint * LOWEST))
    }
}

/// Returns whether `key` can be in its grant table.
#[inline(always)]
pub fn may_have<E: Env, A: Address>(env: &E, key: &GrantKey<A>) -> bool {
    let position = Position::of(key, env.seed());
    env.grant_filter(position.word)
        .is_none_or(|word| position.is_counted(*word))
}

/// Counts `key` in, before it is inserted. Returns false if it could not be counted: then it must not be inserted.
#[inline(always)]
pub fn count_in<E: Env, A: Address>(env: &E, key: &GrantKey<A>) -> bool {
    let position = Position::of(key, env.seed());
    change(env, position.word, |word| position.count_in(word))
}

/// Counts `key` out, after it has been removed.
#[inline(always)]
pub fn count_out<E: Env, A: Address>(env: &E, key: &GrantKey<A>) {
    let position = Position::of(key, env.seed());
    // If that fails it stays counted in, which does no harm.
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

/// Returns the lowest bit of the first byte that is zero; 0: there is none.
#[inline(always)]
const fn zero(word: u64) -> u64 {
    // A borrow from a byte comes from a zero byte below it, so the first zero is exact.
    let zeros = word.wrapping_sub(LOWEST) & !word & HIGHEST;
    (zeros & zeros.wrapping_neg()) >> 7
}

#[cfg(test)]
mod tests;
