//! Random numbers from a seed, or from bytes that a fuzzer has chosen: both can be repeated.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// A source of random numbers.
#[derive(Debug, Clone)]
pub enum Random<'c> {
    /// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).
    Seeded(u64),
    /// One number for each byte, then zeroes.
    Chosen(&'c [u8]),
}

impl<'c> Random<'c> {
    pub const fn seeded(seed: u64) -> Self {
        Self::Seeded(seed)
    }

    pub const fn chosen(bytes: &'c [u8]) -> Self {
        Self::Chosen(bytes)
    }

    /// Returns whether all chosen bytes have been used.
    pub const fn is_spent(&self) -> bool {
        matches!(self, Self::Chosen([]))
    }

    /// Returns a new seed.
    pub fn fresh_seed() -> u64 {
        // The standard library seeds its hashers with random bytes of the operating system.
        RandomState::new().build_hasher().finish()
    }

    pub fn number(&mut self) -> u64 {
        let state = match self {
            Self::Seeded(state) => state,
            Self::Chosen(bytes) => {
                let first = bytes.split_off_first();
                return first.copied().unwrap_or(0).into();
            }
        };
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`, which must be between 1 and 256.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        usize::try_from(self.number() % bound).expect("below a usize")
    }

    /// Returns true in `of_hundred` of a hundred cases.
    pub fn chance(&mut self, of_hundred: usize) -> bool {
        self.below(100) < of_hundred
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    pub fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }
}
