//! The tables of keys, written while the program reads and changes them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use aya::maps::{Array, HashMap, MapData};
use bytemuck::{Zeroable as _, bytes_of, pod_read_unaligned};
use knock_common::{
    address::V6,
    knock::authenticated::key::{HostSecret, Key, KeyGate, NAME, state},
};
use sha2::{Digest as _, Sha256};

use super::{
    newest::{FROZEN, Kept, Newest},
    rows::{KeyRow, KeyRows},
};
use crate::{
    datapath::{
        tables::{self, Source, data},
        write,
    },
    sys::{
        bpf::{batch, mapping::Mapping},
        clock, grace,
    },
};

/// The tables of keys.
pub struct KeyTables {
    keys: Mapping<Key>,
    names: Array<MapData, [u8; NAME]>,
    gates: HashMap<MapData, KeyGate, u32>,
    secrets: Array<MapData, HostSecret>,
    clock: Array<MapData, u64>,
}

impl KeyTables {
    pub fn open(source: &impl Source) -> Result<Self> {
        Ok(Self {
            keys: Mapping::of(&tables::KEY.open(source)?)?,
            names: tables::KEY_NAME.open(source)?,
            gates: tables::KEY_GATE.open(source)?,
            secrets: tables::HOST_SECRET.open(source)?,
            clock: tables::CLOCK_OFFSET.open(source)?,
        })
    }

    /// Makes the tables hold these rows. A key that is there and stays keeps its newest time.
    pub fn apply(&mut self, rows: &KeyRows, newest: &Newest) -> Result<()> {
        self.follow_clock()?;
        write::array(&mut self.secrets, (0..).zip(rows.secrets))?;
        self.empty_all_but(rows)?;
        // Before the keys: one that is put into the slot of another must not open what that one opened, if this process is killed.
        write::hash(
            &mut self.gates,
            rows.gates.iter().map(|(gate, id)| (*gate, *id)),
        )?;
        let mut waiting = 0;
        let slots = u32::try_from(self.keys.len())?;
        for (slot, row) in rows.keys.range(..slots) {
            waiting += usize::from(self.put(*slot, row, newest)?);
        }
        newest.warn_of(waiting);
        Ok(())
    }

    /// Tells the program how far `CLOCK_TAI` is ahead of Unix time now: whoever keeps the clock may change that.
    pub fn follow_clock(&mut self) -> Result<()> {
        let offset = clock::tai_offset();
        if self.clock.get(&0, 0)? != offset {
            self.clock.set(0, offset, 0)?;
        }
        Ok(())
    }

    /// Puts a key into its slot, which has the same key or none. Returns whether its knocks open nothing for a while from
    /// now on.
    fn put(&mut self, slot: u32, row: &KeyRow, newest: &Newest) -> Result<bool> {
        let index = slot as usize;
        let number = u16::try_from(slot)?;
        let present = self.keys.get(index);
        let mut waits = false;
        if self.names.get(&slot, 0)? != row.name {
            self.names.set(slot, row.name, 0)?;
        }
        if stays(&present, Some(row)) {
            if present.newest == FROZEN && !newest.is_frozen() {
                // What should have followed has not: the process died that replaced the tables.
                let time = newest.of(&text(&row.name), number, 0);
                self.set_newest(number, time);
                waits = newest.is_ahead(time);
            }
            let words = self.keys.words_of(index);
            words[word::NOT_AFTER].store(row.not_after, Ordering::Relaxed);
            // Last, so that a key that ends does so with all else as it was.
            set_status(&words[word::STATE], row);
        } else {
            let time = newest.of(&text(&row.name), number, row.created);
            waits = newest.is_ahead(time);
            let begun = Key {
                secret: row.secret,
                newest: time,
                not_after: row.not_after,
                source: V6::zeroed(),
                source_time: 0,
                ..Key::zeroed()
            };
            self.keys.set(index, begun);
            set_status(&self.keys.words_of(index)[word::STATE], row);
        }
        Ok(waits && row.state == state::VALID)
    }

    /// Returns the slots whose key is not among these rows: each is empty, or another key's, when these are in force.
    pub fn lost(&self, rows: &KeyRows) -> HashSet<u32> {
        let keys = (0_u32..).zip(self.keys.iter());
        let lost =
            keys.filter(|(slot, key)| *key != Key::zeroed() && !stays(key, rows.keys.get(slot)));
        lost.map(|(slot, _)| slot).collect()
    }

    /// Fills the tables that are of one configuration alone, as far as keys that the program before had need them: a knock with one
    /// of these is understood by both.
    pub fn prepare(&mut self, rows: &KeyRows, lost: &HashSet<u32>) -> Result<()> {
        write::array(&mut self.secrets, (0..).zip(rows.secrets))?;
        let stay = rows.gates.iter();
        let stay = stay.filter(|(gate, _)| !lost.contains(&gate.slot));
        write::hash(&mut self.gates, stay.map(|(gate, id)| (*gate, *id)))
    }

    /// Has every key that is not among these rows open nothing any more. Returns their slots, which are still
    /// [lost](KeyTables::lost) until they are emptied.
    pub fn close_all_but(&self, rows: &KeyRows) -> HashSet<u32> {
        let ended = self.lost(rows);
        for slot in &ended {
            self.keys.words_of(*slot as usize)[word::STATE].store(0, Ordering::SeqCst);
        }
        if !ended.is_empty() {
            // A packet may be verified whose key was valid when the program looked. Half of a secret, or none, is one that
            // anybody knows.
            grace::wait();
        }
        ended
    }

    /// Empties every slot whose key is not among these rows.
    fn empty_all_but(&mut self, rows: &KeyRows) -> Result<()> {
        for slot in self.close_all_but(rows) {
            self.keys.set(slot as usize, Key::zeroed());
            self.names.set(slot, [0; NAME], 0)?;
        }
        Ok(())
    }

    fn state(&self, slot: u32) -> u32 {
        self.keys.get(slot as usize).state
    }

    /// Returns what the keys open that are not revoked: the slot of the key, and the id of the gate.
    pub fn opened(&self) -> Result<HashSet<(u32, u32)>> {
        let mut opened = HashSet::new();
        batch::for_each(data(&self.gates), |row: &KeyGate, id: &u32| {
            opened.insert((row.slot, *id));
        })?;
        opened.retain(|(slot, _)| {
            (*slot as usize) < self.keys.len() && self.state(*slot) == state::VALID
        });
        Ok(opened)
    }

    /// Returns the print of each key that is not revoked, by its slot.
    pub fn prints(&self) -> Vec<(u16, Print)> {
        let keys = (0_u16..).zip(self.keys.iter());
        let valid = keys.filter(|(_, key)| key.state == state::VALID);
        valid.map(|(slot, key)| (slot, Print::of(&key))).collect()
    }

    /// Returns whether a key waits for the newest time of the table before, which a process that was killed has left behind.
    pub fn has_frozen(&self) -> bool {
        self.keys.iter().any(|key| is_frozen(&key))
    }

    /// Returns the rows that the tables hold. The times when the keys were made are not known any more.
    pub fn rows(&self) -> Result<KeyRows> {
        let mut rows = KeyRows {
            keys: BTreeMap::new(),
            gates: std::collections::HashMap::new(),
            secrets: [HostSecret::zeroed(); HostSecret::COUNT],
        };
        for (slot, key) in (0_u32..).zip(self.keys.iter()) {
            if key.state != state::NONE {
                let row = KeyRow {
                    name: self.names.get(&slot, 0)?,
                    secret: key.secret,
                    not_after: key.not_after,
                    state: key.state,
                    bound: key.bound != 0,
                    created: 0,
                };
                rows.keys.insert(slot, row);
            }
        }
        batch::for_each(data(&self.gates), |gate: &KeyGate, id: &u32| {
            rows.gates.insert(*gate, *id);
        })?;
        for (index, secret) in (0..).zip(&mut rows.secrets) {
            *secret = self.secrets.get(&index, 0)?;
        }
        Ok(rows)
    }

    /// Returns the newest times that are known.
    pub fn newest(&self) -> Result<Kept> {
        let mut keys: BTreeMap<String, BTreeMap<u16, u64>> = BTreeMap::new();
        for (slot, key) in (0_u16..).zip(self.keys.iter()) {
            if key.state != state::NONE
                && !is_frozen(&key)
                && let Some(name) = name(&self.names, slot)
            {
                keys.entry(name).or_default().insert(slot, key.newest);
            }
        }
        Ok(Kept {
            complete: false,
            keys,
        })
    }

    /// Returns the newest times by slot, Unix ns; 0 where there is no key, or where it is not known.
    pub fn newest_by_slot(&self) -> Vec<u64> {
        let known = |key: Key| if is_frozen(&key) { 0 } else { key.newest };
        self.keys.iter().map(known).collect()
    }

    /// Returns by slot the time of the newest knock that the program has accepted, Unix ns; 0 where it is not known. Where a key
    /// begins, and what another host has accepted, is no such time.
    pub fn accepted_by_slot(&self) -> Vec<u64> {
        self.keys.iter().map(|key| key.source_time).collect()
    }

    /// Returns the same of the key in one slot.
    pub fn accepted_in(&self, slot: u16) -> u64 {
        let index = usize::from(slot);
        let key = (index < self.keys.len()).then(|| self.keys.get(index));
        key.map_or(0, |key| key.source_time)
    }

    /// Returns the newest time of the key in a slot, Unix ns.
    pub fn newest_of(&self, slot: u16) -> Option<u64> {
        let index = usize::from(slot);
        let key = (index < self.keys.len()).then(|| self.keys.get(index))?;
        (key.state != state::NONE).then_some(key.newest)
    }

    /// Sets the newest time of a key. It must be one that the program cannot have passed meanwhile.
    fn set_newest(&self, slot: u16, newest: u64) {
        self.keys.words_of(slot.into())[word::NEWEST].store(newest, Ordering::SeqCst);
    }

    /// Sets the newest time of a key to an earlier one. Where the later knocks came from says nothing of those to come.
    pub fn lower_newest(&self, slot: u16, newest: u64) {
        self.keys.words_of(slot.into())[word::SOURCE_TIME].store(0, Ordering::SeqCst);
        self.set_newest(slot, newest);
    }

    /// Sets the newest time of a key where it is earlier, whatever the program does meanwhile.
    pub fn raise_newest(&self, slot: u16, newest: u64) {
        if usize::from(slot) < self.keys.len() {
            self.keys.words_of(slot.into())[word::NEWEST].fetch_max(newest, Ordering::SeqCst);
        }
    }

    /// Takes over where the newest knock of a key that accepts nothing came from.
    fn follow_source(&self, index: usize, earlier: &Key) {
        let words = self.keys.words_of(index);
        let source: [u64; 2] = pod_read_unaligned(bytes_of(&earlier.source));
        for (word, part) in words[word::SOURCE..].iter().zip(source) {
            word.store(part, Ordering::Relaxed);
        }
        change_status(&words[word::STATE], |bytes| bytes[5] = earlier.family);
        // After these, as the program does.
        words[word::SOURCE_TIME].store(earlier.source_time, Ordering::SeqCst);
    }

    /// Takes over the newest times of tables whose program accepts nothing any more, and where the knocks of these times came from:
    /// the fleet may not have been told of them yet.
    pub fn follow(&self, before: &Self) {
        for index in 0..self.keys.len() {
            let key = self.keys.get(index);
            if !is_frozen(&key) {
                continue;
            }
            let earlier = (index < before.keys.len()).then(|| before.keys.get(index));
            let earlier = earlier.filter(|earlier| earlier.secret == key.secret);
            if let (Some(earlier), Ok(slot)) = (earlier, u16::try_from(index)) {
                self.follow_source(index, &earlier);
                self.set_newest(slot, earlier.newest);
            }
        }
    }
}

/// What tells a key from others of the same name, and until when it is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Print {
    /// Another key has another one, and hosts that derive the key alike have the same. It tells nothing of the key, which is random.
    pub number: u64,
    /// Unix ns; 0: for good.
    pub not_after: u64,
}

impl Print {
    fn of(key: &Key) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"knockgate print of a key 1");
        hash.update(bytes_of(&key.secret));
        let hash: [u8; 32] = hash.finalize().into();
        let mut number = [0; 8];
        number.copy_from_slice(&hash[..8]);
        Self {
            number: u64::from_be_bytes(number),
            not_after: key.not_after,
        }
    }

    /// Returns whether the key is not valid any more, as the program decides it. `wall`: µs since 1970.
    pub const fn has_expired(self, wall: u64) -> bool {
        self.not_after != 0 && self.not_after < wall.saturating_mul(1000)
    }
}

/// Changes the word with the state of a key: the program may write another family meanwhile, beside the source that it belongs
/// to.
fn change_status(status: &AtomicU64, change: impl Fn(&mut [u8; 8])) {
    let changed = |word: u64| {
        let mut bytes = word.to_ne_bytes();
        change(&mut bytes);
        Some(u64::from_ne_bytes(bytes))
    };
    // It returns what was there, and fails only where there is nothing to change.
    let _ = status.fetch_update(Ordering::SeqCst, Ordering::SeqCst, changed);
}

/// Sets the state of a key and `bound` at once, and leaves the family.
fn set_status(status: &AtomicU64, row: &KeyRow) {
    change_status(status, |bytes| {
        bytes[..4].copy_from_slice(&row.state.to_ne_bytes());
        bytes[4] = row.bound.into();
    });
}

fn is_frozen(key: &Key) -> bool {
    key.state != state::NONE && key.newest == FROZEN
}

/// Returns whether a slot keeps the key that is in it.
fn stays(present: &Key, row: Option<&KeyRow>) -> bool {
    present.state != state::NONE && row.is_some_and(|row| present.secret == row.secret)
}

/// Returns the name of the key in a slot.
pub fn name(names: &Array<MapData, [u8; NAME]>, slot: u16) -> Option<String> {
    let name = text(&names.get(&slot.into(), 0).ok()?);
    (!name.is_empty()).then_some(name)
}

/// The words of a [`Key`] that are changed while it is in use.
mod word {
    use std::mem::offset_of;

    use super::Key;

    pub const NEWEST: usize = offset_of!(Key, newest) / 8;
    pub const SOURCE: usize = offset_of!(Key, source) / 8;
    pub const SOURCE_TIME: usize = offset_of!(Key, source_time) / 8;
    pub const NOT_AFTER: usize = offset_of!(Key, not_after) / 8;
    /// `state`, `bound` and `family`.
    pub const STATE: usize = offset_of!(Key, state) / 8;
}

/// Returns the name of a key as the table has it; empty where there is none.
pub fn text(name: &[u8; NAME]) -> String {
    let bytes = name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_changed_keeps_the_family_that_the_program_has_written() {
        let key = Key {
            state: state::VALID,
            family: 6,
            ..Key::zeroed()
        };
        let at = word::STATE * 8;
        let word: u64 = pod_read_unaligned(&bytes_of(&key)[at..at + 8]);
        let status = AtomicU64::new(word);
        let row = KeyRow {
            name: [0; NAME],
            secret: key.secret,
            not_after: 0,
            state: state::REVOKED,
            bound: true,
            created: 0,
        };
        set_status(&status, &row);
        let changed = Key {
            state: state::REVOKED,
            bound: 1,
            ..key
        };
        let word: u64 = pod_read_unaligned(&bytes_of(&changed)[at..at + 8]);
        assert_eq!(status.into_inner(), word);
    }
}
