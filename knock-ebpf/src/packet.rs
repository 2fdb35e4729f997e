//! The packet's bytes. Every read and write of packet memory in the XDP program is in this file. The TCX program has another
//! one in its place: [`skb`](../skb/packet.rs).

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
};
use bytemuck::Pod;
use knock_common::{
    frame::{Frame, FrameMut, extension},
    wire::load,
};

/// What the kernel calls the entries with. The verifier knows it by this name in functions that it verifies by themselves.
pub type Context = xdp_md;

/// Returns the index of the interface that the packet has come by.
#[inline(always)]
pub fn interface(context: *mut Context) -> u32 {
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

    #[inline(always)]
    pub fn context(&self) -> *mut Context {
        self.context
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
