//! Sending a reply in place of the packet. `knock-common` decides which.

use core::hint::black_box;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
};
use knock_common::{
    address::{V4, V6},
    frame::{
        Frame as _, FrameMut as _,
        link::{ETHER_HEADER, Framing},
    },
    reject::{ReplyFamily, reply::ReplyBuffer},
};

use crate::{env::KernelEnv, maps, packet::Packet};

/// Turns the packet into its reply: `XDP_TX`, or `XDP_DROP` where there is none.
///
/// Out of line, so that the drop path does not pay for it; and in steps that leave
/// nothing behind but what they write to the buffer, so that the verifier follows each once. They take the
/// context and not the packet, whose pointers are good only until it is resized.
#[inline(never)]
pub fn reply<L: Framing>(ctx: *mut xdp_md) -> u32 {
    let Some(buffer) = maps::REPLY.get_ptr_mut(0) else {
        return xdp_action::XDP_DROP;
    };
    // SAFETY: a per-CPU entry, see `count` in main. Whatever its bytes are, nothing of it is read before
    // it is written.
    let buffer = unsafe { &mut *buffer };
    let sent = match read_link::<L>(ctx, buffer) {
        4 => send::<L, V4>(ctx, buffer),
        6 => send::<L, V6>(ctx, buffer),
        _ => false,
    };
    if sent {
        xdp_action::XDP_TX
    } else {
        xdp_action::XDP_DROP
    }
}

#[inline(always)]
fn send<L: Framing, A: ReplyFamily>(ctx: *mut xdp_md, buffer: &mut ReplyBuffer) -> bool {
    read_packet::<A>(ctx, buffer)
        && permit(ctx, buffer, u32::from(A::FAMILY))
        && write::<L, A>(ctx, buffer)
}

#[inline(never)]
fn read_link<L: Framing>(ctx: *mut xdp_md, buffer: &mut ReplyBuffer) -> u32 {
    u32::from(buffer.read_link::<L, _, _>(&KernelEnv::of(ctx), &Packet::of(ctx)))
}

#[inline(never)]
fn read_packet<A: ReplyFamily>(ctx: *mut xdp_md, buffer: &mut ReplyBuffer) -> bool {
    buffer.read_packet::<A, _, _>(&KernelEnv::of(ctx), &Packet::of(ctx))
}

#[inline(never)]
fn permit(ctx: *mut xdp_md, buffer: &mut ReplyBuffer, family: u32) -> bool {
    buffer.permit(&KernelEnv::of(ctx), family as u8)
}

/// Writes the reply over the packet.
#[inline(never)]
fn write<L: Framing, A: ReplyFamily>(ctx: *mut xdp_md, buffer: &ReplyBuffer) -> bool {
    let shift = buffer.shift::<L, A>() as i32;
    if L::HEADER == 0 {
        if !announce::<A>(ctx, shift) {
            return false;
        }
    // SAFETY: the context is the kernel's, and no pointer into the packet is used past here.
    } else if shift != 0 && unsafe { bpf_xdp_adjust_head(ctx, shift) } != 0 {
        return false;
    }
    // Or the compiler would subtract the bounds in 32 bits, which the verifier does not allow.
    let length = black_box(Packet::of(ctx).length());
    let cut = (buffer.length::<L, A>().cast_signed() - length.cast_signed()) as i32;
    // SAFETY: as above.
    if cut != 0 && unsafe { bpf_xdp_adjust_tail(ctx, cut) } != 0 {
        return false;
    }
    buffer.write::<L, A, _>(&mut Packet::of(ctx)).is_some()
}

/// Moves the beginning of a packet that has no link header, and stores the protocol of the reply right before the new
/// beginning.
///
/// In generic mode the kernel takes the first bytes of every packet for an Ethernet header. Those of a reply
/// differ from the packet's, so it reads the protocol again, from the 14 bytes
/// before the packet (`bpf_prog_run_generic_xdp`, `eth_type_trans`). Devices without a link header send by
/// that protocol.
#[inline(always)]
fn announce<A: ReplyFamily>(ctx: *mut xdp_md, shift: i32) -> bool {
    const HEADER: i32 = 14;
    const _: () = assert!(HEADER.unsigned_abs() as usize == ETHER_HEADER);
    // SAFETY: the context is the kernel's, and no pointer into the packet is used past here.
    if unsafe { bpf_xdp_adjust_head(ctx, shift - HEADER) } != 0 {
        return false;
    }
    let kind = A::ETHERTYPE.to_be();
    if Packet::of(ctx).put(ETHER_HEADER - 2, kind).is_none() {
        return false;
    }
    // SAFETY: as above.
    unsafe { bpf_xdp_adjust_head(ctx, HEADER) == 0 }
}
