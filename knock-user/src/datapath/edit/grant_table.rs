//! The table of grants, mapped into memory.

use std::sync::atomic::{Ordering, fence};

use knock_common::{
    grant::{FREE, Grant, HELD},
    memory::{GrantMemory, read},
    set::Set,
};

use super::shared::SharedTable;
use crate::sys::bpf::mapping::Mapping;

/// Slots, sets and filter of the grants; see [`knock_common::grant::table`].
pub type GrantTable = SharedTable<Grant, Mapping<u64>>;

impl GrantTable {
    /// Returns the grants, live or not, with their slots.
    pub fn grants(&self) -> impl Iterator<Item = (u32, Grant)> {
        self.indices()
            .filter_map(|slot| Some((slot, self.get(slot)?)))
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

    /// Returns whether there is no grant, live or not, and nothing that leads to one.
    pub fn is_clear(&self) -> bool {
        self.slots.iter().all(|grant| grant.until == FREE)
            && self.sets.iter().all(|set| set == Set::default())
            && self.more.iter().all(|word| word == 0)
    }
}

impl GrantMemory for GrantTable {
    fn grant_filter(&self, index: u32) -> Option<&mut u64> {
        self.more.shared(index as usize & (self.more.len() - 1))
    }

    fn grant_set(&self, index: u32) -> Option<&mut Set> {
        self.set(index)
    }

    fn grant_slot_mask(&self) -> u32 {
        self.mask()
    }

    fn grant(&self, slot: u32) -> Option<&mut Grant> {
        self.slots.shared(slot as usize)
    }
}
