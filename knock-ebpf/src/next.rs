//! Where a packet that passes goes: on to the host, or to the program that the configuration names for its interface.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    maps::ProgramArray,
    programs::XdpContext,
};
use knock_common::{
    frame::link::Framing,
    next::{MOST, slot, slot_of},
};

use crate::{maps, packet, settings};

/// Returns `action`. Of a packet that passes, it does so only where no program follows, or the kernel does not call it;
/// otherwise that program's action takes its place.
///
/// Only the entries call this, which have nothing left to do by then. From a function of theirs, the kernel would not allow
/// it with more than 256 bytes of stack in use (`check_max_stack_depth` of `kernel/bpf/verifier.c`).
#[inline(always)]
pub fn go_on<L: Framing>(context: *mut xdp_md, action: u32) -> u32 {
    if settings::next() != slot::NONE && action == xdp_action::XDP_PASS {
        let slot = match settings::next() {
            // A number that the verifier knows makes the call a jump (since Linux 5.5).
            slot::FIRST => 0,
            _ => of_interface(context),
        };
        // SAFETY: the context is the kernel's, and nothing of this program is left to do.
        unsafe { programs::<L>().tail_call(&XdpContext::new(context), slot) };
    }
    action
}

/// Returns the slot of the interface that the packet has come by, or one that there is not.
#[inline(always)]
fn of_interface(context: *mut xdp_md) -> u32 {
    let Some(interfaces) = maps::NEXT_INTERFACE.get(0) else {
        return u32::MAX;
    };
    let slot = slot_of(interfaces, packet::driver(context));
    if slot < MOST {
        return slot as u32;
    }
    slot_of(interfaces, packet::interface(context)) as u32
}

/// Entries that differ in `frags` cannot call by the same array.
#[inline(always)]
fn programs<L: Framing>() -> &'static ProgramArray {
    if L::HEADER == 0 {
        &maps::NEXT_IP
    } else {
        &maps::NEXT
    }
}
