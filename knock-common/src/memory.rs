//! Memory that all CPUs and user space share.

use crate::{
    grant::{
        Grant,
        filter::Position,
        table::{self, GrantSet},
    },
    seed::Seed,
};

/// Reads a word once, since others may write to it.
#[inline(always)]
pub fn read<T: Copy>(cell: &T) -> T {
    // SAFETY: a reference is aligned and can be read.
    unsafe { (&raw const *cell).read_volatile() }
}

/// How words of this memory are read and changed, and the tables that user space changes by the program's own code.
pub trait Memory {
    fn seed(&self) -> Seed;

    /// Returns a word of the filter in front of the grants; see [`filter`](crate::grant::filter). `index` is taken modulo their number.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn grant_filter(&self, index: u32) -> Option<&mut u64>;

    /// Returns a set of the [`table`] of grants. `index` is taken modulo their
    /// number.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn grant_set(&self, index: u32) -> Option<&mut GrantSet>;

    /// Returns the slot of a grant by its index.
    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    fn grant(&self, slot: u32) -> Option<&mut Grant>;

    /// [`link`](table::link), [`unlink`](table::unlink) and [`search`](table::search): in the kernel program these are
    /// functions that the verifier checks once, and not at each call.
    fn link_grant(&self, position: Position, slot: u32) -> bool
    where
        Self: Sized,
    {
        table::link(self, position, slot)
    }
    fn unlink_grant(&self, position: Position, slot: u32)
    where
        Self: Sized,
    {
        table::unlink(self, position, slot);
    }
    fn search_grant(&self, position: Position, tag: u64, but: u32) -> u32
    where
        Self: Sized,
    {
        table::search(self, position, tag, but)
    }

    /// Reads `cell` after what `read` is computed from, on every architecture.
    fn read_after(&self, cell: &u64, read: u64) -> u64;

    /// Stores `new` if `cell` still holds `current`. Returns whether it did. A full memory barrier if so.
    fn compare_exchange(&self, cell: &mut u64, current: u64, new: u64) -> bool;
}
