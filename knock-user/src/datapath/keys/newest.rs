//! The newest time of each key: what keeps a knock from opening twice.
//!
//! While the program is in the kernel, its table has them. `down` writes them into a file, from which the next `up` goes on.
//! Where that file is missing, or the program ended in another way (a crash, a reboot), a knock may have been accepted that
//! the file does not know of. Then every key begins at the present time plus `max_ahead`: no knock that was accepted before
//! can have a later time, as long as the clock has not been set back.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::{
    config::{Config, count},
    sys::state_directory,
    values::HumanDuration,
};

/// The newest time of a key to whose table that of the table before is still to follow: it accepts nothing.
pub const FROZEN: u64 = u64::MAX;

/// Newest times, as they are kept in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Nothing was accepted since: the program had been removed from every interface before this was written.
    pub complete: bool,
    /// By the name of the key and its slot, Unix ns.
    pub keys: BTreeMap<String, BTreeMap<u16, u64>>,
}

/// The time from which the knocks of a key count that is new to the tables.
#[derive(Debug, Clone)]
pub struct Newest {
    kept: Kept,
    /// The slots of keys that have been made right now, and so were never used before.
    fresh: Vec<u16>,
    /// Unix ns.
    now: u64,
    /// ns.
    max_ahead: u64,
    /// Accept nothing yet.
    frozen: bool,
}

impl Newest {
    /// For keys that are added to a program that runs. `fresh`: the slots of those that the command itself has made. Those that the
    /// tables did not have until now, since they could not be used or no knocks were taken, go on from the times that were kept, as
    /// the latest known.
    pub fn going_on(config: &Config, fresh: &[u16], pins: &Path) -> Self {
        let kept = Kept::read(&state_directory::path(), pins).unwrap_or_default();
        let kept = Kept {
            complete: false,
            ..kept
        };
        Self {
            fresh: fresh.to_vec(),
            ..Self::from(kept, config)
        }
    }

    /// For a table that takes another one's place: it accepts nothing until the newest times have followed.
    pub fn frozen(config: &Config) -> Self {
        Self {
            frozen: true,
            ..Self::from(Kept::default(), config)
        }
    }

    /// Goes on from what was kept.
    pub fn from(kept: Kept, config: &Config) -> Self {
        Self {
            kept,
            fresh: Vec::new(),
            now: now(),
            max_ahead: max_ahead(config),
            frozen: false,
        }
    }

    /// Returns the newest time of a key that was made at `created`; both Unix ns.
    pub(super) fn of(&self, name: &str, slot: u16, created: u64) -> u64 {
        if self.frozen {
            return FROZEN;
        }
        let kept = self
            .kept
            .keys
            .get(name)
            .and_then(|slots| slots.get(&slot))
            .copied();
        match kept {
            Some(kept) if self.kept.complete => kept,
            _ if self.fresh.contains(&slot) => created,
            kept => kept
                .unwrap_or(0)
                .max(self.now.saturating_add(self.max_ahead)),
        }
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Returns whether a key with this newest time, Unix ns, refuses the knocks that are made now.
    pub(super) fn is_ahead(&self, newest: u64) -> bool {
        !self.frozen && newest > self.now
    }

    /// Warns that so many keys begin later than now.
    pub(super) fn warn_of(&self, keys: usize) {
        if keys != 0 && !self.kept.complete {
            tracing::warn!(
                "which knocks were accepted last is not known, so the knocks of {} open nothing before {} have passed \
                 (`max_ahead`)",
                count(keys, "key"),
                HumanDuration(Duration::from_nanos(self.max_ahead))
            );
        }
    }
}

impl Kept {
    /// Reads what was kept for the instance with these pins; nothing where that cannot be read as such.
    pub fn read(directory: &Path, pins: &Path) -> Result<Self> {
        let path = file_of(directory, pins);
        match fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Reads what was kept for the instance with these pins, for one that begins, and notes that it is in use from now on. Warns
    /// of what fails.
    pub fn take(directory: &Path, pins: &Path) -> Self {
        Self::take_and_note(directory, pins, |in_use| in_use.write(directory, pins))
    }

    /// What cannot be noted is not relied on, and removed: the word that nothing was accepted since must not outlast this
    /// instance.
    fn take_and_note(
        directory: &Path,
        pins: &Path,
        note: impl FnOnce(&Self) -> Result<()>,
    ) -> Self {
        let taken = Self::read(directory, pins).and_then(|kept| {
            if kept.complete {
                note(&Self {
                    complete: false,
                    ..kept.clone()
                })?;
            }
            Ok(kept)
        });
        taken.unwrap_or_else(|error| {
            tracing::warn!("{error:#}");
            if let Err(error) = remove(directory, pins) {
                tracing::warn!("{error:#}");
            }
            Self::default()
        })
    }

    /// Adds the times of `others` that these do not have, since their keys cannot be used now: they may be again. `at_least`: Unix
    /// ns.
    #[must_use]
    pub fn with(mut self, others: Self, at_least: u64) -> Self {
        for (name, slots) in others.keys {
            let known = self.keys.entry(name).or_default();
            for (slot, time) in slots {
                known.entry(slot).or_insert(time.max(at_least));
            }
        }
        self
    }

    /// Writes it down for the instance with these pins.
    pub fn write(&self, directory: &Path, pins: &Path) -> Result<()> {
        self.write_beside(directory, pins)?.replace()?;
        sync(directory)
    }

    /// Writes it onto the disk, beside the file that it is to replace.
    pub fn write_beside(&self, directory: &Path, pins: &Path) -> Result<Synced> {
        let path = file_of(directory, pins);
        let written = || -> Result<NamedTempFile> {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
            let mut file = state_directory::beside(&path)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let file = written().with_context(|| cannot_write(&path))?;
        Ok(Synced { file, path })
    }
}

/// Newest times that are on the disk, and not in their place. Dropped, they are removed.
pub struct Synced {
    file: NamedTempFile,
    path: PathBuf,
}

impl Synced {
    /// Puts them into the place of those before; [`sync`] makes that last.
    pub fn replace(self) -> Result<()> {
        let Self { file, path } = self;
        let replaced = file.persist(&path);
        replaced.with_context(|| cannot_write(&path))?;
        Ok(())
    }
}

/// Has the disk hold which files there are in a directory.
pub fn sync(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|open| open.sync_all());
    synced.with_context(|| cannot_write(directory))
}

fn cannot_write(path: &Path) -> String {
    format!(
        "cannot write the newest times of keys into {}",
        path.display()
    )
}

/// Removes what was kept for the instance with these pins.
fn remove(directory: &Path, pins: &Path) -> Result<()> {
    let path = file_of(directory, pins);
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.and_then(|()| File::open(directory)?.sync_all()),
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

/// Returns the file of the instance with these pins: several instances may have one directory.
fn file_of(directory: &Path, pins: &Path) -> PathBuf {
    let name = pins.to_string_lossy().trim_matches('/').replace('/', "-");
    directory.join(format!("newest-{name}.json"))
}

/// Returns the latest time that a knock can have by now, Unix ns.
pub fn latest(config: &Config) -> u64 {
    now().saturating_add(max_ahead(config))
}

fn max_ahead(config: &Config) -> u64 {
    u64::try_from(config.knock.max_ahead.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the present time, Unix ns.
fn now() -> u64 {
    u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AHEAD: u64 = 15_000_000_000;

    fn newest(complete: bool, kept: &[(&str, u16, u64)]) -> Newest {
        let mut keys: BTreeMap<String, BTreeMap<u16, u64>> = BTreeMap::new();
        for (name, slot, time) in kept {
            keys.entry((*name).to_owned())
                .or_default()
                .insert(*slot, *time);
        }
        Newest {
            kept: Kept { complete, keys },
            fresh: Vec::new(),
            now: 1_000_000_000_000,
            max_ahead: AHEAD,
            frozen: false,
        }
    }

    #[test]
    fn what_is_known_completely_goes_on() {
        let newest = newest(true, &[("alice", 3, 77)]);
        assert_eq!(newest.of("alice", 3, 5), 77);
        // Another slot, another key: nothing is known of it.
        assert_eq!(newest.of("alice", 4, 5), newest.now + AHEAD);
        assert_eq!(newest.of("bob", 3, 5), newest.now + AHEAD);
    }

    #[test]
    fn what_is_not_known_begins_later_than_any_knock_that_can_have_been_accepted() {
        let newest = newest(false, &[("alice", 3, 77), ("bob", 4, u64::MAX)]);
        assert_eq!(newest.of("alice", 3, 5), newest.now + AHEAD);
        // The clock was set back: what is kept still holds.
        assert_eq!(newest.of("bob", 4, 5), u64::MAX);
    }

    #[test]
    fn what_is_kept_of_keys_that_cannot_be_used_is_no_earlier_than_their_last_knock() {
        let used = newest(true, &[("alice", 3, 77)]).kept;
        let before = newest(false, &[("alice", 3, 70), ("alice", 4, 60), ("bob", 5, 99)]).kept;
        let expected = newest(true, &[("alice", 3, 77), ("alice", 4, 80), ("bob", 5, 99)]);
        assert_eq!(used.with(before, 80), expected.kept);
    }

    #[test]
    fn only_a_key_that_was_made_right_now_counts_at_once() {
        let mut newest = newest(false, &[]);
        let created = newest.now - 5_000_000_000;
        assert_eq!(newest.of("carol", 2, created), newest.now + AHEAD);
        newest.fresh = vec![2];
        assert_eq!(newest.of("carol", 2, created), created);
        assert_eq!(newest.of("carol", 3, created), newest.now + AHEAD);
    }

    #[test]
    fn it_is_complete_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = &folder.path().join("new");
        let pins = Path::new("/sys/fs/bpf/knockgate");
        assert_eq!(Kept::take(directory, pins), Kept::default());
        let kept = newest(true, &[("alice", 3, 77)]).kept;
        kept.write(directory, pins).expect("written");
        let other = Kept::take(directory, Path::new("/sys/fs/bpf/other"));
        assert_eq!(other, Kept::default());
        assert_eq!(Kept::take(directory, pins), kept);
        let in_use = Kept {
            complete: false,
            ..kept
        };
        assert_eq!(Kept::take(directory, pins), in_use);
    }

    /// Where the disk is full.
    #[test]
    fn what_cannot_be_noted_is_not_relied_on_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let (directory, pins) = (folder.path(), Path::new("/sys/fs/bpf/knockgate"));
        let kept = newest(true, &[("alice", 3, 77)]).kept;
        kept.write(directory, pins).expect("written");
        let full = |_: &Kept| Err(anyhow::anyhow!("no space left on the disk"));
        assert_eq!(Kept::take_and_note(directory, pins, full), Kept::default());
        assert_eq!(Kept::take(directory, pins), Kept::default());
    }
}
