//! The packet's bytes. Every read of packet memory in this program is the one below.

use aya_ebpf::{EbpfContext as _, bindings::xdp_md, programs::XdpContext};
use knock_common::frame::{self, Frame};

/// The linear part of a frame, from `start` to before `end`.
pub struct Packet {
    context: *mut xdp_md,
    start: usize,
    end: usize,
}

impl Packet {
    #[inline(always)]
    pub fn of(ctx: &XdpContext) -> Self {
        Self {
            context: ctx.as_ptr().cast(),
            start: ctx.data(),
            end: ctx.data_end(),
        }
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn header<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        // In this order and with `>`, as the verifier follows it (before Linux 5.16 it mistook
        // `>=`). Nothing overflows: `at` is at most 32 KiB, see `frame::Chain`.
        if self.start + at + N > self.end {
            return None;
        }
        // SAFETY: the bytes lie between start and end, which the kernel keeps mapped and unwritten
        // while the program runs; bytes have no alignment and no invalid values.
        Some(unsafe { &*((self.start + at) as *const [u8; N]) })
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

/// [`frame::chain`] in the context's packet.
///
/// Exported, so that the verifier takes it for a global function: it checks such a one once, for all
/// arguments that there can be (since Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn extension_headers(context: *mut xdp_md, next: u32, at: u32, end: u32) -> u32 {
    let packet = Packet::of(&XdpContext::new(context));
    // Behind Ethernet, two tags and a header of IPv6 it is far below this: said for the verifier.
    let at = (at & 0xff) as usize;
    frame::chain(&packet, next as u8, at, end as usize).pack()
}
