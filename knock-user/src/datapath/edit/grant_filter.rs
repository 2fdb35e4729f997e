//! The filter before the tables of grants, changed from user space.
//!
//! The program counts keys in and out at the same time, so user space uses atomic instructions too, on the table itself,
//! mapped into memory.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use aya::maps::{Array, MapData};
use knock_common::{
    Address,
    grant::{GrantKey, filter::Position},
    seed::Seed,
};

use crate::sys::bpf::mapping::Mapping;

/// The words of the filter; see [`knock_common::grant::filter`].
pub struct GrantFilter {
    words: Mapping<u64>,
    seed: Seed,
}

impl GrantFilter {
    pub fn of(table: &Array<MapData, u64>, seed: Seed) -> Result<Self> {
        Ok(Self {
            words: Mapping::of(table)?,
            seed,
        })
    }

    /// Counts a key in, before it is inserted into its table.
    pub fn count_in<A: Address>(&self, key: &GrantKey<A>) {
        self.change(key, Position::count_in);
    }

    /// Counts a key out, after the caller has removed it from its table.
    pub fn count_out<A: Address>(&self, key: &GrantKey<A>) {
        self.change(key, Position::count_out);
    }

    fn change<A: Address>(&self, key: &GrantKey<A>, to: impl Fn(Position, u64) -> u64) {
        self.words.require_writable();
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

    /// Returns the words, each of which holds seven fingerprints and a count.
    pub fn words(&self) -> &[AtomicU64] {
        self.words.words()
    }
}
