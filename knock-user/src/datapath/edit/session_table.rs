//! The table of sessions, mapped into memory.

use std::sync::atomic::{Ordering, fence};

use knock_common::{
    memory::{SessionMemory, read},
    session::{HolderCount, Session},
    set::Set,
};

use super::shared::SharedTable;
use crate::sys::bpf::mapping::Mapping;

/// Slots, rows, sets and counts of the sessions; see [`knock_common::session::table`].
pub type SessionTable = SharedTable<Session, RowsAndCounts>;

/// What sessions have besides slots and sets.
pub struct RowsAndCounts {
    pub rows: Mapping<u64>,
    pub counts: Mapping<HolderCount>,
}

impl SessionTable {
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

    /// Returns whether there is no session and nothing that leads to one, and no slot counts to a holder.
    pub fn is_clear(&self) -> bool {
        self.slots.iter().all(|session| !session.tenancy.is_live())
            && self.sets.iter().all(|set| set == Set::default())
            && self.more.rows.iter().all(|word| word == 0)
            && self.more.counts.iter().all(|holder| holder.slots == 0)
    }
}

impl SessionMemory for SessionTable {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the kernel counts the entries of an array by 32 bits"
    )]
    fn session_rows(&self) -> u32 {
        self.more.rows.len() as u32
    }

    fn session_row(&self, index: u32) -> Option<&mut u64> {
        self.more.rows.shared(index as usize)
    }

    fn session_set(&self, index: u32) -> Option<&mut Set> {
        self.set(index)
    }

    fn session_slot_mask(&self) -> u32 {
        self.mask()
    }

    fn session(&self, slot: u32) -> Option<&mut Session> {
        self.slots.shared(slot as usize)
    }

    fn session_count(&self, holder: u16) -> Option<&mut u32> {
        let holder = self.more.counts.shared(holder.into())?;
        Some(&mut holder.slots)
    }
}
