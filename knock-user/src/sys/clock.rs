//! The clock that every kernel table uses, and how far TAI is ahead of Unix time.

use std::{fs, mem::MaybeUninit, sync::OnceLock, thread, time::Duration};

/// Returns the time of the kernel's `CLOCK_MONOTONIC`, ns, by which the program goes. In a time namespace (since Linux
/// 5.6) this process has another one.
pub fn monotonic_now() -> u64 {
    static OFFSET: OnceLock<i128> = OnceLock::new();
    let offset = OFFSET.get_or_init(|| {
        let offsets = fs::read_to_string("/proc/self/timens_offsets");
        offset_in(&offsets.unwrap_or_default()).unwrap_or(0)
    });
    u64::try_from(i128::from(own_monotonic_now()) - offset).unwrap_or(0)
}

/// Reads how far this process's clock is ahead of the kernel's, ns, from the text of `/proc/self/timens_offsets`.
fn offset_in(offsets: &str) -> Option<i128> {
    let mut lines = offsets.lines().map(str::split_whitespace);
    let mut words = lines.find_map(|mut words| (words.next()? == "monotonic").then_some(words))?;
    let (seconds, nanoseconds): (i128, i128) =
        (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(seconds * 1_000_000_000 + nanoseconds)
}

/// Returns the time of a clock that goes on while this machine is suspended, as `CLOCK_BOOTTIME`, and that nobody slews, ns: who
/// sets the wall clock right may slew the others by a tenth for minutes.
#[cfg(feature = "fleet")]
pub fn steady_now() -> u64 {
    // In this order, it is never ahead where this thread is kept from running in between.
    let boot = now_of(libc::CLOCK_BOOTTIME);
    let raw = now_of(libc::CLOCK_MONOTONIC_RAW);
    let suspended = boot.saturating_sub(now_of(libc::CLOCK_MONOTONIC));
    raw + suspended
}

fn own_monotonic_now() -> u64 {
    now_of(libc::CLOCK_MONOTONIC)
}

/// `clock`: one that always exists.
fn now_of(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call fills the structure, since this clock exists.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Returns the length of the kernel's timer tick, ns. The coarse clocks move by it, and their resolution is
/// its length.
pub fn tick() -> u64 {
    /// Of `CONFIG_HZ=250`, the most common choice.
    const USUAL: u64 = 4_000_000;
    let mut resolution = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call fills the structure where it succeeds; this clock always exists.
    let resolution = unsafe {
        if libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, resolution.as_mut_ptr()) != 0 {
            return USUAL;
        }
        resolution.assume_init()
    };
    u64::try_from(resolution.tv_nsec).unwrap_or(USUAL)
}

/// Waits until the kernel has counted another timer tick than that of this moment. It counts ticks and moves the coarse clocks at
/// once (`tick_do_update_jiffies64` of `kernel/time/tick-sched.c`).
pub fn pass_tick() {
    // By two ticks, since whoever sets the wall clock moves the coarse clocks in between (`timekeeping_forward_now`), and a processor
    // may read the count a moment later than what the program reads behind it.
    let until = own_monotonic_now() + 2 * tick();
    while now_of(libc::CLOCK_MONOTONIC_COARSE) < until {
        thread::sleep(Duration::from_nanos(tick()));
    }
}

/// Returns how far `CLOCK_TAI` is ahead of Unix time, ns: 0 until whoever keeps the clock says that it knows of leap seconds.
pub fn tai_offset() -> u64 {
    // SAFETY: an all-zero structure is valid, and asks for nothing to be changed.
    let mut times = unsafe { MaybeUninit::<libc::timex>::zeroed().assume_init() };
    // SAFETY: the call fills the structure.
    unsafe { libc::adjtimex(&raw mut times) };
    u64::try_from(times.tai).unwrap_or(0) * 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_time_namespace_is_read() {
        let text = |offset: &str| format!("monotonic  {offset}\nboottime           7         0\n");
        for (offset, read) in [
            ("         0         0", Some(0)),
            ("    100000 500000000", Some(100_000_500_000_000)),
            ("      -100 000000001", Some(-99_999_999_999)),
            ("    secret", None),
        ] {
            assert_eq!(offset_in(&text(offset)), read, "{offset}");
        }
        assert_eq!(offset_in(""), None);
    }

    #[test]
    fn time_goes_on() {
        let before = monotonic_now();
        assert!(before > 0 && monotonic_now() >= before);
    }

    #[test]
    fn a_tick_passes() {
        let coarse = || now_of(libc::CLOCK_MONOTONIC_COARSE);
        let before = coarse();
        pass_tick();
        assert!(coarse() > before);
    }

    #[cfg(feature = "fleet")]
    #[test]
    fn what_goes_by_is_measured_by_a_clock_that_nobody_slews() {
        let of = |clock| u128::from(now_of(clock));
        let suspended = of(libc::CLOCK_BOOTTIME).saturating_sub(of(libc::CLOCK_MONOTONIC));
        let before = of(libc::CLOCK_MONOTONIC_RAW) + suspended;
        let steady = u128::from(steady_now());
        assert!(
            steady.abs_diff(before) < 5_000_000_000,
            "{steady}, {before}"
        );
    }
}
