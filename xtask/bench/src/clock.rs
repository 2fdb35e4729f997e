//! CPU time, of this thread and of others.

use std::{fs, mem};

use anyhow::{Context as _, Result};

/// CPU time of the calling thread, ns.
pub fn thread() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Stays on one CPU from here on: the first that this process may use. Returns its number.
pub fn stay() -> Result<usize> {
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: cpu_set_t is a bit field, for which all zeroes is a value.
    let (mut allowed, mut one): (libc::cpu_set_t, libc::cpu_set_t) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    // SAFETY: the sets are valid for the size given; every CPU asked about lies within them.
    let chosen = unsafe {
        if libc::sched_getaffinity(0, size, &raw mut allowed) != 0 {
            return Err(std::io::Error::last_os_error())
                .context("can't read the CPUs of this process");
        }
        let first = (0..libc::CPU_SETSIZE.unsigned_abs() as usize)
            .find(|&cpu| libc::CPU_ISSET(cpu, &allowed))
            .context("this process may use no CPU")?;
        libc::CPU_SET(first, &mut one);
        if libc::sched_setaffinity(0, size, &raw const one) != 0 {
            return Err(std::io::Error::last_os_error()).context("can't stay on one CPU");
        }
        first
    };
    Ok(chosen)
}

/// The kernel's thread that handles packets of one CPU where there is too much to do at once.
pub struct Softirq {
    schedstat: String,
}

impl Softirq {
    pub fn of(cpu: usize) -> Result<Self> {
        let name = format!("ksoftirqd/{cpu}");
        let folders = fs::read_dir("/proc").context("can't read /proc")?;
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
            .with_context(|| format!("can't read {}", self.schedstat))?;
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
