//! Capabilities of this process.

use std::io;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};

/// What the datapath needs: to use tables and programs, to attach to interfaces, and to have programs verified that compare
/// pointers, as ours does.
const NEEDED: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];

/// Returns whether this process may load and attach XDP programs; `true` where its capabilities cannot be read, since
/// the kernel then decides.
pub fn may_load_programs() -> bool {
    caps::read(None, CapSet::Effective).map_or(true, |held| suffices(&held))
}

fn suffices(held: &CapsHashSet) -> bool {
    NEEDED.iter().all(|needed| held.contains(needed)) || held.contains(&Capability::CAP_SYS_ADMIN)
}

/// Gives up every capability that the datapath does not need, in every set, and the way to gain others by running a
/// program (`no_new_privs`). For this thread and what it starts from now on, other threads included: call it before there
/// are any.
pub fn give_up_others() -> Result<()> {
    give_up().context("cannot give up capabilities")
}

fn give_up() -> Result<()> {
    let held = caps::read(None, CapSet::Permitted)?;
    let mut kept: CapsHashSet = NEEDED.into_iter().collect();
    if !NEEDED.iter().all(|needed| held.contains(needed)) {
        // It stands for the others.
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    // First, since it takes CAP_SETPCAP. Without that, this set stays as it is, and means nothing more: no_new_privs keeps
    // programs from gaining what this process has given up.
    for other in caps::read(None, CapSet::Bounding)?.difference(&kept) {
        let _ = caps::drop(None, CapSet::Bounding, *other);
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        let now = caps::read(None, set)?;
        let left = now.intersection(&kept).copied().collect();
        if left != now {
            caps::set(None, set, &left)?;
        }
    }
    // SAFETY: the call takes integers and changes nothing but a flag of this thread.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_three_is_needed() {
        let all: CapsHashSet = NEEDED.into_iter().collect();
        assert!(suffices(&all));
        assert!(suffices(&[Capability::CAP_SYS_ADMIN].into()));
        for one in NEEDED {
            let mut without = all.clone();
            without.remove(&one);
            assert!(!suffices(&without));
        }
    }

    /// Of a thread of its own, as capabilities are.
    #[test]
    fn what_is_not_needed_is_given_up_in_every_set() {
        let thread = std::thread::spawn(|| {
            give_up_others().expect("whoever it is may give up something");
            for set in [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable] {
                let held = caps::read(None, set).expect("readable");
                let is_kept =
                    |held: &Capability| NEEDED.contains(held) || *held == Capability::CAP_SYS_ADMIN;
                assert!(held.iter().all(is_kept), "{set:?}: {held:?}");
            }
            // Once more changes nothing.
            give_up_others().expect("as before");
        });
        thread.join().expect("no panic");
    }
}
