//! The packet's bytes. Every read and write of packet memory in the XDP program is in this file. The TCX program has another
//! one in its place: [`skb`](skb/packet.rs).

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
};
use bytemuck::Pod;
use knock_common::{
    frame::{Frame, FrameMut, extension},
    reject::{MOST_SUMMED, Summed, fold},
    wire::load,
};

use crate::maps;

/// What the kernel calls the entries with. The verifier knows it by this name in functions that it verifies by themselves.
pub type Context = xdp_md;

/// Returns the index of the guarded interface that the packet has come by. In native mode a bond has the drivers of its
/// interfaces run the program, and then the kernel names one of these.
#[inline(always)]
pub fn interface(context: *mut Context) -> u32 {
    let own = driver(context);
    // SAFETY: an entry is one word. User space changes it only when bonds have changed; if the kernel gives its memory to
    // another interface at that moment, this one packet counts as of another guarded bond.
    unsafe { maps::BOND.get(own) }.copied().unwrap_or(own)
}

/// Returns the index of the interface whose driver, or the kernel in its place, runs the program.
#[inline(always)]
pub fn driver(context: *mut Context) -> u32 {
    // SAFETY: the kernel's context, readable for as long as the program runs.
    unsafe { (*context).ingress_ifindex }
}

/// Returns the length of the frame, over all its buffers (since Linux 5.18).
#[inline(always)]
pub fn whole_length(context: *mut Context) -> u64 {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_xdp_get_buff_len(context) }
}

/// Copies bytes of the frame, which may lie in several buffers (since Linux 5.18). Returns false where it ends before.
///
/// # Safety
///
/// There is room for `length` bytes at `to`.
#[inline(always)]
pub unsafe fn load_bytes(context: *mut Context, at: u32, to: *mut c_void, length: u32) -> bool {
    // SAFETY: the context is the kernel's; the rest is the caller's duty.
    unsafe { bpf_xdp_load_bytes(context, at, to, length) == 0 }
}

/// The linear part of a frame, from `start` to before `end`.
pub struct Packet {
    context: *mut Context,
    start: usize,
    end: usize,
}

impl Packet {
    /// The packet as it is now. After a resize it has to be made again.
    #[inline(always)]
    pub fn of(context: *mut Context) -> Self {
        // SAFETY: the kernel's context, readable for as long as the program runs. Volatile, or the compiler would pass
        // the bounds to functions in place of the context, as 32-bit numbers, which the verifier does not accept as
        // pointers.
        let (start, end) = unsafe {
            (
                (&raw const (*context).data).read_volatile(),
                (&raw const (*context).data_end).read_volatile(),
            )
        };
        Self {
            context,
            start: start as usize,
            end: end as usize,
        }
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn header<T: Pod>(&self, at: usize) -> Option<&T> {
        const { assert!(align_of::<T>() == 1) };
        // In this order and with `>`, as the verifier requires it (before Linux 5.16 it got
        // `>=` wrong). Nothing overflows: `at` is at most 32 KiB, see `frame::extension`.
        if self.start + at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the bytes lie between start and end, which the kernel keeps mapped and unwritten
        // while the program runs; the type has alignment 1 and no invalid values.
        Some(unsafe { &*((self.start + at) as *const T) })
    }

    #[inline(always)]
    fn copy<const N: usize>(&self, at: usize, to: &mut [u64; N]) -> bool {
        if let Some(words) = self.header::<[[u8; 8]; N]>(at) {
            let mut index = 0;
            while index < N {
                to[index] = load(&words[index], 0);
                index += 1;
            }
            return true;
        }
        // It may lie in several buffers.
        // SAFETY: there is room for as much as is copied.
        unsafe {
            load_bytes(
                self.context,
                at as u32,
                to.as_mut_ptr().cast(),
                size_of::<[u64; N]>() as u32,
            )
        }
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    fn chain(&self, next: u8, at: usize, end: usize) -> u32 {
        extension_headers(self.context, u32::from(next), at as u32, end as u32)
    }
}

/// [`extension::chain`] in the context's packet.
///
/// Exported, so that it is a global function to the verifier, which verifies it once, independently of its callers
/// (since Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn extension_headers(context: *mut Context, next: u32, at: u32, end: u32) -> u32 {
    let packet = Packet::of(context);
    // Behind Ethernet, two tags and an IPv6 header it is far below this. The verifier needs a bound.
    let at = (at & 0xff) as usize;
    extension::chain(&packet, next as u8, at, end as usize).pack()
}

impl FrameMut for Packet {
    #[inline(always)]
    fn put<T: Pod>(&mut self, at: usize, value: T) -> Option<()> {
        // The compiler would merge this sum with one that has been checked before, but the verifier knows the bounds of a
        // sum only if that sum itself was compared.
        let place = black_box(self.start + at);
        if place + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: within the packet, which this program may write to while it runs. It may be misaligned:
        // see `wire::load`.
        unsafe { *(place as *mut T) = value };
        Some(())
    }
}

impl Summed for Packet {
    #[inline(always)]
    fn sum(&self, at: usize, length: usize) -> Option<u64> {
        let sum = checksum(self.context, at as u32, length as u32);
        (sum != NO_SUM).then_some(u64::from(sum))
    }
}

/// The sum of `length` bytes from `at` in the context's packet, folded, or [`NO_SUM`]. Exported as above.
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
        sum += packet.words::<64>(at as usize)?;
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
        sum += packet.words::<4>(at as usize)?;
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

impl Packet {
    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Option<u64> {
        let bytes = self.header::<[u8; N]>(at)?;
        let mut sum = 0;
        let mut word = 0;
        while word < N {
            sum += u64::from(load::<u32, N>(bytes, word));
            word += 4;
        }
        Some(sum)
    }
}
