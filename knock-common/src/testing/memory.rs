//! [`Memory`] in ordinary memory, in which something can happen at any access.

use std::cell::UnsafeCell;

use super::TestEnv;
use crate::{
    Memory,
    grant::Grant,
    memory::{GrantMemory, SessionMemory},
    seed::Seed,
    session::Session,
    set::{Set, slot_mask},
};

impl TestEnv {
    fn access(&self) {
        match self.at_access.take() {
            Some((0, happens)) => happens(self),
            Some((left, happens)) => self.at_access.set(Some((left - 1, happens))),
            None => {}
        }
    }
}

impl Memory for TestEnv {
    fn seed(&self) -> Seed {
        // Any numbers.
        Seed::new(0x1234_5677_89ab_cdef, 0x0f1e_2d3d_4b5a_6979)
    }

    fn read_after<T: Copy>(&self, cell: &T, _: u64) -> T {
        self.access();
        *cell
    }

    fn compare_exchange(&self, cell: &mut u64, current: u64, new: u64) -> bool {
        self.access();
        let rows = self.session_rows.as_ptr_range();
        if self.rows_are_busy.get() && rows.contains(&(&raw const *cell).cast()) {
            return false;
        }
        let equal = *cell == current;
        if equal {
            *cell = new;
        }
        equal
    }

    fn fetch_add(&self, cell: &mut u32) -> u32 {
        let before = *cell;
        *cell = before.wrapping_add(1);
        before
    }

    fn fetch_sub(&self, cell: &mut u32) -> u32 {
        let before = *cell;
        *cell = before.wrapping_sub(1);
        before
    }
}

impl GrantMemory for TestEnv {
    fn grant_filter(&self, index: u32) -> Option<&mut u64> {
        modulo(&self.grant_filter, index)
    }

    fn grant_set(&self, index: u32) -> Option<&mut Set> {
        modulo(&self.grant_sets, index)
    }

    fn grant_slot_mask(&self) -> u32 {
        slot_mask(self.grants.slots.len())
    }

    fn grant(&self, slot: u32) -> Option<&mut Grant> {
        self.grants.slot(slot)
    }
}

impl SessionMemory for TestEnv {
    fn session_rows(&self) -> u32 {
        self.session_rows.len() as u32
    }

    fn session_row(&self, index: u32) -> Option<&mut u64> {
        let word = self.session_rows.get(index as usize)?;
        // SAFETY: as in `modulo`.
        Some(unsafe { &mut *word.get() })
    }

    fn session_set(&self, index: u32) -> Option<&mut Set> {
        modulo(&self.session_sets, index)
    }

    fn session_slot_mask(&self) -> u32 {
        slot_mask(self.sessions.slots.len())
    }

    fn session(&self, slot: u32) -> Option<&mut Session> {
        self.sessions.slot(slot)
    }

    fn session_count(&self, holder: u16) -> Option<&mut u32> {
        Some(self.session_counts.entry(holder))
    }
}

#[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
pub(super) fn modulo<T>(cells: &[UnsafeCell<T>], index: u32) -> Option<&mut T> {
    let index = (index as usize).checked_rem(cells.len())?;
    // SAFETY: one thread, and no value of a cell is used after another reference to the cell has been.
    Some(unsafe { &mut *cells[index].get() })
}
