//! The same decision at TCX (since Linux 6.6): behind the kernel's own handling of the link, where any interface can carry a
//! program, and several at a time. An object of its own, since functions that the verifier verifies by themselves are
//! made for one kind of context; its tables are those of the XDP program.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        internal_features,
        reason = "BPF has atomic instructions, but core's atomic types are switched off for it"
    )
)]
#![expect(
    clippy::inline_always,
    reason = "a call costs as much as the function it would call"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits here, and what is cast are small constants"
)]

mod atomic;
mod clock;
mod env;
mod fwknop;
mod hash;
mod host;
mod maps;
mod memory;
mod object;
mod opaque;
#[path = "skb/packet.rs"]
mod packet;
#[path = "skb/read.rs"]
mod read;
#[path = "skb/reject.rs"]
mod reject;
#[expect(
    dead_code,
    reason = "programs that follow are called by the XDP program only"
)]
mod settings;

use aya_ebpf::{macros::classifier, programs::TcContext};
use knock_common::{
    Address, Env as _, Reason, Verdict,
    address::V4,
    frame::link::{BareIp, Ethernet, Framing},
    judge::{action, malformed},
    merged,
    scattered::{Read, Room, family},
    verdict::{Action, Counter},
};

use env::KernelEnv;
use packet::{Context, Packet};

/// `TCX_NEXT` of `linux/bpf.h`: on to the next program of the interface, behind the last one to the host.
const NEXT: i32 = -1;
/// `TCX_DROP` of `linux/bpf.h`.
const DROP: i32 = 2;
/// What a packet is marked with on its way out of here that is to be replied to; no action of TCX.
const REPLY: i32 = -2;

/// For interfaces whose packets begin with an Ethernet header.
#[classifier]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn knockgate_tcx(ctx: TcContext) -> i32 {
    let context = ctx.skb.skb;
    verdict::<Ethernet>(context, || read::ethernet(context))
}

/// For interfaces whose packets begin with an IP header.
#[classifier]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn knockgate_tcxip(ctx: TcContext) -> i32 {
    let context = ctx.skb.skb;
    verdict::<BareIp>(context, || read::bare_ip(context))
}

/// Judges a packet. Returns an action of TCX.
#[inline(always)]
fn verdict<L: Framing>(context: *mut Context, read: impl FnOnce() -> u32) -> i32 {
    match decide(context, read) {
        REPLY => reject::reply::<L>(context),
        action => action,
    }
}

/// Reads a packet, then decides. Its steps leave nothing on the stack but their results.
#[inline(always)]
fn decide(context: *mut Context, read: impl FnOnce() -> u32) -> i32 {
    if KernelEnv::of(context).lapsed() {
        return counted(context, Verdict::of(Reason::Lapsed), 0);
    }
    match read() {
        // SAFETY: places in a table's entry, which is there for good.
        family::V4 => judged(context, |room| unsafe { &raw const (*room).v4 }),
        // SAFETY: as above.
        family::V6 => judged(context, |room| unsafe { &raw const (*room).v6 }),
        family::MALFORMED => {
            let verdict = malformed::<_, V4>(&KernelEnv::of(context), None);
            counted(context, verdict, 0)
        }
        _ => counted(context, Verdict::of(Reason::NotIp), 0),
    }
}

#[inline(never)]
fn judged<A: Address>(
    context: *mut Context,
    part: impl FnOnce(*mut Room) -> *const Read<A>,
) -> i32 {
    let Some(room) = maps::SCATTERED.get_ptr_mut(0) else {
        return DROP;
    };
    // SAFETY: it has just been written; a per-CPU entry, see `count`. The packet's bytes are copied beside it.
    let read = unsafe { &*part(room) };
    let packet = Packet::behind_tags(context, room);
    let verdict = read.judge(&KernelEnv::of(context), &packet);
    let headers = if packet::merged(context).size == 0 {
        0
    } else {
        merged::headers(&packet, read.segment())
    };
    counted(context, verdict, headers)
}

/// Counts the packet, and returns the verdict as a TCX action, or [`REPLY`]. `headers`: the bytes that each of the packets that it is merged
/// of began with, if known.
#[inline(always)]
fn counted(context: *mut Context, verdict: Verdict, headers: u64) -> i32 {
    let packets = packet::merged(context).count(packet::whole_length(context), headers);
    count(verdict, packets);
    match action(&KernelEnv::of(context), verdict) {
        Action::Pass => NEXT,
        Action::Drop => DROP,
        Action::Reply => REPLY,
    }
}

/// Adds packets to their reason's counter on this CPU.
#[inline(always)]
fn count(verdict: Verdict, packets: Counter) {
    if let Some(counter) = maps::PACKETS.get_ptr_mut(verdict.counter()) {
        // SAFETY: a per-CPU entry, and this program never runs twice on a CPU at a time, nor while the XDP program does: both
        // run as a packet is received, with bottom halves disabled (`__netif_receive_skb_core`), and none calls the other.
        let counter: &mut Counter = unsafe { &mut *counter };
        counter.packets += packets.packets;
        counter.bytes += packets.bytes;
    }
}

/// On the host this crate is only checked and linted: the program runs in the kernel.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
