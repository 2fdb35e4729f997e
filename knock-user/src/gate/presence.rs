//! The filter in front of the grants, changed from here.
//!
//! The program counts keys in and out at the same time, so this goes by atomic instructions too: on
//! the table itself, mapped into memory.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, IterableMap as _, MapData};
use knock_common::{
    Address,
    presence::{Place, Seed},
    table::GrantKey,
};

/// The table's words; see [`knock_common::presence`].
pub struct Presence {
    words: NonNull<[AtomicU64]>,
    seed: Seed,
}

impl Presence {
    /// Maps the table into memory (Linux 5.5).
    pub fn map(table: &Array<MapData, u64>, seed: Seed) -> Result<Self> {
        let count = table.len() as usize;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                count * size_of::<AtomicU64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                table.map().fd().as_fd().as_raw_fd(),
                0,
            )
        };
        let start = (start != libc::MAP_FAILED).then(|| NonNull::new(start));
        let start = start
            .flatten()
            .ok_or_else(io::Error::last_os_error)
            .context("cannot map the filter of grants into memory")?;
        Ok(Self {
            words: NonNull::slice_from_raw_parts(start.cast(), count),
            seed,
        })
    }

    /// Before `key` is inserted.
    pub fn count_in<A: Address>(&self, key: &GrantKey<A>) {
        self.change(key, Place::count_in);
    }

    /// After `key` has been removed, by whoever has removed it.
    pub fn count_out<A: Address>(&self, key: &GrantKey<A>) {
        self.change(key, Place::count_out);
    }

    fn change<A: Address>(&self, key: &GrantKey<A>, to: impl Fn(Place, u64) -> u64) {
        let place = Place::of(key, self.seed);
        let words = self.words();
        let word = &words[place.word as usize & (words.len() - 1)];
        // SeqCst: as strong as the program's own, which are full barriers.
        let mut before = word.load(Ordering::SeqCst);
        while let Err(now) = word.compare_exchange(
            before,
            to(place, before),
            Ordering::SeqCst,
            Ordering::SeqCst,
        ) {
            before = now;
        }
    }

    /// The words, of which each holds seven fingerprints and a count.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is as long as is said, page-aligned, and there until `drop`. The kernel
        // program changes it too, by atomic instructions.
        unsafe { self.words.as_ref() }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let bytes = self.words.len() * size_of::<AtomicU64>();
        // SAFETY: what `map` has mapped; no reference to it outlives this value.
        unsafe { libc::munmap(self.words.as_ptr().cast(), bytes) };
    }
}
