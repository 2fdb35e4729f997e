//! The packet's bytes. Every read of packet memory in this program is the one below.

use aya_ebpf::programs::XdpContext;
use knock_common::frame::Frame;

/// The linear part of a frame, from `start` to before `end`.
pub struct Packet {
    start: usize,
    end: usize,
}

impl Packet {
    #[inline(always)]
    pub fn of(ctx: &XdpContext) -> Self {
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
        }
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn header<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        // In this order and with `>`, as the verifier follows it (before Linux 5.16 it mistook
        // `>=`). Nothing overflows: `at` is at most 32 KiB, see `frame::ipv6`.
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
}
