//! SHA-256 (FIPS 180-4), one block at a time, and HMAC (RFC 2104) from the states behind the key's two blocks.
//!
//! Written here because the crates that have it do not load as BPF: their frames are larger than the stack of a BPF program
//! has room for.

use core::hint::black_box;

use bytemuck::{Pod, Zeroable};

/// The state before the first block: the first 32 bits of the fractional parts of the square roots of the first 8 primes.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The constants of the rounds: the same of the cube roots of the first 64 primes.
#[rustfmt::skip]
const ROUNDS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// What a computation works on. In a table's memory: the stack of a BPF program has no room for it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Work {
    /// The words of the block, and behind them those that are made of them.
    pub schedule: [u32; 64],
    pub state: [u32; 8],
}

/// The states behind the two blocks that HMAC makes of a key.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Midstates {
    pub inner: [u32; 8],
    pub outer: [u32; 8],
}

impl Midstates {
    /// Computes them for a key of 32 bytes.
    pub fn of(key: &[u8; 32]) -> Self {
        let state = |pad: u8| {
            let mut bytes = [pad; 64];
            for (byte, key) in bytes.iter_mut().zip(key) {
                *byte ^= key;
            }
            let words: [[u8; 4]; 16] = bytemuck::must_cast(bytes);
            let mut work = Work::zeroed();
            work.state = INITIAL;
            for (place, word) in work.schedule.iter_mut().zip(words) {
                *place = u32::from_be_bytes(word);
            }
            compress(&mut work);
            work.state
        };
        Self {
            inner: state(0x36),
            outer: state(0x5c),
        }
    }
}

/// Computes HMAC-SHA-256 of a message of 48 bytes: the first twelve words of `work.schedule`. Leaves it in `work.state`.
#[inline(always)]
pub fn hmac(key: &Midstates, work: &mut Work) {
    const BLOCK: u32 = 64;
    finish(&mut work.schedule, 12, (BLOCK + 48) * 8);
    work.state = key.inner;
    compress(work);
    let mut index = 0;
    while index < 8 {
        work.schedule[index] = work.state[index];
        index += 1;
    }
    finish(&mut work.schedule, 8, (BLOCK + 32) * 8);
    work.state = key.outer;
    compress(work);
}

/// Pads a block behind its first `words` words. `bits`: length of all that was hashed.
#[inline(always)]
fn finish(schedule: &mut [u32; 64], words: usize, bits: u32) {
    schedule[words] = 0x8000_0000;
    let mut index = words + 1;
    while index < 15 {
        schedule[index] = 0;
        index += 1;
    }
    schedule[15] = bits;
}

/// Hashes one block: the first sixteen words of `work.schedule`.
#[inline(never)]
pub fn compress(work: &mut Work) {
    expand(&mut work.schedule);
    let mut state = work.state;
    let mut first = 0;
    while first < 64 {
        // Eight rounds written out: after as many, each word of the state is in its place again, and none had to be moved.
        macro_rules! rounds {
            ($($index:literal)*) => {
                $(round::<$index>(&mut state, ROUNDS[first + $index], work.schedule[first + $index]);)*
            };
        }
        rounds!(0 1 2 3 4 5 6 7);
        first += 8;
    }
    // Read again: the compiler would keep the state before the block on the stack, which has no room for it.
    let before = black_box(&mut work.state);
    let mut index = 0;
    while index < 8 {
        before[index] = before[index].wrapping_add(state[index]);
        index += 1;
    }
}

/// Computes the words of the schedule behind those of the block. All before the first round: together they need more registers
/// than BPF has.
#[inline(always)]
fn expand(schedule: &mut [u32; 64]) {
    let mut index = 16;
    while index < 64 {
        let (x, y) = (schedule[index - 15], schedule[index - 2]);
        let first = rotated(x, [7, 18]) ^ (x >> 3);
        let second = rotated(y, [17, 19]) ^ (y >> 10);
        schedule[index] = schedule[index - 16]
            .wrapping_add(first)
            .wrapping_add(schedule[index - 7])
            .wrapping_add(second);
        index += 1;
    }
}

/// Round `INDEX` of eight. What FIPS 180-4 moves by one place in each round stays where it is: `a` of one is `b` of the next.
#[inline(always)]
#[expect(clippy::many_single_char_names, reason = "the names of FIPS 180-4")]
fn round<const INDEX: usize>(state: &mut [u32; 8], constant: u32, word: u32) {
    let at = |place: usize| (place + 8 - INDEX) % 8;
    let (a, b, c, e) = (state[at(0)], state[at(1)], state[at(2)], state[at(4)]);
    let (f, g, h) = (state[at(5)], state[at(6)], state[at(7)]);
    let choice = g ^ (e & (f ^ g));
    let first = h
        .wrapping_add(rotated(e, [6, 11, 25]))
        .wrapping_add(choice)
        .wrapping_add(constant)
        .wrapping_add(word);
    let majority = (a & b) | (c & (a | b));
    let second = rotated(a, [2, 13, 22]).wrapping_add(majority);
    state[at(3)] = state[at(3)].wrapping_add(first);
    state[at(7)] = first.wrapping_add(second);
}

/// Returns the exclusive or of `word` rotated right by each of `counts`. BPF has no rotation, but words of 64 bits: with the
/// word in both halves, a shift is one.
#[inline(always)]
fn rotated<const N: usize>(word: u32, counts: [u32; N]) -> u32 {
    let twice = u64::from(word) << 32 | u64::from(word);
    let mut all = 0;
    let mut index = 0;
    while index < N {
        all ^= twice >> counts[index];
        index += 1;
    }
    all as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes a message whose padding fits into its blocks.
    fn sha256(message: &[u8]) -> [u8; 32] {
        let mut padded = message.to_vec();
        padded.push(0x80);
        padded.resize(padded.len().next_multiple_of(64), 0);
        if padded.len() - message.len() < 9 {
            padded.resize(padded.len() + 64, 0);
        }
        let end = padded.len() - 8;
        padded[end..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
        let mut work = Work::zeroed();
        work.state = INITIAL;
        for block in padded.chunks_exact(64) {
            let words = block
                .chunks_exact(4)
                .map(|word| u32::from_be_bytes(word.try_into().unwrap()));
            for (place, word) in work.schedule.iter_mut().zip(words) {
                *place = word;
            }
            compress(&mut work);
        }
        bytemuck::must_cast(work.state.map(u32::to_be))
    }

    fn hex(bytes: &[u8]) -> String {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect()
    }

    /// NIST's examples (csrc.nist.gov, "Cryptographic Standards and Guidelines", the documents on SHA-256 and the additional ones on SHA-2).
    #[test]
    fn nists_examples_of_sha_256() {
        for (message, digest) in [
            (
                b"".to_vec(),
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                b"abc".to_vec(),
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".to_vec(),
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
            (
                vec![b'a'; 1_000_000],
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
            ),
            (
                vec![0; 1_000_000],
                "d29751f2649b32ff572b5e0a9f541ea660a50f94ff0beedfb0b692b924cc8025",
            ),
        ] {
            assert_eq!(hex(&sha256(&message)), digest);
        }
    }

    /// HMAC of the one length that is needed, beside its definition (RFC 2104) with the hash that was checked above.
    #[test]
    fn hmac_is_what_rfc_2104_says() {
        for seed in 0..100_u8 {
            let key: [u8; 32] = core::array::from_fn(|index| seed.wrapping_mul(31) ^ index as u8);
            let message: [u8; 48] =
                core::array::from_fn(|index| seed ^ (index as u8).wrapping_mul(7));
            let padded = |pad: u8| {
                let mut block = [pad; 64];
                block
                    .iter_mut()
                    .zip(key)
                    .for_each(|(byte, key)| *byte ^= key);
                block
            };
            let inner = sha256(&[&padded(0x36)[..], &message].concat());
            let expected = sha256(&[&padded(0x5c)[..], &inner].concat());

            let mut work = Work::zeroed();
            let words = message.chunks_exact(4);
            for (place, word) in work.schedule.iter_mut().zip(words) {
                *place = u32::from_be_bytes(word.try_into().unwrap());
            }
            hmac(&Midstates::of(&key), &mut work);
            let bytes: [u8; 32] = bytemuck::must_cast(work.state.map(u32::to_be));
            assert_eq!(hex(&bytes), hex(&expected));
        }
    }
}
