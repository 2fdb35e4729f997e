//! Waiting until the kernel has left what it was in.

use std::{thread, time::Duration};

/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`.
const GLOBAL: libc::c_int = 1;

/// Longer than a processor spends on one round of packets, where [`wait`] cannot ask the kernel.
const LONG_ENOUGH: Duration = Duration::from_millis(100);

/// Waits until every packet that was being judged when this was called has been judged. The kernel runs a program on a
/// packet within a read-side critical section of RCU, and `membarrier` with this command waits for a grace period
/// (`kernel/sched/membarrier.c`), except where some processors have no timer tick.
pub fn wait() {
    // SAFETY: takes three integers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if done != 0 {
        thread::sleep(LONG_ENOUGH);
    }
}
