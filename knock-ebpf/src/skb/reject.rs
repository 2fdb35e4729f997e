//! Sending a reply in place of the packet, as [`reject`](../reject.rs) does for XDP. Here the packet is the kernel's own, so what
//! the kernel knows of it must fit the reply: the VLAN tag that lies beside it, and that its checksum is still to be filled in
//! (`CHECKSUM_PARTIAL`). No field tells the latter. But the kernel does not let a packet end before the place of a checksum
//! that it is to fill in, so an attempt to [`cut`] it there tells.
//!
//! The device that sends the reply to such a packet may still fill in that place, with the sum of all that is behind the IP
//! header. A RST has its checksum there. In an ICMP error it is the unused word; since the ICMP checksum is right, the sum is the
//! other zero of such sums, which leaves it right. That of an `ICMPv6` error becomes wrong, since a pseudo-header counts there
//! too; but devices by which such packets come hand them on as they are, unless somebody has switched that off at one end.

use core::{hint::black_box, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{BPF_F_INVALIDATE_HASH, bpf_xfrm_state},
    helpers::{
        bpf_redirect, bpf_skb_change_tail, bpf_skb_get_xfrm_state, bpf_skb_store_bytes,
        bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
};
use bytemuck::Pod;
use knock_common::{
    address::{V4, V6},
    frame::{
        FrameMut,
        link::{Framing, MAX_TAGS},
    },
    reject::{
        ReplyFamily, Summed,
        reply::{Quote, ReplyBuffer},
    },
    scattered::MOST_HEADERS,
};

use crate::{
    DROP, checksum,
    env::KernelEnv,
    maps,
    packet::{self, Context, Packet},
};

/// Bytes at the end of this CPU's room in which the reply is written. No packet that gets a reply is copied as far.
const DRAFT: usize = 4096;
/// `EINVAL`, as helpers return it.
const INVALID: i64 = -22;

/// Turns the packet into its reply and sends it by the interface that it came by; [`DROP`] where there is none.
///
/// Out of line and in steps, as for XDP.
#[inline(never)]
pub fn reply<L: Framing>(context: *mut Context) -> i32 {
    if is_from_ipsec(context) {
        return DROP;
    }
    let Some(buffer) = maps::REPLY.get_ptr_mut(0) else {
        return DROP;
    };
    // SAFETY: a per-CPU entry, see `count` in tcx. Whatever its bytes are, nothing of it is read before it is written.
    let buffer = unsafe { &mut *buffer };
    let is_made = match read_link::<L>(context, buffer) {
        4 => make::<L, V4>(context, buffer),
        6 => make::<L, V6>(context, buffer),
        _ => false,
    };
    if !is_made {
        return DROP;
    }
    // SAFETY: takes numbers.
    unsafe { bpf_redirect(packet::interface(context), 0) as i32 }
}

/// Returns whether the packet has been decrypted. It then comes by its interface once more, and a reply, which goes past the
/// host's policies, would quote what is secret in clear text.
#[inline(always)]
fn is_from_ipsec(context: *mut Context) -> bool {
    let mut state = MaybeUninit::<bpf_xfrm_state>::uninit();
    let size = size_of::<bpf_xfrm_state>() as u32;
    // SAFETY: the context is the kernel's, which writes `size` bytes or zeros.
    unsafe { bpf_skb_get_xfrm_state(context, 0, state.as_mut_ptr(), size, 0) == 0 }
}

#[inline(always)]
fn make<L: Framing, A: ReplyFamily>(context: *mut Context, buffer: &mut ReplyBuffer) -> bool {
    let is_written = read_packet::<A>(context, buffer)
        && permit(context, buffer, u32::from(A::FAMILY))
        && untag::<L>(context, buffer)
        && write::<L, A>(context, buffer, 0);
    if !is_written {
        return false;
    }
    let is_whole = match cut::<L, A>(context) {
        sum::COMPLETE => buffer.is_right(false),
        // Then a RST is to leave its checksum to the device, too.
        sum::LEFT => buffer.is_right(true) && write::<L, A>(context, buffer, 1),
        _ => false,
    };
    is_whole && replace::<L, A>(context, buffer) && tag(context, buffer)
}

#[inline(never)]
fn read_link<L: Framing>(context: *mut Context, buffer: &mut ReplyBuffer) -> u32 {
    let family = buffer.read_link::<L, _, _>(&KernelEnv::of(context), &Packet::of(context));
    buffer.judge_sum_later();
    u32::from(family)
}

#[inline(never)]
fn read_packet<A: ReplyFamily>(context: *mut Context, buffer: &mut ReplyBuffer) -> bool {
    buffer.read_packet::<A, _, _>(&KernelEnv::of(context), &Packet::of(context))
}

#[inline(never)]
fn permit(context: *mut Context, buffer: &mut ReplyBuffer, family: u32) -> bool {
    buffer.permit(&KernelEnv::of(context), family as u8)
}

/// Removes the packet's VLAN tags, beside it or in it.
#[inline(never)]
fn untag<L: Framing>(context: *mut Context, buffer: &mut ReplyBuffer) -> bool {
    let tags = buffer.untag::<L>();
    for tag in 0..MAX_TAGS {
        // SAFETY: the context is the kernel's. The helper removes the outermost tag, and puts the next one beside the packet.
        if tag < tags && unsafe { bpf_skb_vlan_pop(context) } != 0 {
            return false;
        }
    }
    true
}

/// Writes the reply beside the packet. With `leave`, which is 1, a RST whose checksum is left to the device.
#[inline(never)]
fn write<L: Framing, A: ReplyFamily>(
    context: *mut Context,
    buffer: &ReplyBuffer,
    leave: u32,
) -> bool {
    let Some(room) = maps::SCATTERED.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: within the entry, which is there for good.
    let bytes = unsafe {
        (&raw mut (*room).bytes)
            .cast::<u8>()
            .add(MOST_HEADERS - DRAFT)
    };
    let Quote { from, at, length } = buffer.quote::<L, A>();
    if length != 0 {
        if leave != 0 {
            // It is written already, and an ICMP error has a checksum of its own.
            return true;
        }
        // The verifier asks for bounds, and for one above zero.
        let length = ((black_box(length as u32) - 1) & 0x7ff) + 1;
        // SAFETY: `at` is at most 62, so there is room, and it is this CPU's (see `count` in tcx).
        if !unsafe { packet::load_bytes(context, from as u32, bytes.add(at).cast(), length) } {
            return false;
        }
    }
    let mut draft = Draft {
        context,
        bytes,
        later: at - from,
    };
    buffer
        .write_with::<L, A, _>(&mut draft, leave != 0)
        .is_some()
}

/// What the kernel knows of a packet's checksum; 0: the packet cannot be changed.
mod sum {
    pub const COMPLETE: u32 = 1;
    /// It is still to be filled in.
    pub const LEFT: u32 = 2;
}

/// Cuts the packet behind its ports, and returns one of [`sum`]. The kernel refuses that where it is to fill in a checksum, which
/// is further behind.
#[inline(never)]
fn cut<L: Framing, A: ReplyFamily>(context: *mut Context) -> u32 {
    const PORTS: usize = 4;
    let length = (L::HEADER + A::HEADER + PORTS) as u32;
    // SAFETY: the context is the kernel's, and nothing points into the packet.
    match unsafe { bpf_skb_change_tail(context, length, 0) } {
        0 => sum::COMPLETE,
        INVALID => sum::LEFT,
        _ => 0,
    }
}

/// Writes the reply over the packet.
#[inline(never)]
fn replace<L: Framing, A: ReplyFamily>(context: *mut Context, buffer: &ReplyBuffer) -> bool {
    let Some(room) = maps::SCATTERED.get_ptr_mut(0) else {
        return false;
    };
    let length = ((black_box(buffer.length::<L, A>() as u32) - 1) & 0x7ff) + 1;
    // SAFETY: the context is the kernel's, and nothing here points into the packet. What is stored is within the entry.
    unsafe {
        let draft = (&raw const (*room).bytes)
            .cast::<u8>()
            .add(MOST_HEADERS - DRAFT);
        bpf_skb_change_tail(context, length, 0) == 0
            && bpf_skb_store_bytes(
                context,
                0,
                draft.cast(),
                length,
                u64::from(BPF_F_INVALIDATE_HASH),
            ) == 0
    }
}

/// Puts the reply's VLAN tags on.
#[inline(never)]
fn tag(context: *mut Context, buffer: &ReplyBuffer) -> bool {
    let [outer, inner] = buffer.tags();
    push(context, inner) && push(context, outer)
}

#[inline(always)]
fn push(context: *mut Context, tag: u32) -> bool {
    let tag = u32::from_be(tag);
    let (kind, control) = ((tag >> 16) as u16, tag as u16);
    // SAFETY: the context is the kernel's.
    tag == 0 || unsafe { bpf_skb_vlan_push(context, kind.to_be(), control) } == 0
}

/// A reply that is written beside its packet.
struct Draft {
    context: *mut Context,
    /// [`DRAFT`] bytes.
    bytes: *mut u8,
    /// By how many bytes what is quoted begins later than in the packet.
    later: usize,
}

impl FrameMut for Draft {
    #[inline(always)]
    fn put<T: Pod>(&mut self, at: usize, value: T) -> Option<()> {
        if at > DRAFT - size_of::<T>() {
            return None;
        }
        // SAFETY: within the room, as was just seen; it may be misaligned, see `wire::load`.
        unsafe { self.bytes.add(at).cast::<T>().write_unaligned(value) };
        Some(())
    }
}

impl Summed for Draft {
    /// Of what is quoted, which is also in the packet.
    #[inline(always)]
    fn sum(&self, at: usize, length: usize) -> Option<u64> {
        checksum::of(self.context, at.checked_sub(self.later)?, length)
    }
}
