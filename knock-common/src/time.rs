//! The unit of times that are kept in 32 bits.

/// Nanoseconds of one unit, as a power of two: 2^20 ns, 1.05 ms. 32 bits of it wrap after 52 days.
pub const TICK_SHIFT: u32 = 20;

/// Returns the time from `then` to `now`; 0 if `then` was seen by another CPU whose clock was ahead by a timer tick. The
/// difference wraps as the kernel's own times do (`time_after64`), so it is also right for a time before the boot, which
/// tests set.
#[inline(always)]
pub const fn elapsed(then: u64, now: u64) -> u64 {
    let time = now.wrapping_sub(then);
    if time.cast_signed() < 0 { 0 } else { time }
}

/// Returns whether less than `limit` has [`elapsed`] from `then` to `now`, or `then` is later, in two instructions. `limit`: below
/// 2^63.
#[inline(always)]
pub const fn is_within(then: u64, now: u64, limit: u64) -> bool {
    now.wrapping_sub(then).cast_signed() < limit.cast_signed()
}
