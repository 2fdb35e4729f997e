//! CPU time, of this thread and of others.

use std::fs;

use anyhow::{Context as _, Result};
use netlab::host::{cpus, keep_to};

/// CPU time of the calling thread, ns.
pub fn thread() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Keeps the calling thread on one CPU from here on: the first that it may use. Returns its number.
pub fn stay() -> Result<usize> {
    let allowed = cpus()?;
    let first = *allowed.first().context("this process may use no CPU")?;
    keep_to(&[first])?;
    Ok(first)
}

/// Keeps the calling thread, and what it starts, off the CPU on which [`stay`] would. Where there is only
/// one, they share it.
pub fn stay_away() -> Result<()> {
    match cpus()?.as_slice() {
        [_, others @ ..] if !others.is_empty() => Ok(keep_to(others)?),
        _ => Ok(()),
    }
}

/// The kernel's thread that handles packets of one CPU where there is too much to do at once.
pub struct Softirq {
    schedstat: String,
}

impl Softirq {
    pub fn of(cpu: usize) -> Result<Self> {
        let name = format!("ksoftirqd/{cpu}");
        let folders = fs::read_dir("/proc").context("cannot read /proc")?;
        let pid = folders
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name)
            })
            .with_context(|| format!("there is no {name} in /proc"))?;
        Ok(Self {
            schedstat: pid.join("schedstat").display().to_string(),
        })
    }

    /// Its CPU time, ns.
    pub fn spent(&self) -> Result<u64> {
        let text = fs::read_to_string(&self.schedstat)
            .with_context(|| format!("cannot read {}", self.schedstat))?;
        text.split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("{} holds no time", self.schedstat))
    }
}

/// A time or a count as a number to reckon with.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53 ns, which is 104 days"
)]
pub fn number(count: u64) -> f64 {
    count as f64
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call fills the structure; a clock of the calling thread is always there.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
