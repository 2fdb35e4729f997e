//! Reports to user space, bounded before they reach the ring: a flood costs each CPU a fixed number
//! of records a second, and what was left out is counted. How many, [`knock_common::report`] says.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use knock_common::{
    event::Event,
    keys::SourceKey,
    report::{Budget, class_of, subject},
};

use crate::{
    maps::{BUDGET, EVENTS, REPORTED},
    settings,
};

/// May another report of this class be sent?
#[inline(always)]
pub fn wants(class: u32) -> bool {
    budget(class).is_some_and(|budget| budget.wants(class, second()))
}

/// Sends a report for which [`wants`] has said that there is room.
#[inline(never)]
pub fn report(event: &Event) {
    let class = class_of(event.kind, event.cause);
    let Some(budget) = budget(class) else {
        return;
    };
    if let Some(pause) = budget.samples(class)
        && reported_lately(&subject(event, class), event.time, pause)
    {
        budget.sampled_out(class);
        return;
    }
    budget.count(EVENTS.output::<Event>(event, 0).is_ok());
}

#[inline(always)]
fn budget(class: u32) -> Option<&'static mut Budget> {
    let budget = BUDGET.get_ptr_mut(class)?;
    // SAFETY: a per-CPU entry, see `count`.
    Some(unsafe { &mut *budget })
}

/// Has the like of it been reported within the last `pause`, ns? If not, it is now.
#[inline(always)]
fn reported_lately(subject: &SourceKey, now: u64, pause: u64) -> bool {
    if let Some(last) = REPORTED.get_ptr_mut(subject) {
        // SAFETY: the entry stays mapped while the program runs. Where it has just been given to
        // another subject, that one's next report comes later than it could.
        let last = unsafe { &mut *last };
        if now.wrapping_sub(*last) < pause {
            return true;
        }
        *last = now;
        return false;
    }
    // Where it can't be remembered, it is reported again sooner.
    let _ = REPORTED.insert(subject, now, 0);
    false
}

/// Number of the present second, from timer ticks: a second of 0.7 to 1.4, and any epoch. A flood pays for
/// this with every packet, and the kernel's compiler makes one load of it.
#[inline(always)]
fn second() -> u64 {
    // SAFETY: takes nothing and returns a number (since Linux 5.5).
    let ticks = unsafe { bpf_jiffies64() };
    ticks >> (settings::tick_bits() & 63)
}

/// ns of `CLOCK_MONOTONIC`, as of the last timer tick. A tenth of the price of the exact clock.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes nothing and returns a number (since Linux 5.11).
    unsafe { bpf_ktime_get_coarse_ns() }
}
