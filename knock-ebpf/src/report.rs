//! Reports to user space, bounded before they reach the ring: a flood costs each CPU a fixed number
//! of records a second, and what was left out is counted.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use knock_common::{
    event::{Event, kind},
    table::{SourceKey, class},
};

use crate::maps::{self, BUDGET, EVENTS, REPORTED};

/// Records a second and CPU. Openings, refusals and closings are not bounded: they take a whole
/// sequence each.
const DENIALS_SENT: u32 = 64;
const STEPS_SENT: u32 = 256;
/// Look-ups a second and CPU for "has this source been reported lately?".
const DENIALS_ASKED: u32 = 1024;
/// A source's denials are reported at most this often, ns.
const PER_SOURCE: u64 = 1_000_000_000;

/// May another report of this class be sent?
#[inline(always)]
pub fn wants(class: u32) -> bool {
    let Some(budget) = BUDGET.get_ptr_mut(class) else {
        return false;
    };
    // SAFETY: a per-CPU entry, see `count`.
    let budget = unsafe { &mut *budget };
    let second = second();
    if budget.second != second {
        budget.second = second;
        budget.asked = 0;
        budget.sent = 0;
    }
    let (asked, sent) = match class {
        class::DENIALS => (DENIALS_ASKED, DENIALS_SENT),
        class::STEPS => (STEPS_SENT, STEPS_SENT),
        _ => (u32::MAX, u32::MAX),
    };
    let wanted = budget.asked < asked && budget.sent < sent;
    if wanted {
        budget.asked += 1;
    } else {
        budget.lost += 1;
    }
    wanted
}

/// Sends a report for which [`wants`] has said that there is room.
#[inline(never)]
pub fn report(event: &Event) {
    let class = match event.kind {
        kind::DENIED | kind::UNKEPT => class::DENIALS,
        kind::STEP | kind::FAILED => class::STEPS,
        _ => class::OUTCOMES,
    };
    if class == class::DENIALS && reported_lately(event) {
        return;
    }
    let sent = EVENTS.output::<Event>(event, 0).is_ok();
    if let Some(budget) = BUDGET.get_ptr_mut(class) {
        // SAFETY: a per-CPU entry, see `count`.
        let budget = unsafe { &mut *budget };
        if sent {
            budget.sent = budget.sent.wrapping_add(1);
        } else {
            budget.lost += 1;
        }
    }
}

/// Has a denial of this source been reported within the last [`PER_SOURCE`]? If not, it is now.
#[inline(always)]
fn reported_lately(event: &Event) -> bool {
    let key = SourceKey {
        address: event.source,
        family: u64::from(event.family),
    };
    if let Some(last) = REPORTED.get_ptr_mut(key) {
        // SAFETY: the entry stays mapped while the program runs. Where it has just been given to
        // another source, that source's next report comes a second late.
        let last = unsafe { &mut *last };
        if event.time.wrapping_sub(*last) < PER_SOURCE {
            return true;
        }
        *last = event.time;
        return false;
    }
    // Where it can't be remembered, it is reported again sooner.
    let _ = REPORTED.insert(key, event.time, 0);
    false
}

/// Number of the present second, from timer ticks: a second of 0.7 to 1.4, and any epoch. A flood pays for
/// this with every packet, and the kernel's compiler makes one load of it.
#[inline(always)]
fn second() -> u64 {
    // SAFETY: takes nothing and returns a number (since Linux 5.5).
    let ticks = unsafe { bpf_jiffies64() };
    ticks >> (maps::tick_bits() & 63)
}

/// ns of `CLOCK_MONOTONIC`, as of the last timer tick. A tenth of the price of the exact clock.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes nothing and returns a number (since Linux 5.11).
    unsafe { bpf_ktime_get_coarse_ns() }
}
