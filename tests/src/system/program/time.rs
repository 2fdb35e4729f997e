//! The time that a loaded program sees.

use knock_user::config::Config;

/// The factor between the test's time and the kernel's, for each duration that is configured or waited for.
/// A delay of half a minute between two packets is then less than a [`SystemUnderTest::grain`].
pub const SLOWED: u32 = 600;
/// Returns the same configuration with durations of the kernel's time.
pub fn slowed(config: &Config) -> Config {
    let mut config = config.clone();
    config.knock.max_age *= SLOWED;
    config.knock.max_ahead *= SLOWED;
    for gate in &mut config.gates {
        gate.open_for *= SLOWED;
        gate.session_idle *= SLOWED;
        for knock in &mut gate.knocks {
            knock.within *= SLOWED;
        }
    }
    config
}

/// Returns the time of the clock that the program reads, ns.
pub fn clock() -> u64 {
    time_of(libc::CLOCK_MONOTONIC_COARSE)
}

/// Returns the length of the kernel's timer tick, by which that clock moves, ns.
pub fn tick() -> u64 {
    let mut tick = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call fills the structure; this clock always exists.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut tick) };
    nanoseconds(tick)
}

/// Returns the time of the clock by which the program finds out the time of day, ns.
pub fn tai() -> u64 {
    time_of(libc::CLOCK_TAI)
}

fn time_of(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call fills the structure; these clocks always exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    nanoseconds(time)
}

fn nanoseconds(time: libc::timespec) -> u64 {
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
