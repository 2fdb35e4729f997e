//! CPU time of this thread and of others.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use netlab::host::{cpus, keep_to};

/// Returns the CPU time of the calling thread, ns.
pub fn thread() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Pins the calling thread to the first CPU that it may use. Returns the number of that CPU.
pub fn stay() -> Result<usize> {
    let allowed = cpus()?;
    let first = *allowed.first().context("this process may use no CPU")?;
    keep_to(&[first])?;
    Ok(first)
}

/// Keeps the calling thread, and what it starts, off the CPU that [`stay`] uses, unless it is the only one.
pub fn stay_away() -> Result<()> {
    match cpus()?.as_slice() {
        [_, others @ ..] if !others.is_empty() => Ok(keep_to(others)?),
        _ => Ok(()),
    }
}

/// Runs `work` with this thread moved off the CPU `cpu`, to which it then returns. What `work` starts stays off it. Where there is no
/// other CPU, nothing moves.
pub fn elsewhere<T>(cpu: usize, work: impl FnOnce() -> T) -> Result<T> {
    let every = 0..libc::CPU_SETSIZE.unsigned_abs() as usize;
    let others: Vec<usize> = every.filter(|other| *other != cpu).collect();
    // The kernel leaves out those that it does not have, and refuses if none is left.
    let _ = keep_to(&others);
    let done = work();
    keep_to(&[cpu])?;
    Ok(done)
}

/// The kernel thread (`ksoftirqd`) that processes packets of one CPU under load.
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

    /// Returns its CPU time, ns.
    pub fn spent(&self) -> Result<u64> {
        let text = fs::read_to_string(&self.schedstat)
            .with_context(|| format!("cannot read {}", self.schedstat))?;
        text.split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("{} holds no time", self.schedstat))
    }
}

/// Returns a time or a count as a floating-point number.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53 ns, which is 104 days"
)]
pub fn number(count: u64) -> f64 {
    count as f64
}

/// The clock of the CPU time of a thread, which other threads may read.
#[derive(Debug, Clone, Copy)]
pub struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// Returns the clock of the calling thread.
    pub fn of_this_thread() -> Result<Self> {
        let mut clock = 0;
        // SAFETY: the calling thread is there, and the call writes to the variable.
        let failure = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        ensure!(failure == 0, "a thread's CPU time cannot be read");
        Ok(Self(clock))
    }

    /// Returns the CPU time of the thread, ns. The thread has not ended.
    pub fn spent(self) -> u64 {
        read(self.0)
    }
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
