//! A table with what leads to its slots, mapped into memory: commands and the service change it with the program's own code, while the program
//! changes it too.

use std::{
    ops::Range,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use anyhow::Result;
use aya::{
    Pod,
    maps::{Array, MapData},
};
use knock_common::{
    Memory,
    memory::read,
    seed::Seed,
    set::{Set, slot_mask},
};

use crate::sys::bpf::mapping::Mapping;

/// Slots, the sets that lead to them, and, in `more`, further arrays.
pub struct SharedTable<S, M> {
    pub(super) slots: Mapping<S>,
    /// How many there are.
    count: u32,
    pub(super) sets: Mapping<Set>,
    pub(super) more: M,
    seed: Seed,
}

impl<S: Pod, M> SharedTable<S, M> {
    pub(in crate::datapath) fn of(
        slots: &Array<MapData, S>,
        sets: &Array<MapData, Set>,
        more: M,
        seed: Seed,
    ) -> Result<Self> {
        Ok(Self {
            slots: Mapping::of(slots)?,
            count: slots.len(),
            sets: Mapping::of(sets)?,
            more,
            seed,
        })
    }

    /// Returns the indices of the slots.
    pub const fn indices(&self) -> Range<u32> {
        0..self.count
    }

    /// Returns a set. `index` is taken modulo their number, a power of two.
    pub(super) fn set(&self, index: u32) -> Option<&mut Set> {
        self.sets.shared(index as usize & (self.sets.len() - 1))
    }

    /// Returns the [`slot_mask`] of the slots.
    pub(super) fn mask(&self) -> u32 {
        slot_mask(self.slots.len())
    }
}

impl<S: Pod, M> Memory for SharedTable<S, M> {
    fn seed(&self) -> Seed {
        self.seed
    }

    fn read_after<T: Copy>(&self, cell: &T, _: u64) -> T {
        fence(Ordering::Acquire);
        read(cell)
    }

    fn compare_exchange(&self, cell: &mut u64, current: u64, new: u64) -> bool {
        self.slots.require_writable();
        // SAFETY: a reference is aligned, and the program changes the word by atomic instructions too.
        let cell = unsafe { AtomicU64::from_ptr(cell) };
        let exchanged = cell.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst);
        // Without it, some arm64 processors do what follows before others see the exchange.
        fence(Ordering::SeqCst);
        exchanged.is_ok()
    }

    fn fetch_add(&self, cell: &mut u32) -> u32 {
        self.slots.require_writable();
        // SAFETY: as above.
        let cell = unsafe { AtomicU32::from_ptr(cell) };
        cell.fetch_add(1, Ordering::SeqCst)
    }

    fn fetch_sub(&self, cell: &mut u32) -> u32 {
        self.slots.require_writable();
        // SAFETY: as above.
        let cell = unsafe { AtomicU32::from_ptr(cell) };
        cell.fetch_sub(1, Ordering::SeqCst)
    }
}
