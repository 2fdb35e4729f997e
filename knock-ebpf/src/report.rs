//! Reports to user space, bounded before they reach the ring: a flood costs each CPU a fixed number
//! of records a second, and what was left out is counted.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use knock_common::{
    event::{Event, kind},
    table::SourceKey,
};

use crate::maps::{BUDGET, EVENTS, LOST, REPORTED};

/// What a CPU may still spend on one class of reports in this second.
#[repr(C)]
pub struct Budget {
    /// Number of the second, in units of 2^30 ns.
    second: u64,
    /// Times it was asked for.
    asked: u32,
    /// Records sent.
    sent: u32,
}

const DENIALS: u32 = 0;
const STEPS: u32 = 1;

/// Records a second and CPU. Openings, refusals and closings are not bounded: they take a whole
/// sequence each.
const DENIALS_SENT: u32 = 64;
const STEPS_SENT: u32 = 256;
/// Look-ups a second and CPU for "has this source been reported lately?".
const DENIALS_ASKED: u32 = 1024;
/// A source's denials are reported at most this often, ns.
const PER_SOURCE: u64 = 1_000_000_000;

#[inline(never)]
pub fn report(event: &Event) {
    let wanted = match event.kind {
        kind::DENIED => denial_wanted(event),
        kind::STEP | kind::FAILED => step_wanted(event),
        _ => true,
    };
    if wanted && EVENTS.output::<Event>(event, 0).is_err() {
        lose();
    }
}

#[inline(always)]
fn step_wanted(event: &Event) -> bool {
    let Some(budget) = budget(STEPS, event.time) else {
        return false;
    };
    if budget.sent >= STEPS_SENT {
        lose();
        return false;
    }
    budget.sent += 1;
    true
}

/// The first denial of a source, then at most one a second.
#[inline(always)]
fn denial_wanted(event: &Event) -> bool {
    let Some(budget) = budget(DENIALS, event.time) else {
        return false;
    };
    if budget.sent >= DENIALS_SENT || budget.asked >= DENIALS_ASKED {
        lose();
        return false;
    }
    budget.asked += 1;
    let key = SourceKey {
        address: event.source,
        family: u64::from(event.family),
    };
    if let Some(last) = REPORTED.get_ptr_mut(key) {
        // SAFETY: the entry stays mapped while the program runs. Where it has just been given to
        // another source, that source's next report comes a second late.
        let last = unsafe { &mut *last };
        if event.time.wrapping_sub(*last) < PER_SOURCE {
            return false;
        }
        *last = event.time;
    } else if REPORTED.insert(key, event.time, 0).is_err() {
        lose();
        return false;
    }
    budget.sent += 1;
    true
}

#[inline(always)]
fn budget(class: u32, now: u64) -> Option<&'static mut Budget> {
    let budget = BUDGET.get_ptr_mut(class)?;
    // SAFETY: a per-CPU entry, see `count`.
    let budget = unsafe { &mut *budget };
    let second = now >> 30;
    if budget.second != second {
        *budget = Budget {
            second,
            asked: 0,
            sent: 0,
        };
    }
    Some(budget)
}

#[inline(always)]
fn lose() {
    if let Some(lost) = LOST.get_ptr_mut(0) {
        // SAFETY: a per-CPU entry, see `count`.
        unsafe { *lost += 1 };
    }
}

/// ns of `CLOCK_MONOTONIC`, as of the last timer tick. A tenth of the price of the exact clock.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes nothing and returns a number (since Linux 5.11).
    unsafe { bpf_ktime_get_coarse_ns() }
}
