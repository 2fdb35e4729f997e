//! Numbers that a seed determines, or bytes that a fuzzer has chosen, so that a run can be repeated.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// Where numbers come from.
#[derive(Debug, Clone)]
pub enum Random<'c> {
    /// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).
    Seeded(u64),
    /// A byte a number, then zeros.
    Chosen(&'c [u8]),
}

impl<'c> Random<'c> {
    pub const fn seeded(seed: u64) -> Self {
        Self::Seeded(seed)
    }

    pub const fn chosen(bytes: &'c [u8]) -> Self {
        Self::Chosen(bytes)
    }

    /// Whether every byte that was chosen has been taken.
    pub const fn is_spent(&self) -> bool {
        matches!(self, Self::Chosen([]))
    }

    /// A seed that nobody has seen before.
    pub fn fresh_seed() -> u64 {
        // The standard library seeds its hashers from the operating system.
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

    /// A number below `bound`, which is at most 256 and not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        usize::try_from(self.number() % bound).expect("below a usize")
    }

    /// Whether something happens that does `of_hundred` times in a hundred.
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
