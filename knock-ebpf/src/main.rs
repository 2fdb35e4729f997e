//! The kernel program: an XDP entry for each kind of link, and the maps that they share. It decides nothing: that is in
//! `knock-common`. Here are the packet's bytes ([`packet`]), the maps and helpers that decisions use ([`mod@env`], [`host`]),
//! what sends replies to denied packets ([`reject`]), and what hands on the others ([`next`]).
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
mod next;
mod object;
mod opaque;
mod packet;
mod reject;
mod scattered;
mod settings;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use knock_common::{
    Verdict,
    frame::{
        Frame as _,
        link::{BareIp, Ethernet, Framing},
    },
    judge::{action, judge},
    verdict::{Action, Counter},
};

use env::KernelEnv;
use packet::Packet;

/// For interfaces whose packets begin with an Ethernet header.
#[xdp]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn knockgate(ctx: XdpContext) -> u32 {
    next::go_on::<Ethernet>(ctx.ctx, decide::<Ethernet>(&ctx))
}

/// For interfaces whose packets begin with an IP header. The loader attaches it to those, since packets
/// do not show which they are.
#[xdp]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn knockgate_ip(ctx: XdpContext) -> u32 {
    next::go_on::<BareIp>(ctx.ctx, decide::<BareIp>(&ctx))
}

/// Judges one packet. Every packet leaves here, through [`count`].
///
/// Inlined into the entries that the macro makes: as arguments of another function, the packet's bounds
/// would become plain 32-bit numbers, which the verifier does not accept as pointers.
#[inline(always)]
fn decide<L: Framing>(ctx: &XdpContext) -> u32 {
    let packet = Packet::of(ctx.ctx);
    // As a number, so that the packet's bounds need not be kept during the decision.
    let length = packet.length() as u64;
    let env = KernelEnv::of(ctx.ctx);
    let verdict = judge::<L, _, _>(&env, &packet);
    #[cfg(feature = "log")]
    aya_log_ebpf::info!(
        ctx,
        "reason {} gate {}",
        verdict.reason as u32,
        verdict.gate
    );
    count(verdict, length);
    match action(&env, verdict) {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Reply => reject::reply::<L>(ctx.ctx),
    }
}

/// For interfaces whose driver may pass a frame in several buffers, if no gate rejects: a reply can only be written over a
/// packet in one buffer. A separate entry, since it costs more for every packet, and
/// kernels before Linux 5.18 lack the helpers that it calls.
#[xdp(frags)]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn knockgate_frags(ctx: XdpContext) -> u32 {
    next::go_on::<Ethernet>(ctx.ctx, scattered::verdict(ctx.ctx))
}

/// Adds the packet to its reason's counter on this CPU.
#[inline(always)]
fn count(verdict: Verdict, bytes: u64) {
    if let Some(counter) = maps::PACKETS.get_ptr_mut(verdict.counter()) {
        // SAFETY: a per-CPU entry, and this program never runs twice on a CPU at a time: XDP programs run with bottom halves
        // disabled. (The loader refuses kernels on which that is not enough, those with PREEMPT_RT.)
        let counter: &mut Counter = unsafe { &mut *counter };
        counter.packets += 1;
        counter.bytes += bytes;
    }
}

/// On the host this crate is only checked and linted: the program runs in the kernel.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
