//! Sending the answer of a closed port back in place of the packet. What it is, `knock-common` knows.

use core::hint::black_box;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::{bpf_get_prandom_u32, bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
};
use knock_common::{
    Address, Env as _, HashTable as _,
    address::{V4, V6},
    frame::{ETHER_HEADER, Frame as _, Framing},
    keys::{ScopedAddress, SourceKey},
    reject::{
        FrameMut as _, Host, Link, LinkKey, ReplyFamily, ReplySettings,
        rate_limit::{GlobalIcmpBucket, first},
        reply::{Reply, ReplyBuffer},
        request::LinkHeader,
    },
};

use crate::{atomic, env::KernelEnv, maps, packet::Packet};

/// How often another CPU may come first at the common pool of errors.
const TRIES: u32 = 4;

/// Turns the packet into its answer: `XDP_TX`, or `XDP_DROP` where a closed port would say nothing.
///
/// Apart from the entry, whose way for gates that drop it is not to burden; and in steps that leave
/// nothing behind but what they write down, so that the verifier follows each once. They take the
/// context and not the packet, whose pointers are good only until it is resized.
#[inline(never)]
pub fn reply<L: Framing>(ctx: *mut xdp_md) -> u32 {
    sent::<L>(ctx).unwrap_or(xdp_action::XDP_DROP)
}

#[inline(always)]
fn sent<L: Framing>(ctx: *mut xdp_md) -> Option<u32> {
    let buffer = maps::REPLY.get_ptr_mut(0)?;
    // SAFETY: a per-CPU entry, see `count` in main. Whatever its bytes are, nothing of it is read before
    // it is written.
    let buffer = unsafe { &mut *buffer };
    match open::<L>(ctx, buffer) {
        4 => send::<L, V4>(ctx, buffer),
        6 => send::<L, V6>(ctx, buffer),
        _ => None,
    }
}

#[inline(always)]
fn send<L: Framing, A: ReplyFamily>(ctx: *mut xdp_md, buffer: &mut ReplyBuffer) -> Option<u32> {
    if !read::<A>(ctx, buffer) {
        return None;
    }
    let settings = maps::REPLY_SETTINGS.get(0)?;
    let reply = A::buffer_of(buffer);
    if reply.is_error() {
        let to = SourceKey::of(reply.destination());
        let identification = permitted(&to, u32::from(A::FAMILY), settings);
        reply.identify(u16::try_from(identification).ok()?);
    }
    write::<L, A>(ctx, reply).then_some(xdp_action::XDP_TX)
}

/// Reads the link header; says which family is in it, or 0 where nothing answers.
#[inline(never)]
fn open<L: Framing>(ctx: *mut xdp_md, buffer: &mut ReplyBuffer) -> u32 {
    let Some(link_header) = LinkHeader::of::<L, _, _>(&Packet::of(ctx), &Surroundings::of(ctx))
    else {
        return 0;
    };
    buffer.link_header = link_header;
    if link_header.is_ipv4 { 4 } else { 6 }
}

/// Reads the rest and makes the answer; false where there is none.
#[inline(never)]
fn read<A: ReplyFamily>(ctx: *mut xdp_md, buffer: &mut ReplyBuffer) -> bool {
    let packet = Packet::of(ctx);
    let host = Surroundings::of(ctx);
    let reply = host
        .settings()
        .and_then(|settings| Reply::<A>::to(&packet, &host, settings, &buffer.link_header));
    let Some(reply) = reply else {
        return false;
    };
    *A::buffer_of(buffer) = reply;
    true
}

/// Writes the answer over the packet.
#[inline(never)]
fn write<L: Framing, A: ReplyFamily>(ctx: *mut xdp_md, reply: &Reply<A>) -> bool {
    let shift = reply.shift::<L>() as i32;
    if L::HEADER == 0 {
        if !announce::<A>(ctx, shift) {
            return false;
        }
    // SAFETY: the context is the kernel's, and no pointer into the packet is used past here.
    } else if shift != 0 && unsafe { bpf_xdp_adjust_head(ctx, shift) } != 0 {
        return false;
    }
    // Or the compiler would take one bound from the other in 32 bits, which the verifier doesn't allow.
    let length = black_box(Packet::of(ctx).length());
    let cut = (reply.length::<L>().cast_signed() - length.cast_signed()) as i32;
    // SAFETY: as above.
    if cut != 0 && unsafe { bpf_xdp_adjust_tail(ctx, cut) } != 0 {
        return false;
    }
    reply.write::<L, _>(&mut Packet::of(ctx)).is_some()
}

/// Moves the beginning of a packet that has no link header, with the protocol of the answer right before
/// where it then begins.
///
/// In generic mode the kernel takes the first bytes of every packet for an Ethernet header, and those of an
/// answer are others than the packet's. It then reads anew which protocol the packet is, by the 14 bytes
/// before it (`bpf_prog_run_generic_xdp`, `eth_type_trans`); and devices without a link header send by
/// that.
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

/// The tables.
struct Surroundings {
    interface: u32,
}

impl Surroundings {
    #[inline(always)]
    fn of(ctx: *const xdp_md) -> Self {
        Self {
            // SAFETY: the kernel's context, readable for as long as the program runs.
            interface: unsafe { (*ctx).ingress_ifindex },
        }
    }
}

impl Host for Surroundings {
    #[inline(always)]
    fn settings(&self) -> Option<&ReplySettings> {
        maps::REPLY_SETTINGS
            .get(0)
            .filter(|settings| settings.known != 0)
    }

    #[inline(always)]
    fn link(&self, vlans: [u16; 2]) -> Option<&Link> {
        let key = LinkKey {
            interface: self.interface,
            vlans,
        };
        // SAFETY: user space writes an entry only when the link has changed, and a torn one is right
        // again with the next packet.
        unsafe { maps::REPLY_LINK.get(key) }
    }

    #[inline(always)]
    fn address_kind<A: Address>(&self, address: A) -> u32 {
        // SAFETY: a single word, written once.
        unsafe { maps::LOCAL_ADDRESS.get(ScopedAddress::new(address)) }
            .copied()
            .unwrap_or(0)
    }
}

/// The identification of one more ICMP error to `to`, or [`NONE`].
#[inline(never)]
fn permitted(to: &SourceKey, family: u32, settings: &ReplySettings) -> u32 {
    let (interval, limit) = if family == 4 {
        (settings.interval4, 1)
    } else {
        (settings.interval6, 2)
    };
    let limited = settings.limited & limit != 0;
    permit(to, interval, limited, settings).map_or(NONE, u32::from)
}

const NONE: u32 = u32::MAX;

#[inline(always)]
fn permit(to: &SourceKey, interval: u64, limited: bool, settings: &ReplySettings) -> Option<u16> {
    let now = KernelEnv::of(core::ptr::null_mut()).now();
    let global = maps::ICMP_GLOBAL.get_ptr_mut(0)?;
    // SAFETY: an aligned word of an array entry, which other CPUs reach by the atomic instruction.
    let global = unsafe { &mut *global };
    // As the kernel does it: whether there is anything for anyone comes first, so that a flood from many
    // addresses makes no entries.
    if limited {
        GlobalIcmpBucket(*global).filled(now, settings)?;
    }
    let random = random();
    if maps::ICMP_BUCKET.find(to).is_none() {
        let bucket = first(now, interval, random);
        maps::ICMP_BUCKET.insert(to, &bucket);
    }
    // SAFETY: the entry stays mapped while the program runs. Where it has just been given to another
    // destination, or is used on another CPU too, one error more or less goes out.
    let bucket = maps::ICMP_BUCKET.find(to)?;
    let before = bucket.since;
    if limited && !bucket.take(now, interval) {
        return None;
    }
    bucket.since = now;
    if limited && !take(global, now, settings) {
        return None;
    }
    Some(bucket.identify(before, now, settings.tick, random))
}

#[inline(always)]
fn take(global: &mut u64, now: u64, settings: &ReplySettings) -> bool {
    for _ in 0..TRIES {
        let current = *global;
        let Some(filled) = GlobalIcmpBucket(current).filled(now, settings) else {
            return false;
        };
        if atomic::compare_exchange(global, current, filled.less(random()).0) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: takes nothing and returns a number.
    unsafe { bpf_get_prandom_u32() }
}
