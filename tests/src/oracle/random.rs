//! Numbers that a seed determines, so that a run can be repeated.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed that nobody has seen before.
    pub fn fresh_seed() -> u64 {
        // The standard library seeds its hashers from the operating system.
        RandomState::new().build_hasher().finish()
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is small and not 0.
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
