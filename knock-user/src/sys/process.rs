//! Processes that this one has started.

use std::{
    io,
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, ExitStatus},
    sync::{Mutex, PoisonError},
};

/// Children that were killed and had not exited at once.
static KILLED: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// A child that leads a process group of its own. Dropped, it kills the group, and leaves the child to [`reap_killed`].
pub struct Group {
    /// `None`: it has been reaped.
    child: Option<Child>,
    id: libc::pid_t,
}

impl Group {
    /// Starts a command as the leader of a new group. Also returns a descriptor that becomes readable when the child has
    /// exited (`pidfd_open(2)`, since Linux 5.3). The child is not reaped before [`Group::end`], so that its id stays that
    /// of its group. It inherits no descriptor but its standard ones.
    pub fn start(command: &mut Command) -> io::Result<(Self, OwnedFd)> {
        keep_descriptors();
        let child = command.process_group(0).spawn()?;
        let id = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
        let group = Self {
            child: Some(child),
            id,
        };
        // SAFETY: the call takes two integers; the child has not been reaped, so the id is its.
        let exited = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
        let exited = libc::c_int::try_from(exited).map_err(io::Error::other)?;
        if exited < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, which the call above has made and nothing else owns; the kernel closes it on exec.
        let exited = unsafe { OwnedFd::from_raw_fd(exited) };
        Ok((group, exited))
    }

    /// Sends a signal to every process of the group.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: the call takes two integers; the child has not been reaped, so the id is that of its group.
        unsafe { libc::kill(-self.id, signal) };
    }

    /// Reaps the child if it has exited, and returns how.
    pub fn end(mut self) -> io::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            self.signal(libc::SIGKILL);
            let mut killed = KILLED.lock().unwrap_or_else(PoisonError::into_inner);
            killed.push(child);
        }
    }
}

/// Reaps children that were killed, as far as they have exited. They die in a moment; where one cannot, waiting for it would stop
/// this process as well, so it is to be called from time to time.
pub fn reap_killed() {
    let mut killed = KILLED.lock().unwrap_or_else(PoisonError::into_inner);
    killed.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

/// Has the kernel close every descriptor on exec, but the three standard ones (`close_range(2)` with this flag, since Linux
/// 5.11). Those that this process opens have the mark; those that its parent has left open to it may not.
fn keep_descriptors() {
    // SAFETY: the call takes three integers and only marks descriptors.
    unsafe {
        libc::close_range(
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC.cast_signed(),
        )
    };
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    /// A signal takes effect later than it is sent.
    #[test]
    fn a_child_that_was_killed_is_reaped_later() {
        let children: Vec<String> = (0..20)
            .map(|_| {
                let (group, _) =
                    Group::start(Command::new("sleep").arg("1000")).expect("it starts");
                format!("/proc/{}", group.id)
            })
            .collect();
        let begun = Instant::now();
        while children.iter().any(|child| Path::new(child).exists()) {
            assert!(begun.elapsed() < Duration::from_mins(1), "zombies are left");
            reap_killed();
            thread::sleep(Duration::from_millis(1));
        }
    }
}
