//! Which keys may have a grant: a filter in front of the [table](super::table) of grants.
//!
//! Hardly any source of a flood has a grant, and the table takes 72 bytes for each grant, so a look-up waits for memory. The
//! filter takes 2 bytes for each grant, and so stays in near caches: each word holds seven
//! fingerprints of keys, and the number of further keys that have no fingerprint in it. (Cuckoo filters,
//! which keep fingerprints too, need less room, but move them about.)
//!
//! **A key that is in the table is counted in its word**: by its fingerprint, or in the number of further keys.
//! That holds at any time, since a key is counted in before it is linked to its slot, and counted out afterwards.
//! Each change of a word is one compare-and-exchange, in user space too, so none is lost.
//!
//! - Keys with the same fingerprint are interchangeable. If a key is counted out whose fingerprint is not in the word, it
//!   is one of the further keys, so their number is never too small.
//! - That number stays at 255 once it is reached: it may stand for more, so it is not counted
//!   down. That, and a command that was killed between two steps, costs unnecessary look-ups, and never hides a
//!   grant.

use crate::{
    memory::{GrantMemory, read},
    set::{Position, change, slot_mask},
};

/// The lowest bit of each fingerprint, and the highest. The word's highest byte has none.
const LOWEST: u64 = 0x0001_0101_0101_0101;
const HIGHEST: u64 = LOWEST << 7;
/// One further key without a fingerprint, and the most that can be counted.
const PLACELESS: u64 = 1 << 56;
const MOST: u64 = 255 * PLACELESS;

/// Returns the mask of a word's index: the number of words, a power of two, less one. There are at most four grants for each word,
/// and the words fill at least a page.
/// `slot_mask`: [`slot_mask`] of the grants.
#[inline(always)]
pub const fn mask(slot_mask: u32) -> u32 {
    slot_mask >> 2 | 511
}

/// Returns the number of words for this limit of grants.
pub const fn words(grants: usize) -> usize {
    mask(slot_mask(grants)) as usize + 1
}

impl Position {
    /// Returns the fingerprint in the word: 1 to 255.
    #[inline(always)]
    const fn fingerprint(self) -> u64 {
        let byte = self.to_bits() >> 24 & 0xff;
        if byte == 0 { 1 } else { byte }
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
            word + self.fingerprint() * free
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
            word - self.fingerprint() * found
        } else if word >= PLACELESS && word < MOST {
            word - PLACELESS
        } else {
            word
        }
    }

    /// Returns the lowest bit of the first byte with the key's fingerprint; 0: there is none.
    #[inline(always)]
    const fn find(self, word: u64) -> u64 {
        zero(word ^ (self.fingerprint() * LOWEST))
    }
}

/// Returns whether a key can be in the table.
#[inline(always)]
pub fn may_have<M: GrantMemory>(memory: &M, position: Position) -> bool {
    memory
        .grant_filter(position.index())
        .is_none_or(|word| position.is_counted(read(word)))
}

/// Counts a key in, before it is linked to its slot. Returns false if it could not be counted: then it must not be linked.
#[inline(always)]
pub fn count_in<M: GrantMemory>(memory: &M, position: Position) -> bool {
    memory
        .grant_filter(position.index())
        .is_some_and(|word| change(memory, word, |word| position.count_in(word)))
}

/// Counts a key out, after it has been unlinked.
#[inline(always)]
pub fn count_out<M: GrantMemory>(memory: &M, position: Position) {
    if let Some(word) = memory.grant_filter(position.index()) {
        // If that fails it stays counted in, which does no harm.
        change(memory, word, |word| position.count_out(word));
    }
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
