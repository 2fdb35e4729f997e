//! Arrays of the kernel's, mapped into memory (Linux 5.5): read whole without a system call for each
//! entry, and changed by the atomic instructions that the program uses itself.

use std::{
    io, iter,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::{self, NonNull},
    sync::atomic::AtomicU64,
};

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{Array, IterableMap as _, MapData},
};

/// The entries of an array, which the program reads and writes at the same time.
pub struct Mapping<V> {
    entries: NonNull<[V]>,
}

impl<V: Pod> Mapping<V> {
    /// `V` fills what it takes in the array: its size is a multiple of 8.
    pub fn of(table: &Array<MapData, V>) -> Result<Self> {
        const { assert!(size_of::<V>().is_multiple_of(8) && align_of::<V>() <= 8) };
        let count = table.len() as usize;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                count * size_of::<V>(),
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
            .context("cannot map a table of the kernel's into memory")?;
        Ok(Self {
            entries: NonNull::slice_from_raw_parts(start.cast(), count),
        })
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of an entry: one that is being written may be half of the old and half of the new.
    ///
    /// # Panics
    ///
    /// Where there is no such entry.
    pub fn get(&self, index: usize) -> V {
        // SAFETY: within the mapping, see `place`; any bits are valid. Volatile, as the program may write
        // to it meanwhile.
        unsafe { self.place(index).read_volatile() }
    }

    /// Writes an entry, which the program may be reading.
    ///
    /// # Panics
    ///
    /// Where there is no such entry.
    pub fn set(&self, index: usize, value: V) {
        // SAFETY: as above.
        unsafe { self.place(index).write_volatile(value) }
    }

    pub fn iter(&self) -> impl Iterator<Item = V> {
        let mut indices = 0..self.len();
        iter::from_fn(move || Some(self.get(indices.next()?)))
    }

    fn place(&self, index: usize) -> *mut V {
        assert!(index < self.len(), "there is no entry {index}");
        // SAFETY: within the mapping, which begins at a page and is there until `drop`.
        unsafe { self.entries.as_ptr().cast::<V>().add(index) }
    }
}

impl Mapping<u64> {
    pub fn words(&self) -> &[AtomicU64] {
        let words = NonNull::slice_from_raw_parts(self.entries.cast(), self.len());
        // SAFETY: the mapping is as long as is said, page-aligned, and there until `drop`. The kernel
        // program changes it too, by atomic instructions.
        unsafe { words.as_ref() }
    }
}

impl<V> Drop for Mapping<V> {
    fn drop(&mut self) {
        let bytes = self.entries.len() * size_of::<V>();
        // SAFETY: what `of` has mapped; no reference to it outlives this value.
        unsafe { libc::munmap(self.entries.as_ptr().cast(), bytes) };
    }
}
