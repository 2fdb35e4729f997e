//! Internet checksums (RFC 1071). They come out right in either byte order.

/// A frame whose bytes can be summed.
pub trait Summed {
    /// The sum of `length` bytes from `at` as [`fold`] takes it; `None` where the frame ends before,
    /// or for more than [`MOST_SUMMED`].
    fn sum(&self, at: usize, length: usize) -> Option<u64>;
}

/// The longest packet whose checksum is looked at, bytes: a jumbo frame's.
pub const MOST_SUMMED: usize = 160 * 64;

/// Returns the sum of the pseudo-header of TCP, UDP and `ICMPv6` (RFC 9293, RFC 8200). `addresses` is the sum of both;
/// `length` counts header and payload in bytes.
#[inline(always)]
pub(super) fn pseudo(addresses: u64, protocol: u8, length: usize) -> u64 {
    let rest = u16::from(protocol).to_be();
    addresses + u64::from(rest) + u64::from((length as u16).to_be())
}

#[inline(always)]
pub(super) fn total<const N: usize>(words: &[u32; N]) -> u64 {
    let mut sum = 0;
    for word in words {
        sum += u64::from(*word);
    }
    sum
}

#[inline(always)]
pub(super) fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

/// Folds a sum of 16- and 32-bit words to 16 bits (RFC 1071). Over whole data with its checksum:
/// 0xffff.
#[inline(always)]
pub fn fold(sum: u64) -> u16 {
    let sum = halves(halves(sum));
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

impl Summed for [u8] {
    #[inline]
    fn sum(&self, at: usize, length: usize) -> Option<u64> {
        let bytes = self.get(at..at + length)?;
        let words = bytes.chunks(2).map(|pair| {
            let second = pair.get(1).copied().unwrap_or(0);
            u64::from(u16::from_ne_bytes([pair[0], second]))
        });
        (length <= MOST_SUMMED).then(|| words.sum())
    }
}
