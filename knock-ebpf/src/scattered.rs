//! Frames that lie in several buffers. The program is shown the first of them alone, which may hold less than
//! the headers, or nothing at all; so these headers are copied before they are read.
//!
//! A frame in one piece is read as the usual entry reads it. Either way what was read is decided in the same place,
//! so that the verifier follows the decision once.

use core::hint::black_box;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
};
use bytemuck::Pod;
use knock_common::{
    Family, Reason, Verdict,
    address::V4,
    frame::{Frame, extension},
    judge::malformed,
    scattered::{MOST_HEADERS, Read, Room, family, read},
};

use crate::{count, env::KernelEnv, maps, packet::Packet};

/// Judges a frame. The steps leave nothing on the stack but what they return.
#[inline(always)]
pub fn verdict(context: *mut xdp_md) -> u32 {
    // SAFETY: the context is the kernel's (since Linux 5.18).
    let length = unsafe { bpf_xdp_get_buff_len(context) };
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

/// Reads a frame of which all is seen into this CPU's room.
///
/// Exported, so that the verifier takes it for a global function and checks it once, by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_in_one_piece(context: *mut xdp_md) -> u32 {
    let Some(room) = maps::SCATTERED.get_ptr_mut(0) else {
        // The table is always there.
        return family::MALFORMED;
    };
    // SAFETY: a per-CPU entry, see `count` in main.
    let room = unsafe { &mut *room };
    read(&Packet::of(context), &mut room.v4, &mut room.v6)
}

/// The same of any other frame.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_scattered(context: *mut xdp_md, length: u32) -> u32 {
    let Some(room) = maps::SCATTERED.get_ptr_mut(0) else {
        return family::MALFORMED;
    };
    let frame = Scattered::of(context, room, length);
    // SAFETY: a per-CPU entry, see `count` in main; the frame has the bytes beside these.
    let (v4, v6) = unsafe { (&mut (*room).v4, &mut (*room).v6) };
    read(&frame, v4, v6)
}

#[inline(never)]
fn judged<A: Family>(
    context: *mut xdp_md,
    length: u64,
    part: impl FnOnce(&Room) -> &Read<A>,
) -> u32 {
    match maps::SCATTERED.get(0) {
        Some(room) => counted(part(room).judge(&KernelEnv::of(context)), length),
        None => xdp_action::XDP_DROP,
    }
}

/// Counts the packet, and returns the verdict as the kernel takes it. Where a gate rejects this entry is not loaded,
/// since a reply is written over a packet in one piece.
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
    /// [`Room::bytes`]: each byte has the place there that it has in the frame.
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
        // the bounds of a number only where it was compared.
        let at = black_box(at);
        if at > MOST_HEADERS - size_of::<T>() {
            return None;
        }
        // SAFETY: within the copy, as was just seen.
        let to = unsafe { self.copy.cast::<u8>().add(at) };
        // SAFETY: the context is the kernel's, and there is room for as much as is asked for. It is this CPU's
        // (see `count` in main), and what was copied there before is written once more as it is.
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
    // Behind Ethernet, two tags and a header of IPv6 it is far below this: said for the verifier.
    let at = (at & 0xff) as usize;
    extension::chain(&frame, next as u8, at, end as usize).pack()
}
