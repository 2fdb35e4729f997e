//! The filter in front of the grants, changed from here.
//!
//! The program counts keys in and out at the same time, so this goes by atomic instructions too: on
//! the table itself, mapped into memory.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use aya::maps::{Array, MapData};
use knock_common::{
    Address,
    grant::{GrantKey, filter::Position},
    seed::Seed,
};

use super::Mapping;

/// The table's words; see [`knock_common::grant::filter`].
pub struct Presence {
    words: Mapping<u64>,
    seed: Seed,
}

impl Presence {
    pub fn of(table: &Array<MapData, u64>, seed: Seed) -> Result<Self> {
        Ok(Self {
            words: Mapping::of(table)?,
            seed,
        })
    }

    /// Before `key` is inserted.
    pub fn count_in<A: Address>(&self, key: &GrantKey<A>) {
        self.change(key, Position::count_in);
    }

    /// After `key` has been removed, by whoever has removed it.
    pub fn count_out<A: Address>(&self, key: &GrantKey<A>) {
        self.change(key, Position::count_out);
    }

    fn change<A: Address>(&self, key: &GrantKey<A>, to: impl Fn(Position, u64) -> u64) {
        let position = Position::of(key, self.seed);
        let words = self.words();
        let word = &words[position.word as usize & (words.len() - 1)];
        // SeqCst: as strong as the program's own, which are full barriers.
        let mut before = word.load(Ordering::SeqCst);
        while let Err(now) = word.compare_exchange(
            before,
            to(position, before),
            Ordering::SeqCst,
            Ordering::SeqCst,
        ) {
            before = now;
        }
    }

    /// The words, of which each holds seven fingerprints and a count.
    pub fn words(&self) -> &[AtomicU64] {
        self.words.words()
    }
}
