//! The clock that every kernel table uses, and who keeps the wall clock right.

use std::mem::MaybeUninit;

/// Returns the time of `CLOCK_MONOTONIC`, ns.
pub fn monotonic_now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call fills the structure; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Returns the length of the kernel's timer tick, ns. The coarse clocks move by it, and their resolution is
/// its length.
pub fn tick() -> u64 {
    /// Of `CONFIG_HZ=250`, the most common choice.
    const USUAL: u64 = 4_000_000;
    let mut resolution = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call fills the structure where it succeeds; this clock always exists.
    let resolution = unsafe {
        if libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, resolution.as_mut_ptr()) != 0 {
            return USUAL;
        }
        resolution.assume_init()
    };
    u64::try_from(resolution.tv_nsec).unwrap_or(USUAL)
}

/// Returns how far `CLOCK_TAI` is ahead of Unix time, ns: 0 until whoever keeps the clock says that it knows of leap seconds.
pub fn tai_offset() -> u64 {
    // SAFETY: an all-zero structure is valid, and asks for nothing to be changed.
    let mut times = unsafe { MaybeUninit::<libc::timex>::zeroed().assume_init() };
    // SAFETY: the call fills the structure.
    unsafe { libc::adjtimex(&raw mut times) };
    u64::try_from(times.tai).unwrap_or(0) * 1_000_000_000
}

/// Returns whether nothing keeps the wall clock right: no time synchronisation has set it within the last hours.
pub fn is_free() -> bool {
    // SAFETY: an all-zero structure is valid, and asks for nothing to be changed.
    let mut times = unsafe { MaybeUninit::<libc::timex>::zeroed().assume_init() };
    // SAFETY: the call fills the structure.
    let state = unsafe { libc::adjtimex(&raw mut times) };
    state >= 0 && times.status & libc::STA_UNSYNC != 0
}
