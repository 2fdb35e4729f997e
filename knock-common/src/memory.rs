//! Memory that all CPUs and user space share.

use crate::{
    grant::{Grant, table as grants},
    seed::Seed,
    session::{Session, table as sessions},
    set::{Position, Set},
};

/// Reads a word once, since others may write to it.
#[inline(always)]
pub fn read<T: Copy>(cell: &T) -> T {
    // SAFETY: a reference is aligned and can be read.
    unsafe { (&raw const *cell).read_volatile() }
}

/// How words of this memory are read and changed.
pub trait Memory {
    /// Returns the key of the hash that leads to rows and sets.
    fn seed(&self) -> Seed;

    /// Reads `cell` after what `read` is computed from, on every architecture.
    fn read_after<T: Copy>(&self, cell: &T, read: u64) -> T;

    /// Stores `new` if `cell` still holds `current`. Returns whether it did. A full memory barrier if so.
    fn compare_exchange(&self, cell: &mut u64, current: u64, new: u64) -> bool;

    /// Adds one. Returns the value before.
    fn fetch_add(&self, cell: &mut u32) -> u32;

    /// Subtracts one. Returns the value before.
    fn fetch_sub(&self, cell: &mut u32) -> u32;
}

/// The [table of grants](grants), which user space changes with the program's own code.
pub trait GrantMemory: Memory {
    /// Returns a word of the filter in front of the grants; see [`filter`](crate::grant::filter). `index` is taken modulo the
    /// number of words.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn grant_filter(&self, index: u32) -> Option<&mut u64>;

    /// Returns a set. `index` is taken modulo their number.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn grant_set(&self, index: u32) -> Option<&mut Set>;

    /// Returns the [`slot_mask`](crate::set::slot_mask) of the slots.
    fn grant_slot_mask(&self) -> u32;

    /// Returns a slot by its index.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn grant(&self, slot: u32) -> Option<&mut Grant>;

    /// [`link`](grants::link), [`unlink`](grants::unlink) and [`search`](grants::search): in the kernel program these are
    /// functions that the verifier checks once, and not at each call.
    fn link_grant(&self, position: Position, slot: u32) -> bool
    where
        Self: Sized,
    {
        grants::link(self, position, slot)
    }
    fn unlink_grant(&self, position: Position, slot: u32)
    where
        Self: Sized,
    {
        grants::unlink(self, position, slot);
    }
    fn search_grant(&self, position: Position, tag: u64, but: u32) -> u32
    where
        Self: Sized,
    {
        grants::search(self, position, tag, but)
    }
}

/// The [table of sessions](sessions), which user space changes with the program's own code too.
pub trait SessionMemory: Memory {
    /// Returns how many [rows](crate::row) there are.
    fn session_rows(&self) -> u32;

    /// Returns the word of a row by its index.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn session_row(&self, index: u32) -> Option<&mut u64>;

    /// Returns a set. `index` is taken modulo their number.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn session_set(&self, index: u32) -> Option<&mut Set>;

    /// Returns the [`slot_mask`](crate::set::slot_mask) of the slots.
    fn session_slot_mask(&self) -> u32;

    /// Returns a slot by its index.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn session(&self, slot: u32) -> Option<&mut Session>;

    /// Returns how many slots count to a holder.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn session_count(&self, holder: u16) -> Option<&mut u32>;

    /// [`link`](sessions::link), [`unlink`](sessions::unlink), [`search`](sessions::search) and
    /// [`take_free`](sessions::take_free): functions of their own in the kernel
    /// program, as those of [`GrantMemory`].
    fn link_session(&self, position: Position, slot: u32) -> bool
    where
        Self: Sized,
    {
        sessions::link(self, position, slot)
    }
    fn unlink_session(&self, position: Position, slot: u32)
    where
        Self: Sized,
    {
        sessions::unlink(self, position, slot);
    }
    fn search_session(&self, position: Position, tag: u64, but: u32) -> u32
    where
        Self: Sized,
    {
        sessions::search(self, position, tag, but)
    }
    fn take_free_session(&self, choice: u32) -> u32
    where
        Self: Sized,
    {
        sessions::take_free(self, choice)
    }
}
