//! The coarse clock, asked once for each timer tick.
//!
//! It moves when the kernel counts a tick, so what it said holds until the next. Asking takes a call and, inside it, as long as
//! looking a source up; the count of ticks is one load.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns};

/// What the clock said, for all CPUs: written by the first packets of each tick.
static mut LATEST: Reading = Reading { time: 0, check: 0 };

/// Two words. Other CPUs may write them between a reader's two reads, in any order; words of two readings do not fit together.
#[repr(C)]
struct Reading {
    /// ns of `CLOCK_MONOTONIC`.
    time: u64,
    /// The tick of the reading, exclusive or `time`.
    check: u64,
}

/// Returns the kernel's count of timer ticks. It begins at some number other than 0.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: takes nothing and returns a number (since Linux 5.5). The kernel's compiler makes one load of it.
    unsafe { bpf_jiffies64() }
}

/// Returns the time in ns of `CLOCK_MONOTONIC`, as of the latest tick; or as of the one before, if the first packet of this
/// tick came between the kernel's counting it and its setting the clock.
#[inline(always)]
pub fn now() -> u64 {
    let tick = ticks();
    let latest = &raw mut LATEST;
    // SAFETY: aligned words that are there for good; volatile, since other CPUs write them.
    let (time, check) = unsafe {
        let time = (&raw const (*latest).time).read_volatile();
        (time, (&raw const (*latest).check).read_volatile())
    };
    if time ^ check == tick {
        time
    } else {
        ask(tick)
    }
}

/// Asks the clock, at this tick. Not inlined: callers would have to keep the tick during the call, on their stacks.
#[inline(never)]
fn ask(tick: u64) -> u64 {
    // SAFETY: takes nothing and returns a number (since Linux 5.11).
    let time = unsafe { bpf_ktime_get_coarse_ns() };
    let latest = &raw mut LATEST;
    // SAFETY: as in `now`.
    let known = unsafe { (&raw const (*latest).time).read_volatile() };
    // Another CPU may have asked later, and written it already: time does not go back.
    let time = time.max(known);
    // SAFETY: as in `now`.
    unsafe {
        (&raw mut (*latest).time).write_volatile(time);
        (&raw mut (*latest).check).write_volatile(time ^ tick);
    }
    time
}
