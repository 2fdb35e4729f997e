//! The table of sessions, mapped into memory: commands and the service change it with the program's own code, while the program
//! changes it too.

use std::{
    ops::Range,
    sync::atomic::{Ordering, fence},
};

use anyhow::Result;
use aya::maps::{Array, MapData};
use knock_common::{
    Memory,
    memory::{SessionMemory, read},
    seed::Seed,
    session::{HolderCount, Session, table},
    set::{Set, slot_mask},
};

use super::shared;
use crate::sys::bpf::mapping::Mapping;

/// Slots, sets and holders of the sessions; see [`knock_common::session::table`].
pub struct SessionTable {
    slots: Mapping<Session>,
    /// How many there are.
    count: u32,
    sets: Mapping<Set>,
    holders: Mapping<HolderCount>,
    seed: Seed,
}

impl SessionTable {
    pub(in crate::datapath) fn of(
        slots: &Array<MapData, Session>,
        sets: &Array<MapData, Set>,
        holders: &Array<MapData, HolderCount>,
        seed: Seed,
    ) -> Result<Self> {
        Ok(Self {
            slots: Mapping::of(slots)?,
            count: slots.len(),
            sets: Mapping::of(sets)?,
            holders: Mapping::of(holders)?,
            seed,
        })
    }

    /// Returns the sessions with their slots.
    pub fn sessions(&self) -> impl Iterator<Item = (u32, Session)> {
        self.indices()
            .filter_map(|slot| Some((slot, self.get(slot)?)))
    }

    /// Returns the session in a slot as it was in one tenancy; `None`: there is none, or somebody is changing it.
    fn get(&self, slot: u32) -> Option<Session> {
        let session = self.session(slot)?;
        loop {
            let tenancy = read(&session.tenancy);
            if !tenancy.is_live() {
                return None;
            }
            fence(Ordering::Acquire);
            let copy = read(&*session);
            fence(Ordering::Acquire);
            // Otherwise the slot was given to another flow during the copy: read it again.
            if read(&session.tenancy) == tenancy {
                return Some(copy);
            }
        }
    }

    /// Returns the indices of the slots.
    pub const fn indices(&self) -> Range<u32> {
        0..self.count
    }

    /// Takes a slot without a session. Returns whether it could be taken.
    pub(in crate::datapath) fn take(&self, slot: u32) -> bool {
        self.session(slot).is_some_and(|session| {
            let tenancy = read(&session.tenancy);
            !tenancy.is_live() && table::take(self, slot, tenancy)
        })
    }

    /// Returns whether there is no session and nothing that leads to one, and no slot counts to a holder.
    pub fn is_clear(&self) -> bool {
        self.slots.iter().all(|session| !session.tenancy.is_live())
            && self.sets.iter().all(|set| set == Set::default())
            && self.holders.iter().all(|holder| holder.slots == 0)
    }
}

impl Memory for SessionTable {
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

impl SessionMemory for SessionTable {
    fn session_set(&self, index: u32) -> Option<&mut Set> {
        self.sets.shared(index as usize & (self.sets.len() - 1))
    }

    fn session_slot_mask(&self) -> u32 {
        slot_mask(self.slots.len())
    }

    fn session(&self, slot: u32) -> Option<&mut Session> {
        self.slots.shared(slot as usize)
    }

    fn session_count(&self, holder: u16) -> Option<&mut u32> {
        let holder = self.holders.shared(holder.into())?;
        Some(&mut holder.slots)
    }
}
