//! `SipHash-2-4` with 128 bits of output (Aumasson and Bernstein, "`SipHash`: a fast short-input PRF", 2012, and its reference
//! implementation), over a whole number of 64-bit words.

/// One round.
#[inline(always)]
const fn round(mut v: [u64; 4]) -> [u64; 4] {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
    v
}

/// Returns the hash of `words` under `key`. Words of input, key and output are read from bytes in little-endian order.
#[inline(always)]
pub fn siphash128<const N: usize>(key: [u64; 2], words: [u64; N]) -> [u64; 2] {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    for word in words {
        v = absorb(v, word);
    }
    // The last word: the length in bytes, modulo 256, in the highest byte.
    v = absorb(v, ((8 * N as u64) & 0xff) << 56);
    v[2] ^= 0xee;
    for _ in 0..4 {
        v = round(v);
    }
    let first = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    for _ in 0..4 {
        v = round(v);
    }
    [first, v[0] ^ v[1] ^ v[2] ^ v[3]]
}

#[inline(always)]
const fn absorb(mut v: [u64; 4], word: u64) -> [u64; 4] {
    v[3] ^= word;
    v = round(round(v));
    v[0] ^= word;
    v
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of the reference implementation's vectors (`vectors_sip128`): the bytes 00 to 0f. Its messages are 00, 01, ...
    const KEY: [u64; 2] = [word(0), word(1)];

    const fn word(index: u64) -> u64 {
        0x0706_0504_0302_0100 + index * 0x0808_0808_0808_0808
    }

    fn hash<const N: usize>() -> u128 {
        let words = core::array::from_fn::<u64, N, _>(|index| word(index as u64));
        let bytes: [u8; 16] = bytemuck::must_cast(siphash128(KEY, words).map(u64::to_le));
        u128::from_be_bytes(bytes)
    }

    #[test]
    fn the_reference_vectors_of_whole_words() {
        assert_eq!(hash::<0>(), 0xa381_7f04_ba25_a8e6_6df6_7214_c755_0293);
        assert_eq!(hash::<1>(), 0x3b62_a9ba_6258_f561_0f83_e264_f314_97b4);
        assert_eq!(hash::<2>(), 0x6ee2_a4ca_67b0_54bb_fd33_15bf_8523_0577);
        assert_eq!(hash::<3>(), 0x2db4_79ae_78bd_50d8_882a_8a17_8a61_32ad);
        assert_eq!(hash::<4>(), 0x7c39_56ca_5eea_fc3e_363e_9d55_6546_eb68);
    }
}
