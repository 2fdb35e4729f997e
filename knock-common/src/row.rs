//! Rows: where most keys of a table have their slots.
//!
//! The slots of a table lie in rows of [`SLOTS`]. A keyed hash of a key selects its home row. A word for each row has a byte for
//! each slot: the fingerprint of the key in that slot, if the key is at home in the row. These words take little more than a
//! byte for each slot, so they stay in near caches, and a look-up waits for one line of memory, that of the slot.
//!
//! - Each key has a first choice among the slots of its home row, and gets it if it can. A look-up begins there, with a branch on
//!   the fingerprint: a processor that predicts it reads the slot and the word at the same time. A key that has another slot is
//!   looked for in all slots of the row at once, without a branch for each that could be predicted wrongly.
//! - Other keys can have the same fingerprint, so a look-up compares the key with what is in the slot.
//! - A key whose home row is full gets a slot elsewhere, to which a [set](crate::set) leads. The top byte of the word of its
//!   home counts such keys, from before they are linked until after they are unlinked. Sets are looked at only where there are
//!   some.
//! - Each change is a compare-and-exchange of the word, in user space too. If other CPUs change the word at the same moment each
//!   time that it is tried, a key is not linked, and gets no slot; one that was to be unlinked leaves its fingerprint behind,
//!   which leads to a slot that it no longer has. Such a slot does not look free, and is taken only by its index.

use crate::{
    Memory,
    memory::read,
    set::{NO_SLOT, Position, change},
};

/// Slots of a row.
pub const SLOTS: u32 = 7;
/// In place of a fingerprint: the slot has no key.
pub const FREE: u64 = 0;
/// In place of a fingerprint: the slot has a key that is at home elsewhere.
const STRANGER: u64 = 0xff;

/// A word with 1 in the byte of each slot.
const EACH: u64 = 0x0001_0101_0101_0101;
/// Where the top byte is.
const COUNT_SHIFT: u32 = 56;
/// The most keys that are counted. Where there were as many, the count stays.
const MOST: u64 = 0xff;

/// Returns the number of rows for this many slots. The last row may have fewer than the others.
pub const fn rows(slots: usize) -> usize {
    slots.div_ceil(SLOTS as usize)
}

/// The rows of one table.
pub trait Rows {
    /// Returns how many there are.
    fn rows(&self) -> u32;

    /// Returns the word of a row by its index.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn row(&self, index: u32) -> Option<&mut u64>;
}

/// Returns the index of the home row of a key, where there are so many rows.
#[inline(always)]
pub const fn home(position: Position, rows: u32) -> u32 {
    // Widening; `From` is not const.
    (((position.to_bits() >> 32) * rows as u64) >> 32) as u32
}

/// Returns the place of a key's first choice in its home row: below [`SLOTS`].
#[inline(always)]
const fn first_place(position: Position) -> u32 {
    // The lowest bits, since the fingerprint and the row come from higher ones.
    ((position.to_bits() as u16 as u32) * SLOTS) >> 16
}

/// Returns the slot of its home row that a key gets if it can, where there are so many rows.
#[inline(always)]
pub const fn first_choice(position: Position, rows: u32) -> u32 {
    home(position, rows) * SLOTS + first_place(position)
}

/// Returns the slots of the row of a first choice: that one, and then all.
#[inline(always)]
pub fn slots(choice: u32) -> impl Iterator<Item = u32> {
    let home = choice / SLOTS * SLOTS;
    (0..=SLOTS).map(move |turn| if turn == 0 { choice } else { home + turn - 1 })
}

/// Returns the fingerprint of a key: 1 to 254.
#[inline(always)]
pub(crate) const fn fingerprint(position: Position) -> u64 {
    // Of the bits between those that select the first choice and those that select the row and the set. Widening; `From` is not
    // const.
    (((position.to_bits() as u32 >> 16) * 254) >> 16) as u64 + 1
}

/// Returns a slot with the fingerprint of this key in its home row, which has this index and word: its
/// [first choice](first_choice), or else the first one, or [`NO_SLOT`] if the key can only be elsewhere. `None`: the table does not
/// have the key.
#[inline(always)]
pub const fn find(word: u64, row: u32, position: Position) -> Option<u32> {
    let (place, fingerprint) = (first_place(position), fingerprint(position));
    if word >> (8 * place) & 0xff != fingerprint {
        let slot = first(word, row, fingerprint);
        let is_nowhere = slot == NO_SLOT && !has_others(word);
        return if is_nowhere { None } else { Some(slot) };
    }
    Some(row * SLOTS + place)
}

/// Returns the first slot of a row with this byte: a fingerprint, or [`FREE`]. [`NO_SLOT`]: there is none.
#[inline(always)]
pub const fn first(word: u64, row: u32, fingerprint: u64) -> u32 {
    /// What a word with a single bit, the lowest of a slot's byte, is multiplied by to have the slot's number in the top byte.
    const NUMBERS: u64 = 0x0001_0203_0405_0607;
    let differs = word ^ fingerprint.wrapping_mul(EACH);
    // The highest bit of each byte that is 0. Of bytes behind the first one that is 0, this can be wrong.
    let equal = differs.wrapping_sub(EACH) & !differs & (EACH << 7);
    if equal == 0 {
        return NO_SLOT;
    }
    let lowest = (equal & equal.wrapping_neg()) >> 7;
    row * SLOTS + (lowest.wrapping_mul(NUMBERS) >> 56) as u32
}

/// Returns whether keys that are at home in the row with this word have slots elsewhere.
#[inline(always)]
pub const fn has_others(word: u64) -> bool {
    word >> COUNT_SHIFT != 0
}

/// Returns a slot with the fingerprint of this key in its home row that `is_wanted`, in the order of [`slots`], or [`NO_SLOT`].
#[inline(always)]
pub fn search(word: u64, row: u32, position: Position, is_wanted: impl Fn(u32) -> bool) -> u32 {
    let fingerprint = fingerprint(position);
    // Where a table is full, nearly every look-up of a key that it does not have comes here.
    if first(word, row, fingerprint) == NO_SLOT {
        return NO_SLOT;
    }
    let is_it = |place| {
        let slot = row * SLOTS + place;
        word >> (8 * place) & 0xff == fingerprint && is_wanted(slot)
    };
    let choice = first_place(position);
    if is_it(choice) {
        return row * SLOTS + choice;
    }
    for place in 0..SLOTS {
        if is_it(place) {
            return row * SLOTS + place;
        }
    }
    NO_SLOT
}

/// Returns whether a slot is in the home row of a key.
#[inline(always)]
pub const fn is_home(position: Position, slot: u32, rows: u32) -> bool {
    slot / SLOTS == home(position, rows)
}

/// Makes the home row of a key lead to a slot in it. Returns false if other CPUs changed the word each time.
#[inline(always)]
pub fn link<R: Rows, M: Memory>(rows: &R, memory: &M, position: Position, slot: u32) -> bool {
    put(rows, memory, slot, fingerprint(position))
}

/// Notes that a slot has no key any more.
#[inline(always)]
pub fn unlink<R: Rows, M: Memory>(rows: &R, memory: &M, slot: u32) {
    put(rows, memory, slot, FREE);
}

/// Counts a key that gets a slot elsewhere. Returns false if other CPUs changed the word each time.
#[inline(always)]
pub fn count_in<R: Rows, M: Memory>(rows: &R, memory: &M, position: Position) -> bool {
    let row = rows.row(home(position, rows.rows()));
    row.is_some_and(|word| {
        change(memory, word, |word| {
            if word >> COUNT_SHIFT < MOST {
                word + (1 << COUNT_SHIFT)
            } else {
                word
            }
        })
    })
}

/// Undoes [`count_in`]. If other CPUs change the word each time, look-ups look at sets for nothing.
#[inline(always)]
pub fn count_out<R: Rows, M: Memory>(rows: &R, memory: &M, position: Position) {
    if let Some(word) = rows.row(home(position, rows.rows())) {
        change(memory, word, |word| match word >> COUNT_SHIFT {
            0 | MOST => word,
            _ => word - (1 << COUNT_SHIFT),
        });
    }
}

/// Notes that a slot has a key from elsewhere. If other CPUs change the word each time, the slot seems to be free.
#[inline(always)]
pub fn lend<R: Rows, M: Memory>(rows: &R, memory: &M, slot: u32) {
    put(rows, memory, slot, STRANGER);
}

#[inline(always)]
fn put<R: Rows, M: Memory>(rows: &R, memory: &M, slot: u32, fingerprint: u64) -> bool {
    let shift = 8 * (slot % SLOTS);
    let row = rows.row(slot / SLOTS);
    row.is_some_and(|word| {
        change(memory, word, |word| {
            word & !(0xff << shift) | fingerprint << shift
        })
    })
}

/// Returns whether a slot looks free in the word of its row.
#[inline(always)]
pub const fn is_free(word: u64, slot: u32) -> bool {
    word >> (8 * (slot % SLOTS)) & 0xff == FREE
}

/// Returns the word of a row, as it is now.
#[inline(always)]
pub fn word<R: Rows>(rows: &R, row: u32) -> Option<u64> {
    Some(read(&*rows.row(row)?))
}

#[cfg(test)]
mod tests;
