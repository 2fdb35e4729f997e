//! Reading a packet into this CPU's room, from where it is judged. First its linear part is read. Only if that ends before a
//! header that is needed, or there are more or other extension headers than a short chain of options and routing, all is
//! read again by copying.
//!
//! What is exported is a global function to the verifier, which verifies it once, independently of its callers.

use knock_common::{
    frame::link::{BareIp, Ethernet, Framing, NetworkLayer, TagBeside, VLAN_TAG},
    scattered::{Room, family, read},
};

use crate::{
    maps,
    packet::{self, Context, Linear, Packet},
};

/// A result beside those of [`family`]: the linear part does not say.
const NOT_LINEAR: u32 = u32::MAX;

/// Reads a packet that begins with an Ethernet header. Returns one of [`family`].
#[inline(always)]
pub fn ethernet(context: *mut Context) -> u32 {
    let found = if packet::has_tag_beside(context) {
        linear_behind_tag(context)
    } else {
        linear_ethernet(context)
    };
    if found == NOT_LINEAR {
        copied_ethernet(context)
    } else {
        found
    }
}

/// Reads a packet that begins with its IP header. Returns one of [`family`].
#[inline(always)]
pub fn bare_ip(context: *mut Context) -> u32 {
    match packet::behind_tag_of_bare_ip(context) {
        None => {}
        Some(NetworkLayer::Malformed) => return family::MALFORMED,
        Some(_) => return family::NOT_IP,
    }
    let found = linear_bare_ip(context);
    if found == NOT_LINEAR {
        copied_bare_ip(context)
    } else {
        found
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn linear_ethernet(context: *mut Context) -> u32 {
    linear::<Ethernet, 0>(context)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn linear_behind_tag(context: *mut Context) -> u32 {
    linear::<TagBeside, VLAN_TAG>(context)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn linear_bare_ip(context: *mut Context) -> u32 {
    linear::<BareIp, 0>(context)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copied_ethernet(context: *mut Context) -> u32 {
    copied::<Ethernet>(context)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copied_bare_ip(context: *mut Context) -> u32 {
    copied::<BareIp>(context)
}

#[inline(always)]
fn linear<L: Framing, const BESIDE: usize>(context: *mut Context) -> u32 {
    let Some(room) = maps::SCATTERED.get_ptr_mut(0) else {
        // The table is always there.
        return family::MALFORMED;
    };
    let frame = Linear::<BESIDE>::of(context);
    // SAFETY: a per-CPU entry, see `count` in tcx.
    let Room { v4, v6, .. } = unsafe { &mut *room };
    let found = read::<L, _>(&frame, v4, v6);
    if frame.missed() { NOT_LINEAR } else { found }
}

#[inline(always)]
fn copied<L: Framing>(context: *mut Context) -> u32 {
    let Some(room) = maps::SCATTERED.get_ptr_mut(0) else {
        return family::MALFORMED;
    };
    let Some(frame) = Packet::whole(context) else {
        return family::NOT_IP;
    };
    // SAFETY: as above; the frame has the bytes beside these.
    let (v4, v6) = unsafe { (&mut (*room).v4, &mut (*room).v6) };
    read::<L, _>(&frame, v4, v6)
}
