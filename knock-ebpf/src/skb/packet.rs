//! The packet's bytes as the TCX program reads them, in place of [`packet`](../packet.rs).
//!
//! A packet here is what the kernel has made of a frame: it may lie in several pieces of memory, be merged of several
//! frames (GRO), and have lost its outermost VLAN tag, which then lies beside it. Its headers are nearly always in the
//! first piece, where [`Linear`] reads them. [`Packet`] reads all others: it copies each header before it is read, by a call
//! of the kernel, and has the tag back in its place.

use core::{cell::Cell, ffi::c_void, hint::black_box, ptr::null_mut};

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};
use bytemuck::Pod;
use knock_common::{
    frame::{
        Frame, extension,
        link::{NetworkLayer, VLAN_TAG, behind_tag},
    },
    merged::Merged,
    scattered::{MOST_HEADERS, Room},
};

use crate::maps;

/// What the kernel calls the entries with. The verifier knows it by this name in functions that it verifies by themselves.
pub type Context = __sk_buff;

/// Reads a field of the context. Volatile, since the kernel reads a field in another place, and only at its full width.
macro_rules! field {
    ($context:expr, $field:ident) => {
        // SAFETY: the kernel's context, readable for as long as the program runs.
        unsafe { (&raw const (*$context).$field).read_volatile() }
    };
}

/// Bytes of the two MAC addresses, behind which a tag belongs.
const MACS: usize = 12;
/// Bytes of an Ethernet header with one tag.
const TAGGED: usize = MACS + VLAN_TAG + 2;

/// Returns the index of the interface at which the packet is.
#[inline(always)]
pub fn interface(context: *mut Context) -> u32 {
    field!(context, ifindex)
}

/// Returns the length of the frame, with the tag that lies beside it.
#[inline(always)]
pub fn whole_length(context: *mut Context) -> u64 {
    u64::from(field!(context, len)) + shift(context) as u64
}

/// Returns what the packet is merged of.
#[inline(always)]
pub fn merged(context: *mut Context) -> Merged {
    Merged {
        segments: field!(context, gso_segs),
        size: field!(context, gso_size),
    }
}

/// Copies bytes of the frame, from behind its Ethernet header. Returns false where it ends before.
///
/// # Safety
///
/// There is room for `length` bytes at `to`.
#[inline(always)]
pub unsafe fn load_bytes(context: *mut Context, at: u32, to: *mut c_void, length: u32) -> bool {
    // Behind the tag, what is in the frame is that much further on than in memory. A place before it would wrap,
    // and be refused.
    let from = at.wrapping_sub(shift(context) as u32);
    // SAFETY: the context is the kernel's; the rest is the caller's duty.
    unsafe { bpf_skb_load_bytes(context.cast(), from, to, length) == 0 }
}

/// Returns whether the outermost VLAN tag lies beside the frame.
#[inline(always)]
pub fn has_tag_beside(context: *mut Context) -> bool {
    field!(context, vlan_present) != 0
}

/// Bytes of the tag that lies beside the frame.
#[inline(always)]
fn shift(context: *mut Context) -> usize {
    if has_tag_beside(context) { VLAN_TAG } else { 0 }
}

/// Returns what is behind a tag that lies beside a packet without link header; `None` where none does.
#[inline(always)]
pub fn behind_tag_of_bare_ip(context: *mut Context) -> Option<NetworkLayer> {
    if shift(context) == 0 {
        return None;
    }
    let control = field!(context, vlan_tci) as u16;
    Some(behind_tag(
        control,
        u16::from_be(field!(context, protocol) as u16),
    ))
}

/// Copies the Ethernet header and the tag that lies beside it to this CPU's room, in the order that they have in the frame.
/// Returns false where there is no whole header.
#[inline(always)]
fn restore_tag(context: *mut Context, room: *mut Room) -> bool {
    if shift(context) == 0 {
        return true;
    }
    let tag = [
        field!(context, vlan_proto) as u16,
        (field!(context, vlan_tci) as u16).to_be(),
    ];
    // SAFETY: all within the room, which is this CPU's (see `count` in tcx); the tag may be misaligned (see `wire::load`).
    unsafe {
        let bytes = (&raw mut (*room).bytes).cast::<u8>();
        bytes.add(MACS).cast::<[u16; 2]>().write_unaligned(tag);
        bpf_skb_load_bytes(context.cast(), 0, bytes.cast(), MACS as u32) == 0
            && bpf_skb_load_bytes(
                context.cast(),
                MACS as u32,
                bytes.add(MACS + VLAN_TAG).cast(),
                2,
            ) == 0
    }
}

/// The linear part of a frame (`skb->data`), in which `BESIDE` bytes are missing behind the MAC addresses, since they lie
/// beside the frame. Places count them.
pub struct Linear<const BESIDE: usize> {
    start: usize,
    end: usize,
    /// Of the whole frame.
    length: usize,
    missed: Cell<bool>,
}

impl<const BESIDE: usize> Linear<BESIDE> {
    /// The packet as it is now. Helpers that change its size make this one invalid.
    #[inline(always)]
    pub fn of(context: *mut Context) -> Self {
        Self {
            start: field!(context, data) as usize,
            end: field!(context, data_end) as usize,
            length: field!(context, len) as usize + BESIDE,
            missed: Cell::new(false),
        }
    }

    /// Returns whether anything was asked for that may lie behind this part. Then what has been read says nothing.
    #[inline(always)]
    pub fn missed(&self) -> bool {
        self.missed.get()
    }
}

impl<const BESIDE: usize> Frame for Linear<BESIDE> {
    #[inline(always)]
    fn header<T: Pod>(&self, at: usize) -> Option<&T> {
        const { assert!(align_of::<T>() == 1) };
        // No header but the first begins before the end of the tag. The compiler would compare another sum than the one that
        // is read from, but the verifier knows the bounds of a sum only if that sum itself was compared.
        let place = match (at, BESIDE) {
            (_, 0) => at,
            (0, _) => 0,
            _ => black_box(at - BESIDE),
        };
        // In this order and with `>`, as in the XDP program's.
        if self.start + place + size_of::<T>() > self.end {
            if at + size_of::<T>() <= self.length {
                self.missed.set(true);
            }
            return None;
        }
        // SAFETY: the bytes lie between start and end, which the kernel keeps mapped and unwritten while the program
        // runs and changes nothing; the type has alignment 1 and no invalid values.
        Some(unsafe { &*((self.start + place) as *const T) })
    }

    /// Copies nothing: what is copied is behind the headers.
    #[inline(always)]
    fn copy<const N: usize>(&self, _at: usize, _to: &mut [u64; N]) -> bool {
        self.missed.set(true);
        false
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    /// Reads nothing: few packets have more than a short chain.
    #[inline(always)]
    fn chain(&self, _next: u8, _at: usize, _end: usize) -> u32 {
        self.missed.set(true);
        extension::Chain::Malformed.pack()
    }
}

/// A frame, of which each header is copied to this CPU's room before it is read.
pub struct Packet {
    context: *mut Context,
    /// [`Room::bytes`]: each byte has the same index as in the frame.
    copy: *mut [u8; MOST_HEADERS],
    /// Whether the copy has the Ethernet header of a frame whose tag lies beside it.
    is_tag_restored: bool,
}

impl Packet {
    /// For [`Frame::copy`] alone: it has no headers.
    #[inline(always)]
    pub fn of(context: *mut Context) -> Self {
        Self {
            context,
            copy: null_mut(),
            is_tag_restored: false,
        }
    }

    /// For reading what is behind the Ethernet header and its tags.
    #[inline(always)]
    pub fn behind_tags(context: *mut Context, room: *mut Room) -> Self {
        Self {
            context,
            // SAFETY: an entry of a table, which is there for good.
            copy: unsafe { &raw mut (*room).bytes },
            is_tag_restored: false,
        }
    }

    /// For reading all of it; `None` where a tag lies beside it and there is no whole Ethernet header.
    #[inline(always)]
    pub fn whole(context: *mut Context) -> Option<Self> {
        let room = maps::SCATTERED.get_ptr_mut(0)?;
        restore_tag(context, room).then_some(Self {
            is_tag_restored: true,
            ..Self::behind_tags(context, room)
        })
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn header<T: Pod>(&self, at: usize) -> Option<&T> {
        const { assert!(align_of::<T>() == 1) };
        // Or the compiler would leave out a comparison that follows from another one, but the verifier knows
        // the bounds of a number only if that number itself was compared.
        let at = black_box(at);
        if self.copy.is_null() || at > MOST_HEADERS - size_of::<T>() {
            return None;
        }
        // SAFETY: within the copy, as was just seen.
        let to = unsafe { self.copy.cast::<u8>().add(at) };
        let is_restored = shift(self.context) != 0 && at < TAGGED;
        if is_restored && (!self.is_tag_restored || at + size_of::<T>() > TAGGED) {
            // No header begins before the end of the tag and ends behind it.
            return None;
        }
        // SAFETY: there is room for as much as is copied. The room is this CPU's (see `count` in tcx), and bytes that were
        // copied before do not change.
        let is_there = is_restored
            || unsafe { load_bytes(self.context, at as u32, to.cast(), size_of::<T>() as u32) };
        // SAFETY: the bytes have just been written, or by `restore_tag`; the type has alignment 1 and no invalid values.
        is_there.then(|| unsafe { &*to.cast::<T>() })
    }

    #[inline(always)]
    fn copy<const N: usize>(&self, at: usize, to: &mut [u64; N]) -> bool {
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
        whole_length(self.context) as usize
    }

    #[inline(always)]
    fn chain(&self, next: u8, at: usize, end: usize) -> u32 {
        extension_headers(self.context, u32::from(next), at as u32, end as u32)
    }
}

/// [`extension::chain`] in the context's packet.
///
/// Exported, so that it is a global function to the verifier, which verifies it once, independently of its callers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn extension_headers(context: *mut Context, next: u32, at: u32, end: u32) -> u32 {
    let Some(room) = maps::SCATTERED.get_ptr_mut(0) else {
        return extension::Chain::Malformed.pack();
    };
    let packet = Packet::behind_tags(context, room);
    // Behind Ethernet, two tags and an IPv6 header it is far below this. The verifier needs a bound.
    let at = (at & 0xff) as usize;
    extension::chain(&packet, next as u8, at, end as usize).pack()
}
