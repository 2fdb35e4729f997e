//! Words of memory that the program changes at the same time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use knock_common::memory::read;

/// See [`Memory::read_after`](knock_common::Memory::read_after).
pub fn read_after<T: Copy>(cell: &T) -> T {
    fence(Ordering::Acquire);
    read(cell)
}

/// See [`Memory::compare_exchange`](knock_common::Memory::compare_exchange). `cell`: of a table that was opened to be changed.
pub fn compare_exchange(cell: &mut u64, current: u64, new: u64) -> bool {
    // SAFETY: a reference is aligned, and the program changes the word by atomic instructions too.
    let cell = unsafe { AtomicU64::from_ptr(cell) };
    let exchanged = cell.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst);
    // Without it, some arm64 processors do what follows before others see the exchange.
    fence(Ordering::SeqCst);
    exchanged.is_ok()
}

/// See [`Memory::fetch_add`](knock_common::Memory::fetch_add). `cell`: of a table that was opened to be changed.
pub fn fetch_add(cell: &mut u32, by: u32) -> u32 {
    // SAFETY: as above.
    let cell = unsafe { AtomicU32::from_ptr(cell) };
    cell.fetch_add(by, Ordering::SeqCst)
}
