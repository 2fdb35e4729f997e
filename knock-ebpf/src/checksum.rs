//! Sums of the packet's bytes.

use knock_common::{
    frame::Frame,
    reject::{MOST_SUMMED, Summed, fold},
    wire::load,
};

use crate::packet::{Context, Packet};

impl Summed for Packet {
    #[inline(always)]
    fn sum(&self, at: usize, length: usize) -> Option<u64> {
        of(self.context(), at, length)
    }
}

/// Returns the sum of `length` bytes from `at` in the context's packet; `None` where it ends before, or for more than
/// [`MOST_SUMMED`].
#[inline(always)]
pub fn of(context: *mut Context, at: usize, length: usize) -> Option<u64> {
    let sum = checksum(context, at as u32, length as u32);
    (sum != NO_SUM).then_some(u64::from(sum))
}

/// [`of`], folded, or [`NO_SUM`].
///
/// Exported, so that it is a global function to the verifier, which verifies it once, independently of its callers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn checksum(context: *mut Context, at: u32, length: u32) -> u32 {
    summed(&Packet::of(context), at, length).map_or(NO_SUM, |sum| u32::from(fold(sum)))
}

const NO_SUM: u32 = u32::MAX;

#[inline(always)]
fn summed(packet: &Packet, at: u32, length: u32) -> Option<u64> {
    let (mut at, mut left) = (onward(at, 0), length);
    let mut sum = 0;
    for _ in 0..MOST_SUMMED / 64 {
        if left < 64 {
            break;
        }
        sum += words::<64>(packet, at as usize)?;
        at = onward(at, 64);
        left -= 64;
    }
    if left >= 64 {
        return None;
    }
    for _ in 0..16 {
        if left < 4 {
            break;
        }
        sum += words::<4>(packet, at as usize)?;
        at = onward(at, 4);
        left -= 4;
    }
    if left >= 2 {
        sum += u64::from(load::<u16, 2>(packet.header::<[u8; 2]>(at as usize)?, 0));
        at = onward(at, 2);
    }
    if left & 1 != 0 {
        // With the byte before: the compiler makes `>=` of a check for one byte, which gives no bound.
        sum += u64::from(packet.header::<[u8; 2]>(onward(at, 0x7fff) as usize)?[1]);
    }
    Some(sum)
}

/// Adds within one bound, which no place that is summed reaches.
#[inline(always)]
fn onward(at: u32, by: u32) -> u32 {
    at.wrapping_add(by) & 0x7fff
}

#[inline(always)]
fn words<const N: usize>(packet: &Packet, at: usize) -> Option<u64> {
    let bytes = packet.header::<[u8; N]>(at)?;
    let mut sum = 0;
    let mut word = 0;
    while word < N {
        sum += u64::from(load::<u32, N>(bytes, word));
        word += 4;
    }
    Some(sum)
}
