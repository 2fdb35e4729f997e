//! What this kernel and this process must have, asked before anything is changed.

use anyhow::{Context as _, Result, bail};

use crate::{
    config::Config,
    datapath::error::{NEEDS_TO_LOAD, NotPermitted},
    sys::{
        capability,
        kernel_version::{self, Version},
    },
};

/// The oldest kernel that has everything, and what came with that kernel. The program needs atomic operations: since Linux 5.12, but
/// on arm64, whose compiler of BPF programs translates them later (`arch/arm64/net/bpf_jit_comp.c`), since 5.18. To replace a
/// configuration in place, directories of the BPF file system change places: since 5.17 (`simple_rename` of `fs/libfs.c`).
const OLDEST: (Version, &str) = if cfg!(target_arch = "aarch64") {
    (
        (5, 18),
        "atomic fetch-and-add and compare-and-exchange in BPF programs",
    )
} else {
    (
        (5, 17),
        "directories of the BPF file system that change places",
    )
};

/// Refuses a kernel that is too old, and a process that may not load the program.
pub fn require() -> Result<()> {
    require_kernel()?;
    require_capabilities()?;
    Ok(())
}

/// The first series of kernels that may let packets of a CPU interrupt each other with `CONFIG_PREEMPT_RT`: without
/// `CONFIG_PREEMPT_RT_NEEDS_BH_LOCK`, since Linux 6.18, and in releases of 6.12 since 6.12.57.
const INTERRUPTS: Version = (6, 12);

/// Refuses kernels before [`OLDEST`], naming what they lack, and those whose packets interrupt each other: what the program keeps
/// for a CPU while it judges a packet would be another's.
fn require_kernel() -> Result<()> {
    let release = kernel_version::release().context("cannot read the kernel's release")?;
    if kernel_version::is_real_time().context("cannot read the kernel's version")?
        && kernel_version::is_at_least(INTERRUPTS)
    {
        bail!(
            "this kernel ({release}) is made for real time (PREEMPT_RT): packets of one CPU may interrupt each other there, and \
             knockgate would take one for another; use a kernel without PREEMPT_RT, or one before Linux {}.{}",
            INTERRUPTS.0,
            INTERRUPTS.1
        );
    }
    let ((major, minor), brought) = OLDEST;
    match kernel_version::parse(&release) {
        Some(version) if version < (major, minor) => bail!(
            "this kernel ({release}) is too old: knockgate needs {brought}, which came with Linux \
             {major}.{minor}"
        ),
        // An unreadable release is no reason to refuse: loading the program will fail where the kernel is too old.
        _ => {}
    }
    Ok(())
}

/// The kernel that brought `bpf_ktime_get_tai_ns`.
const TELLS_TIME: Version = (6, 1);

/// Refuses ports for authenticated knocks on a kernel whose programs cannot read the time of day.
pub fn require_time(config: &Config) -> Result<()> {
    let release = kernel_version::release().context("cannot read the kernel's release")?;
    match kernel_version::parse(&release) {
        Some(version) if version < TELLS_TIME && !config.knock.ports.is_empty() => bail!(
            "this kernel ({release}) does not tell a program the time of day, which authenticated knocks need: that \
             came with Linux {}.{}; remove `ports` from [knock]",
            TELLS_TIME.0,
            TELLS_TIME.1
        ),
        _ => Ok(()),
    }
}

/// Refuses a process that lacks a capability. The kernel would say no more than "not permitted"; without `CAP_PERFMON`,
/// its verifier refuses the program with a message that does not name the capability.
fn require_capabilities() -> Result<(), NotPermitted> {
    if capability::may_load_programs() {
        Ok(())
    } else {
        Err(NotPermitted {
            what: "to load a program into the kernel".into(),
            needs: NEEDS_TO_LOAD,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_kernel_is_the_first_with_everything() {
        let (before, first) = if cfg!(target_arch = "aarch64") {
            ("5.17.0", "5.18.0")
        } else {
            ("5.16.20", "5.17.0")
        };
        assert!(kernel_version::parse(before).is_some_and(|version| version < OLDEST.0));
        assert!(kernel_version::parse(first).is_some_and(|version| version >= OLDEST.0));
    }
}
