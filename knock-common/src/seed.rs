//! The keyed hash of addresses and flows.

use bytemuck::{Pod, Zeroable};

use crate::address::Padded;

/// 2^64 divided by the golden ratio, to the nearest odd number (Knuth, The Art of Computer
/// Programming 3, 6.4).
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The key of the hash. Drawn at random when an instance comes up, so that nobody can choose addresses that collide.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Seed(u64, u64);

records!(Seed: 16 { 0: 0, 1: 8 });

impl Seed {
    pub const NONE: Self = Self(0, 0);

    pub const fn new(first: u64, second: u64) -> Self {
        // An IPv4 address is multiplied by an odd number, so no two IPv4 addresses collide before `scope` is added.
        Self(first | 1 << 32, second)
    }

    /// Returns the hash of two words, an address or a packed flow, by NH (Black, Halevi, Krawczyk, Krovetz and Rogaway, "UMAC", CRYPTO
    /// 1999): without the seed, two inputs that collide are found by chance only. `scope` is added, to
    /// keep apart keys with the same address. The higher bits are the better ones.
    #[inline(always)]
    pub fn hash(self, words: Padded, scope: u64) -> u64 {
        let (first, second) = words.words();
        let hash = product(first, self.0)
            .wrapping_add(product(second, self.1))
            .wrapping_add(scope);
        (hash ^ hash >> 32).wrapping_mul(GOLDEN)
    }
}

/// NH's step for 64 bits of input: the halves, each with its half of the seed added, multiplied.
#[inline(always)]
const fn product(word: u64, seed: u64) -> u64 {
    let low = (word as u32).wrapping_add(seed as u32);
    let high = ((word >> 32) as u32).wrapping_add((seed >> 32) as u32);
    low as u64 * high as u64
}
