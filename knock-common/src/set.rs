//! Sets: which slot of a table has a key.
//!
//! A keyed hash of the key selects a set: one line of the processor's cache with [`WAYS`] pairs of a fingerprint and the index
//! of a slot. So a look-up waits for two lines of memory, takes no lock and calls no function of the kernel.
//!
//! - A pair takes 32 bits, so that the sets of many keys stay in near caches. The index takes as many of these bits as the
//!   table needs, and the fingerprint takes the others. Other keys can have the same fingerprint, so a look-up compares the
//!   key with what is in the slot.
//! - Each change is a compare-and-exchange of one word, in user space too. [`unlink`] tries twice. If another CPU changes the
//!   same word both times, the pair stays: it takes up room, and leads to a slot that the key no longer has.
//! - A key whose set is full goes to one of the next five. Its own set counts such keys, from before they are linked until
//!   after they are unlinked. If all keys are in sets, eight for each, the most there can be, this happens to about one
//!   key in 200. Fewer than one in a million find all six sets full; those have no room.

use bytemuck::{Pod, Zeroable, must_cast_ref};

use crate::{Memory, address::Padded, memory::read, seed::Seed};

/// Words of a set, of which the last is a count.
const WORDS: usize = 8;
const COUNT: usize = WORDS - 1;
/// Pairs of a set: two in each word except the last.
pub const WAYS: usize = 2 * COUNT;
/// How many sets, one after the other, a key may be in.
pub const SETS: u32 = 6;
/// No slot has this index.
pub const NO_SLOT: u32 = u32::MAX;
/// How often a change is tried. Each failure means that another CPU has changed the same word in between.
const TRIES: usize = 8;

/// Returns the bits that an index below `slots` may have. There are at most 2^24 slots.
pub const fn slot_mask(slots: usize) -> u32 {
    (slots.next_power_of_two() - 1) as u32
}

/// Returns the mask of a set's index: the number of sets, a power of two, less one. There are at most eight slots for each
/// set, and the sets fill at least a page.
#[inline(always)]
pub const fn set_mask(slot_mask: u32) -> u32 {
    slot_mask >> 3 | 63
}

/// Returns the number of sets for this many slots.
pub const fn sets(slots: usize) -> usize {
    set_mask(slot_mask(slots)) as usize + 1
}

/// Where a key is: its keyed hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position(u64);

impl Position {
    #[inline(always)]
    pub fn of(words: Padded, scope: u64, seed: Seed) -> Self {
        Self(seed.hash(words, scope))
    }

    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Index of the set, modulo their number.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the pair that leads to a slot. Its fingerprint is not 0, so it is not 0 either.
    #[inline(always)]
    const fn pair(self, slot: u32, slot_mask: u32) -> u32 {
        (self.0 as u32 | slot_mask.wrapping_add(1)) & !slot_mask | slot
    }
}

/// Places of keys, in one line of the processor's cache.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Zeroable, Pod)]
pub struct Set {
    /// Two pairs each; 0: none. See [`Position::pair`]. The last word counts the keys of this set that are in one of the next
    /// sets.
    words: [u64; WORDS],
}

records!(Set: 64 { words: 0 });

impl Set {
    /// Returns how many keys of this set are in one of the next.
    #[inline(always)]
    pub fn further(&self) -> u64 {
        read(&self.words[COUNT])
    }

    /// Returns the slot of the first pair with the fingerprint of this key that `is_wanted`, or [`NO_SLOT`].
    #[inline(always)]
    pub fn find(&self, position: Position, slot_mask: u32, is_wanted: impl Fn(u32) -> bool) -> u32 {
        for way in 0..WAYS {
            let slot = self.find_in(way, position, slot_mask, &is_wanted);
            if slot != NO_SLOT {
                return slot;
            }
        }
        NO_SLOT
    }

    /// As [`find`](Self::find), in one pair.
    #[inline(always)]
    fn find_in(
        &self,
        way: usize,
        position: Position,
        slot_mask: u32,
        is_wanted: &impl Fn(u32) -> bool,
    ) -> u32 {
        let pairs: &[u32; 2 * WORDS] = must_cast_ref(&self.words);
        // Where the fingerprints are equal, the index is left. Each packet takes this for every pair.
        let slot = read(&pairs[way % (2 * WORDS)]) ^ position.pair(0, slot_mask);
        if slot <= slot_mask && is_wanted(slot) {
            slot
        } else {
            NO_SLOT
        }
    }

    /// Replaces the first pair that equals `before`. Returns false if there is none, or if other CPUs changed its word each
    /// time.
    #[inline(always)]
    fn replace<M: Memory>(&mut self, memory: &M, before: u32, after: u32) -> bool {
        /// If another CPU has changed the same word in between, the second round finds the pair once more.
        const ROUNDS: usize = 2;
        for step in 0..ROUNDS * WORDS {
            let place = step % WORDS;
            let word = read(&self.words[place]);
            let changed = if place == COUNT {
                continue;
            } else if word as u32 == before {
                word ^ u64::from(before ^ after)
            } else if (word >> 32) as u32 == before {
                word ^ u64::from(before ^ after) << 32
            } else {
                continue;
            };
            if memory.compare_exchange(&mut self.words[place], word, changed) {
                return true;
            }
        }
        false
    }
}

/// The sets of one table.
pub trait Sets {
    /// Returns a set. `index` is taken modulo their number.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn set(&self, index: u32) -> Option<&mut Set>;

    /// Returns the [`slot_mask`] of the table.
    fn slot_mask(&self) -> u32;
}

/// Returns a slot that `is_wanted`, of a pair with the fingerprint of this key in any set that may lead to it, or [`NO_SLOT`].
#[inline(always)]
pub fn search<S: Sets>(sets: &S, position: Position, is_wanted: impl Fn(u32) -> bool) -> u32 {
    for ahead in 0..SETS {
        let Some(set) = sets.set(position.index().wrapping_add(ahead)) else {
            break;
        };
        // Nearly always, the first is the one, and the others are only looked at if it is not.
        let first = set.find(position, sets.slot_mask(), |_| true);
        if first != NO_SLOT {
            if is_wanted(first) {
                return first;
            }
            // Up to a power of two, so that the index is masked: the verifier may not know how far the loop has come.
            for way in 0..2 * WORDS {
                if way >= WAYS {
                    break;
                }
                let slot = set.find_in(way, position, sets.slot_mask(), &is_wanted);
                if slot != NO_SLOT {
                    return slot;
                }
            }
        }
        if ahead == 0 && set.further() == 0 {
            break;
        }
    }
    NO_SLOT
}

/// Makes a key lead to a slot. Returns false if there is no room.
#[inline(always)]
pub fn link<S: Sets, M: Memory>(sets: &S, memory: &M, position: Position, slot: u32) -> bool {
    let pair = position.pair(slot, sets.slot_mask());
    for ahead in 0..SETS {
        let Some(set) = sets.set(position.index().wrapping_add(ahead)) else {
            return false;
        };
        if set.replace(memory, 0, pair) {
            return true;
        }
        // Before the key is linked further on, so that no look-up stops at its own full set.
        if ahead == 0 && !change(memory, &mut set.words[COUNT], |further| further + 1) {
            return false;
        }
    }
    // All sets are full: the key is in none.
    count_out(sets, memory, position);
    false
}

/// Undoes [`link`].
#[inline(always)]
pub fn unlink<S: Sets, M: Memory>(sets: &S, memory: &M, position: Position, slot: u32) {
    let pair = position.pair(slot, sets.slot_mask());
    for ahead in 0..SETS {
        let Some(set) = sets.set(position.index().wrapping_add(ahead)) else {
            break;
        };
        if set.replace(memory, pair, 0) {
            if ahead != 0 {
                count_out(sets, memory, position);
            }
            break;
        }
        if ahead == 0 && set.further() == 0 {
            break;
        }
    }
}

/// Takes a key that is in one of the next sets out of the count of its own.
#[inline(always)]
fn count_out<S: Sets, M: Memory>(sets: &S, memory: &M, position: Position) {
    if let Some(set) = sets.set(position.index()) {
        // If that fails, look-ups go on to the next sets for nothing.
        change(memory, &mut set.words[COUNT], |further| {
            further.saturating_sub(1)
        });
    }
}

/// Changes a word that others change too. Returns false if they were faster each time.
#[inline(always)]
pub(crate) fn change<M: Memory>(memory: &M, word: &mut u64, to: impl Fn(u64) -> u64) -> bool {
    for _ in 0..TRIES {
        let before = read(word);
        if memory.compare_exchange(word, before, to(before)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
