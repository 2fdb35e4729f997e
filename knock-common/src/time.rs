//! The unit of times that are kept in 32 bits.

/// Nanoseconds of one unit, as a power of two: 2^20 ns, 1.05 ms. 32 bits of it wrap after 52 days.
pub const TICK_SHIFT: u32 = 20;
