//! Arrays mapped into memory (since Linux 5.5): read without a system call for each entry, and changed by the same atomic
//! instructions as the program uses.

use std::{
    borrow::Borrow,
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

use super::batch;

/// The entries of an array. The program may read and write them at the same time. Of an array that was opened for reading
/// alone, they are a copy: the kernel maps none (`bpf_map_mmap` of `kernel/bpf/syscall.c`).
pub struct Mapping<V> {
    entries: NonNull<[V]>,
    is_writable: bool,
}

impl<V: Pod> Mapping<V> {
    /// Maps an array, or copies one that was opened for reading alone. The size of `V` is a multiple of 8, as the kernel lays
    /// out the entries.
    pub fn of(table: &Array<impl Borrow<MapData>, V>) -> Result<Self> {
        const { assert!(size_of::<V>().is_multiple_of(8) && align_of::<V>() <= 8) };
        let count = table.len() as usize;
        let descriptor = table.map().fd().as_fd().as_raw_fd();
        // SAFETY: a call without pointers, on an open descriptor.
        let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
        let is_writable = flags & libc::O_ACCMODE == libc::O_RDWR;
        let (flags, file) = if is_writable {
            (libc::MAP_SHARED, descriptor)
        } else {
            (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
        };
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                count * size_of::<V>(),
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                file,
                0,
            )
        };
        let start = (start != libc::MAP_FAILED).then(|| NonNull::new(start));
        let start = start
            .flatten()
            .ok_or_else(io::Error::last_os_error)
            .context("cannot map a kernel table into memory")?;
        let mapping = Self {
            entries: NonNull::slice_from_raw_parts(start.cast(), count),
            is_writable,
        };
        if !is_writable {
            // SAFETY: the memory above has room for every entry, and nothing else knows it yet.
            unsafe { batch::copy_array::<V>(table.map(), mapping.entries.as_ptr()) }?;
        }
        Ok(mapping)
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a copy of an entry. One that is being written may be half of the old and half of the new.
    ///
    /// # Panics
    ///
    /// If there is no such entry.
    pub fn get(&self, index: usize) -> V {
        // SAFETY: within the mapping, see `entry`; any bits are valid. Volatile, since the program may write
        // to it meanwhile.
        unsafe { self.entry(index).read_volatile() }
    }

    /// Writes an entry. The program may see half of the old and half of the new.
    ///
    /// # Panics
    ///
    /// If there is no such entry, or the array was opened for reading alone.
    pub fn set(&self, index: usize, value: V) {
        self.require_writable();
        // SAFETY: as above, and mapped for writing.
        unsafe { self.entry(index).write_volatile(value) }
    }

    /// Returns copies of all entries; see [`Mapping::get`].
    pub fn iter(&self) -> impl Iterator<Item = V> {
        let mut indices = 0..self.len();
        iter::from_fn(move || Some(self.get(indices.next()?)))
    }

    /// Returns an entry, to be read and changed in place as the program does, or `None` if there is no such entry. See
    /// [`HashTable::find`](knock_common::HashTable::find) for what its users have to observe, and
    /// [`Mapping::require_writable`].
    #[expect(
        clippy::mut_from_ref,
        reason = "others change it at the same time in any case, and all know how"
    )]
    pub fn shared(&self, index: usize) -> Option<&mut V> {
        // SAFETY: within the mapping, aligned, and there until `drop`; any bits are valid.
        (index < self.len()).then(|| unsafe { &mut *self.entry(index) })
    }

    /// # Panics
    ///
    /// If the array was opened for reading alone.
    pub fn require_writable(&self) {
        assert!(self.is_writable, "the table was opened for reading alone");
    }

    fn entry(&self, index: usize) -> *mut V {
        assert!(index < self.len(), "there is no entry {index}");
        // SAFETY: within the mapping, which begins at a page and is there until `drop`.
        unsafe { self.entries.as_ptr().cast::<V>().add(index) }
    }
}

impl<V: Pod> Mapping<V> {
    /// Returns the words of an entry as atomics.
    ///
    /// # Panics
    ///
    /// If there is no such entry.
    pub fn words_of(&self, index: usize) -> &[AtomicU64] {
        let start = self.entry(index).cast();
        // SAFETY: the entry is within the mapping, aligned to 8 bytes and a multiple of 8 long, as `of` asserts, and there
        // until `drop`. The kernel program changes it too, by single words.
        unsafe { std::slice::from_raw_parts(start, size_of::<V>() / 8) }
    }
}

impl Mapping<u64> {
    /// Returns the entries as atomics; see [`Mapping::require_writable`].
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
