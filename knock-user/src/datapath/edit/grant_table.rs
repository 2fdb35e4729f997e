//! The table of grants, mapped into memory: commands and the service change it with the program's own code, while the program
//! changes it too.

use std::{
    ops::Range,
    sync::atomic::{Ordering, fence},
};

use anyhow::Result;
use aya::maps::{Array, MapData};
use knock_common::{
    Memory,
    grant::{FREE, Grant, HELD},
    memory::{GrantMemory, read},
    seed::Seed,
    set::{Set, slot_mask},
};

use super::shared;
use crate::sys::bpf::mapping::Mapping;

/// Slots, sets and filter of the grants; see [`knock_common::grant::table`].
pub struct GrantTable {
    slots: Mapping<Grant>,
    /// How many there are.
    count: u32,
    sets: Mapping<Set>,
    filter: Mapping<u64>,
    seed: Seed,
}

impl GrantTable {
    pub(in crate::datapath) fn of(
        slots: &Array<MapData, Grant>,
        sets: &Array<MapData, Set>,
        filter: &Array<MapData, u64>,
        seed: Seed,
    ) -> Result<Self> {
        Ok(Self {
            slots: Mapping::of(slots)?,
            count: slots.len(),
            sets: Mapping::of(sets)?,
            filter: Mapping::of(filter)?,
            seed,
        })
    }

    /// Returns the grants, live or not.
    pub fn grants(&self) -> impl Iterator<Item = Grant> {
        self.indices().filter_map(|slot| self.get(slot))
    }

    /// Returns the grant in a slot as it was at one moment; `None`: there is none, or somebody is changing it.
    fn get(&self, slot: u32) -> Option<Grant> {
        let grant = self.grant(slot)?;
        loop {
            let until = read(&grant.until);
            if until <= HELD {
                return None;
            }
            fence(Ordering::Acquire);
            let copy = read(&*grant);
            fence(Ordering::Acquire);
            // Otherwise the grant was renewed, or its slot given to another key, during the copy: read it again.
            if read(&grant.until) == until {
                return Some(Grant { until, ..copy });
            }
        }
    }

    /// Returns the connections that the grant in a slot has admitted.
    pub fn connections(&self, slot: u32) -> u32 {
        self.grant(slot).map_or(0, |grant| read(&grant.connections))
    }

    /// Returns the indices of the slots.
    pub const fn indices(&self) -> Range<u32> {
        0..self.count
    }

    /// Returns whether there is no grant, live or not, and nothing that leads to one.
    pub fn is_clear(&self) -> bool {
        self.slots.iter().all(|grant| grant.until == FREE)
            && self.sets.iter().all(|set| set == Set::default())
            && self.filter.iter().all(|word| word == 0)
    }
}

impl Memory for GrantTable {
    fn seed(&self) -> Seed {
        self.seed
    }

    fn read_after<T: Copy>(&self, cell: &T, _: u64) -> T {
        shared::read_after(cell)
    }

    fn compare_exchange(&self, cell: &mut u64, current: u64, new: u64) -> bool {
        self.slots.require_writable();
        shared::compare_exchange(cell, current, new)
    }

    fn fetch_add(&self, cell: &mut u32) -> u32 {
        self.slots.require_writable();
        shared::fetch_add(cell, 1)
    }

    fn fetch_sub(&self, cell: &mut u32) -> u32 {
        self.slots.require_writable();
        shared::fetch_add(cell, u32::MAX)
    }
}

impl GrantMemory for GrantTable {
    fn grant_filter(&self, index: u32) -> Option<&mut u64> {
        self.filter.shared(index as usize & (self.filter.len() - 1))
    }

    fn grant_set(&self, index: u32) -> Option<&mut Set> {
        self.sets.shared(index as usize & (self.sets.len() - 1))
    }

    fn grant_slot_mask(&self) -> u32 {
        slot_mask(self.slots.len())
    }

    fn grant(&self, slot: u32) -> Option<&mut Grant> {
        self.slots.shared(slot as usize)
    }
}
