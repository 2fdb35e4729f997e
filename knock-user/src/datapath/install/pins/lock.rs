//! The lock on a pin root: one command at a time changes what is pinned.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::root::PinRoot;
use crate::datapath::error::cannot_open;

/// How long another command may keep the pins locked. Loading takes seconds on a slow machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// An exclusive lock, held until it is dropped; see [`PinRoot::lock`].
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

/// Another process has had the pins locked for too long.
#[derive(Debug)]
pub struct Busy(String);

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Busy {}

impl PinRoot {
    /// Keeps other knockgate commands from changing what is pinned here; makes the root where there is none.
    ///
    /// The root itself is locked: unlike the top of the file system, only its owner can open it, and it is shared
    /// between mounts exactly as the pins are. A command that removes the root holds the lock; one that gets the
    /// lock afterwards sees that the locked directory is no longer there, and begins anew.
    pub fn lock(&self) -> Result<Lock> {
        loop {
            if let Some(lock) = self.acquire(|| PATIENCE)? {
                return Ok(lock);
            }
            self.make()?;
        }
    }

    /// As [`PinRoot::lock`], but none where there is no root.
    pub fn lock_existing(&self) -> Result<Option<Lock>> {
        self.acquire(|| PATIENCE)
    }

    /// As [`PinRoot::lock_existing`], and waits no longer once `is_over`: where it is not had then, fails with [`Busy`].
    pub fn lock_unless(&self, is_over: impl Fn() -> bool) -> Result<Option<Lock>> {
        self.acquire(|| if is_over() { Duration::ZERO } else { PATIENCE })
    }

    /// As [`PinRoot::lock_existing`], but fails with [`Busy`] instead of waiting.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        self.acquire(|| Duration::ZERO)
    }

    /// `patience`: how long to wait, asked before each try.
    fn acquire(&self, patience: impl Fn() -> Duration) -> Result<Option<Lock>> {
        self.refuse_dots()?;
        let begun = Instant::now();
        loop {
            let patience = patience();
            let directory = match File::open(self.path()) {
                Ok(directory) => directory,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(cannot_open(self.path(), error)),
            };
            // SAFETY: the descriptor is open; the call touches no memory.
            if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                let is_there = |held: fs::Metadata| {
                    fs::metadata(self.path())
                        .is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino()))
                };
                if directory.metadata().is_ok_and(is_there) {
                    return Ok(Some(Lock {
                        _directory: directory,
                    }));
                }
                continue;
            }
            let error = io::Error::last_os_error();
            if !matches!(error.raw_os_error(), Some(libc::EWOULDBLOCK | libc::EINTR)) {
                return Err(error)
                    .with_context(|| format!("cannot lock {}", self.path().display()));
            }
            if begun.elapsed() >= patience {
                let holder = directory.metadata().ok().and_then(|held| holder(&held));
                let holder = holder.unwrap_or_else(|| "another process".to_owned());
                let shown = self.path().display();
                let locked = match patience.as_secs() {
                    0 => format!("{holder} keeps {shown} locked"),
                    seconds => {
                        format!("{holder} has kept {shown} locked for more than {seconds} s")
                    }
                };
                let text = format!("{locked}; try again when it has ended");
                return Err(Busy(text).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns the process that holds the lock, according to `/proc/locks`.
fn holder(held: &fs::Metadata) -> Option<String> {
    let inode = format!(
        "{:02x}:{:02x}:{}",
        libc::major(held.dev()),
        libc::minor(held.dev()),
        held.ino()
    );
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "FLOCK");
        let (_, _, _, pid, of) = (
            words.next()?,
            words.next()?,
            words.next()?,
            words.next()?,
            words.next()?,
        );
        (of == inode).then_some(pid)
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("process {pid} ({})", name.trim()))
}
