//! [`Memory`] in ordinary memory, in which something can happen at any access.

use std::cell::UnsafeCell;

use super::TestEnv;
use crate::{
    Memory,
    grant::{Grant, table::GrantSet},
    seed::Seed,
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

    fn grant_filter(&self, index: u32) -> Option<&mut u64> {
        modulo(&self.grant_filter, index)
    }

    fn grant_set(&self, index: u32) -> Option<&mut GrantSet> {
        modulo(&self.grant_sets, index)
    }

    fn grant(&self, slot: u32) -> Option<&mut Grant> {
        let slot = self.grants.slots.get(slot as usize)?;
        // SAFETY: as in `modulo`.
        Some(unsafe { &mut *slot.get() })
    }

    fn read_after(&self, cell: &u64, _: u64) -> u64 {
        self.access();
        *cell
    }

    fn compare_exchange(&self, cell: &mut u64, current: u64, new: u64) -> bool {
        self.access();
        let equal = *cell == current;
        if equal {
            *cell = new;
        }
        equal
    }
}

#[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
fn modulo<T>(cells: &[UnsafeCell<T>], index: u32) -> Option<&mut T> {
    let index = (index as usize).checked_rem(cells.len())?;
    // SAFETY: one thread, and no value of a cell is used after another reference to the cell has been.
    Some(unsafe { &mut *cells[index].get() })
}
