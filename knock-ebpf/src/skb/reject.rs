//! Sending a reply in place of the packet, as [`reject`](../reject.rs) does for XDP. Here the packet is the kernel's own, so what
//! the kernel knows of it must fit the reply: the VLAN tag that lies beside it, and that its checksum is still to be filled in
//! (`CHECKSUM_PARTIAL`). No field tells the latter, but a helper that adjusts checksums does: see [`known_sum`].
//!
//! The device that sends the reply to such a packet may still fill in that place, with the sum of all that is behind the IP
//! header. A RST has its checksum there. In an ICMP error it is the unused word; since the ICMP checksum is right, the sum is the
//! other zero of such sums, which leaves it right. That of an `ICMPv6` error becomes wrong, since a pseudo-header counts there
//! too; but devices by which such packets come hand them on as they are, unless somebody has switched that off at one end.

use core::{hint::black_box, mem::MaybeUninit, ptr::null_mut};

use aya_ebpf::{
    bindings::{BPF_F_INVALIDATE_HASH, bpf_xfrm_state},
    helpers::{
        bpf_csum_diff, bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_tail,
        bpf_skb_get_xfrm_state, bpf_skb_store_bytes, bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
};
use bytemuck::Pod;
use knock_common::{
    address::{V4, V6},
    frame::{
        Frame, FrameMut, extension,
        link::{Framing, MAX_TAGS},
    },
    reject::{
        MOST_SUMMED, ReplyFamily, Summed,
        reply::{Quote, ReplyBuffer},
    },
    scattered::MOST_HEADERS,
};

use crate::{
    DROP,
    env::KernelEnv,
    maps,
    packet::{self, Context, Packet},
};

/// Bytes at the end of this CPU's room in which the reply is written.
const DRAFT: usize = 4096;
/// Bytes of the longest packet that gets a reply, before these in the room: of a packet whose checksum is looked at, with headers
/// and a reserve.
const LONGEST: usize = 12 * 1024;
const _: () = assert!(MOST_SUMMED < LONGEST && LONGEST < MOST_HEADERS - DRAFT);
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
    let is_written = untag::<L>(context, buffer)
        && read_packet::<A>(context, buffer)
        && permit(context, buffer, u32::from(A::FAMILY))
        && write::<L, A>(context, buffer, 0);
    if !is_written {
        return false;
    }
    let is_whole = match known_sum::<L, A>(context, buffer) {
        sum::COMPLETE => buffer.is_right(false),
        // Then a RST is to leave its checksum to the device, too.
        sum::LEFT => buffer.is_right(true) && write::<L, A>(context, buffer, 1),
        _ => false,
    };
    is_whole && replace::<L, A>(context, buffer) && tag(context, buffer)
}

#[inline(never)]
fn read_link<L: Framing>(context: *mut Context, buffer: &mut ReplyBuffer) -> u32 {
    let Some(packet) = Packet::whole(context) else {
        return 0;
    };
    let family = buffer.read_link::<L, _, _>(&KernelEnv::of(context), &packet);
    buffer.judge_sum_later();
    u32::from(family)
}

#[inline(never)]
fn read_packet<A: ReplyFamily>(context: *mut Context, buffer: &mut ReplyBuffer) -> bool {
    let Some(packet) = Copied::of(context) else {
        return false;
    };
    buffer.read_packet::<A, _, _>(&KernelEnv::of(context), &packet)
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
        bytes,
        later: at - from,
    };
    buffer
        .write_with::<L, A, _>(&mut draft, leave != 0)
        .is_some()
}

/// What the kernel knows of a packet's checksum; 0: the packet cannot be read or changed.
mod sum {
    pub const COMPLETE: u32 = 1;
    /// It is still to be filled in.
    pub const LEFT: u32 = 2;
}

/// Returns one of [`sum`]. The kernel adjusts a checksum to a changed word of the packet only if it is complete
/// (`inet_proto_csum_replace4` of `net/core/utils.c`), so this asks for that, and sees whether it has been done. It has changed the
/// packet then, of which the reply leaves nothing.
#[inline(never)]
fn known_sum<L: Framing, A: ReplyFamily>(context: *mut Context, buffer: &ReplyBuffer) -> u32 {
    /// Where a checksum is in the header of TCP (RFC 9293) and UDP (RFC 768).
    const OF_TCP: usize = 16;
    const OF_UDP: usize = 6;
    let of_it = if buffer.quote::<L, A>().length == 0 {
        OF_TCP
    } else {
        OF_UDP
    };
    let at = (L::HEADER + A::HEADER + of_it) as u32;
    let (mut before, mut after) = (0_u16, 0_u16);
    let width = size_of::<u16>() as u32;
    // SAFETY: the context is the kernel's, nothing points into the packet, and there is room for as much as is copied.
    let is_known = unsafe {
        packet::load_bytes(context, at, (&raw mut before).cast(), width)
            && bpf_l4_csum_replace(context, at, 0, 1, size_of::<u32>() as u64) == 0
            && packet::load_bytes(context, at, (&raw mut after).cast(), width)
    };
    match is_known {
        true if before == after => sum::LEFT,
        true => sum::COMPLETE,
        false => 0,
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

/// A packet without VLAN tags that has been copied to this CPU's room as a whole, so that reading it costs no calls.
struct Copied {
    bytes: *const u8,
    length: usize,
}

impl Copied {
    /// Copies a packet; `None` where it is longer than [`LONGEST`].
    #[inline(always)]
    fn of(context: *mut Context) -> Option<Self> {
        let room = maps::SCATTERED.get_ptr_mut(0)?;
        // SAFETY: within the entry, which is there for good.
        let bytes = unsafe { (&raw mut (*room).bytes).cast::<u8>() };
        let length = black_box(packet::whole_length(context) as usize);
        if length == 0 || length > LONGEST {
            return None;
        }
        // SAFETY: there is room for `LONGEST`, and it is this CPU's (see `count` in tcx).
        let is_copied = unsafe { packet::load_bytes(context, 0, bytes.cast(), length as u32) };
        is_copied.then_some(Self { bytes, length })
    }
}

impl Frame for Copied {
    #[inline(always)]
    fn header<T: Pod>(&self, at: usize) -> Option<&T> {
        const { assert!(align_of::<T>() == 1) };
        // As in `packet`.
        let at = black_box(at);
        if at > LONGEST - size_of::<T>() || at + size_of::<T>() > self.length {
            return None;
        }
        // SAFETY: within what was copied; the type has alignment 1 and no invalid values.
        Some(unsafe { &*self.bytes.add(at).cast::<T>() })
    }

    #[inline(always)]
    fn copy<const N: usize>(&self, at: usize, to: &mut [u64; N]) -> bool {
        let words = self.header::<[[u8; 8]; N]>(at);
        words.is_some_and(|words| {
            for (word, to) in words.iter().zip(to) {
                *to = u64::from_ne_bytes(*word);
            }
            true
        })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    /// A packet with extension headers gets no reply.
    #[inline(always)]
    fn chain(&self, _next: u8, _at: usize, _end: usize) -> u32 {
        extension::Chain::Malformed.pack()
    }
}

impl Summed for Copied {
    #[inline(always)]
    fn sum(&self, at: usize, length: usize) -> Option<u64> {
        if at + length > self.length {
            return None;
        }
        summed(at, length)
    }
}

/// Returns the sum of `length` bytes from `at` of the packet in this CPU's room; `None` for more than [`MOST_SUMMED`].
#[inline(always)]
fn summed(at: usize, length: usize) -> Option<u64> {
    let sum = checksum(at as u32, length as u32);
    u64::try_from(sum).ok()
}

/// [`summed`], or a negative number.
///
/// Exported, so that it is a global function to the verifier, which verifies it once, independently of its callers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn checksum(at: u32, length: u32) -> i64 {
    /// What the kernel sums at once (`bpf_csum_diff`, before Linux 6.13).
    const PART: u32 = 512;
    let Some(room) = maps::SCATTERED.get_ptr_mut(0) else {
        return INVALID;
    };
    // Behind Ethernet and an IPv6 header it is far below this. The verifier needs a bound.
    let (at, length) = (at & 0xff, black_box(length));
    if length > MOST_SUMMED as u32 {
        return INVALID;
    }
    // SAFETY: `at` and `length` are bounded, so that all is within the entry, which is this CPU's (see `count` in tcx). Bytes
    // up to a whole word are added, which are zero.
    unsafe {
        let bytes = (&raw mut (*room).bytes).cast::<u8>().add(at as usize);
        bytes.add(length as usize).cast::<[u8; 3]>().write([0; 3]);
        let (mut done, mut left, mut sum) = (0, (length + 3) & !3, 0);
        for _ in 0..=MOST_SUMMED as u32 / PART {
            let part = black_box(if left < PART { left } else { PART });
            if part == 0 || part > PART || done > MOST_SUMMED as u32 {
                break;
            }
            let from = bytes.add(done as usize).cast();
            let Ok(so_far) = u32::try_from(bpf_csum_diff(null_mut(), 0, from, part, sum)) else {
                return INVALID;
            };
            sum = so_far;
            done += part;
            left -= part;
        }
        i64::from(sum)
    }
}

/// A reply that is written beside its packet.
struct Draft {
    /// [`DRAFT`] bytes.
    bytes: *mut u8,
    /// By how many bytes what is quoted begins later than in the packet.
    later: usize,
}

impl FrameMut for Draft {
    #[inline(always)]
    fn put<T: Pod>(&mut self, at: usize, value: T) -> Option<()> {
        let at = black_box(at);
        if at > DRAFT - size_of::<T>() {
            return None;
        }
        // SAFETY: within the room, as was just seen; it may be misaligned, see `wire::load`.
        unsafe { *self.bytes.add(at).cast::<T>() = value };
        Some(())
    }
}

impl Summed for Draft {
    /// Of what is quoted, which is in the packet too.
    #[inline(always)]
    fn sum(&self, at: usize, length: usize) -> Option<u64> {
        summed(at.checked_sub(self.later)?, length)
    }
}
