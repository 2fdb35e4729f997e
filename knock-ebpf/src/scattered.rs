//! Frames in several buffers. The program sees only the first buffer, which may hold less than
//! the headers, or nothing at all; so headers are copied before they are read.
//!
//! A frame in one buffer is read in the usual way. Both are judged in the same place,
//! so that the verifier follows the decision once.

use core::hint::black_box;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
};
use bytemuck::Pod;
use knock_common::{
    Address, Env as _, Reason, Verdict,
    address::V4,
    frame::{Frame, extension, link::Ethernet},
    judge::malformed,
    scattered::{MOST_HEADERS, Read, Room, family, read},
};

use crate::{count, env::KernelEnv, maps, packet::Packet};

/// Judges a frame. Its steps leave nothing on the stack but their results.
#[inline(always)]
pub fn verdict(context: *mut xdp_md) -> u32 {
    // SAFETY: the context is the kernel's (since Linux 5.18).
    let length = unsafe { bpf_xdp_get_buff_len(context) };
    if KernelEnv::of(context).lapsed() {
        return counted(Verdict::of(Reason::Lapsed), length);
    }
    let found = if length == Packet::of(context).length() as u64 {
        read_in_one_piece(context)
    } else {
        read_scattered(context, length as u32)
    };
    match found {
        family::V4 => judged(context, length, |room| &room.v4),
        family::V6 => judged(context, length, |room| &room.v6),
        family::MALFORMED => counted(malformed::<_, V4>(&KernelEnv::of(context), None), length),
        _ => counted(Verdict::of(Reason::NotIp), length),
    }
}

/// Reads a frame in one buffer into this CPU's room.
///
/// Exported, so that it is a global function to the verifier, which verifies it once, independently of its callers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_in_one_piece(context: *mut xdp_md) -> u32 {
    let Some(room) = maps::SCATTERED.get_ptr_mut(0) else {
        // The table is always there.
        return family::MALFORMED;
    };
    // SAFETY: a per-CPU entry, see `count` in main.
    let room = unsafe { &mut *room };
    read::<Ethernet, _>(&Packet::of(context), &mut room.v4, &mut room.v6)
}

/// Reads any other frame into this CPU's room. Exported as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_scattered(context: *mut xdp_md, length: u32) -> u32 {
    let Some(room) = maps::SCATTERED.get_ptr_mut(0) else {
        return family::MALFORMED;
    };
    let frame = Scattered::of(context, room, length);
    // SAFETY: a per-CPU entry, see `count` in main; the frame has the bytes beside these.
    let (v4, v6) = unsafe { (&mut (*room).v4, &mut (*room).v6) };
    read::<Ethernet, _>(&frame, v4, v6)
}

#[inline(never)]
fn judged<A: Address>(
    context: *mut xdp_md,
    length: u64,
    part: impl FnOnce(&Room) -> &Read<A>,
) -> u32 {
    match maps::SCATTERED.get(0) {
        Some(room) => {
            let verdict = part(room).judge(&KernelEnv::of(context), &Packet::of(context));
            counted(verdict, length)
        }
        None => xdp_action::XDP_DROP,
    }
}

/// Counts the packet, and returns the verdict as an XDP action. There are no replies: this entry is loaded for a
/// gate that rejects only where the array that calls ours takes no other.
#[inline(always)]
fn counted(verdict: Verdict, length: u64) -> u32 {
    count(verdict, length);
    if verdict.reason.passes() {
        xdp_action::XDP_PASS
    } else {
        xdp_action::XDP_DROP
    }
}

struct Scattered {
    context: *mut xdp_md,
    /// [`Room::bytes`]: each byte has the same index as in the frame.
    copy: *mut [u8; MOST_HEADERS],
    length: u32,
}

impl Scattered {
    #[inline(always)]
    fn of(context: *mut xdp_md, room: *mut Room, length: u32) -> Self {
        Self {
            context,
            // SAFETY: an entry of a table, which is there for good.
            copy: unsafe { &raw mut (*room).bytes },
            length,
        }
    }
}

impl Frame for Scattered {
    #[inline(always)]
    fn header<T: Pod>(&self, at: usize) -> Option<&T> {
        const { assert!(align_of::<T>() == 1) };
        // Or the compiler would leave out a comparison that follows from another one, but the verifier knows
        // the bounds of a number only if that number itself was compared.
        let at = black_box(at);
        if at > MOST_HEADERS - size_of::<T>() {
            return None;
        }
        // SAFETY: within the copy, as was just seen.
        let to = unsafe { self.copy.cast::<u8>().add(at) };
        // SAFETY: the context is the kernel's, and there is room for as much as is copied. The room is this CPU's
        // (see `count` in main), and bytes that were copied before do not change.
        let missing = unsafe {
            bpf_xdp_load_bytes(self.context, at as u32, to.cast(), size_of::<T>() as u32)
        };
        if missing != 0 {
            return None;
        }
        // SAFETY: the kernel has just written these bytes; the type has alignment 1 and no invalid values.
        Some(unsafe { &*to.cast::<T>() })
    }

    #[inline(always)]
    fn copy<const N: usize>(&self, at: usize, to: &mut [u64; N]) -> bool {
        Packet::of(self.context).copy(at, to)
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.length as usize
    }

    #[inline(always)]
    fn chain(&self, next: u8, at: usize, end: usize) -> u32 {
        let (next, at, end) = (u32::from(next), at as u32, end as u32);
        scattered_extension_headers(self.context, next, at, end, self.length)
    }
}

/// [`extension::chain`] in a frame that lies in several buffers. Exported as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scattered_extension_headers(
    context: *mut xdp_md,
    next: u32,
    at: u32,
    end: u32,
    length: u32,
) -> u32 {
    let Some(room) = maps::SCATTERED.get_ptr_mut(0) else {
        return extension::Chain::Malformed.pack();
    };
    let frame = Scattered::of(context, room, length);
    // Behind Ethernet, two tags and an IPv6 header it is far below this. The verifier needs a bound.
    let at = (at & 0xff) as usize;
    extension::chain(&frame, next as u8, at, end as usize).pack()
}
