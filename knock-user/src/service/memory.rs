//! What the service knows and the next one needs: which grants it has seen, and for which ends hooks are still to run.
//!
//! Written when it changes, by replacing the file, so a service that is killed leaves the old state or the new one.
//! Nothing is forced onto the disk: a power failure may lose the file, and grants are lost with it.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufReader, BufWriter, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{record::Record, socket::file_name};
use crate::{
    datapath::{PinRoot, Who},
    sys::state_directory,
};

/// The state of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The boot that `looked` and `until` belong to: the clock begins anew with each.
    pub boot: String,
    /// When the tables were read, ns of `CLOCK_MONOTONIC` ...
    pub looked: u64,
    /// ... and by the wall clock, for another boot.
    pub wall: Timestamp,
    pub granted: Vec<Granted>,
    /// The live grants at that time. There may be many, and few who have them.
    pub grants: Vec<Known>,
    /// Ends of grants whose hooks had not ended.
    pub closings: Vec<Record>,
    /// Absent from what earlier builds have written.
    #[serde(default)]
    pub lost: Lost,
}

/// Events that the kernel had left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// When the instance came up that has counted them, ns of `CLOCK_MONOTONIC`.
    pub since: u64,
    pub events: u64,
}

/// A gate and somebody who may pass it, by names that outlive the tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Granted {
    pub gate: String,
    #[serde(flatten)]
    pub who: Who,
}

/// A grant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Who has it: a place in [`State::granted`].
    pub holder: usize,
    pub source: IpNet,
    /// ns of `CLOCK_MONOTONIC`.
    pub until: u64,
    pub connections: u32,
    /// Its last connection has closed its gate, and that was reported. Absent from what earlier builds have written.
    #[serde(default)]
    pub is_closed: bool,
    /// Its beginning was not reported yet. Absent from what earlier builds have written.
    #[serde(default)]
    pub is_unsaid: bool,
}

impl State {
    /// Returns when a grant ends by the wall clock. `until`: as in [`Known::until`].
    pub fn ends(&self, until: u64) -> Timestamp {
        let left = Duration::from_nanos(until.saturating_sub(self.looked));
        self.wall.checked_add(left).unwrap_or(Timestamp::MAX)
    }

    /// Returns it, if each of its grants is somebody's.
    fn checked(self) -> Result<Self> {
        let count = self.granted.len();
        ensure!(
            self.grants.iter().all(|grant| grant.holder < count),
            "a grant is nobody's"
        );
        Ok(self)
    }
}

/// The file of a pin root.
pub struct Memory {
    path: PathBuf,
    /// Whether the last attempt to write it has failed.
    has_failed: bool,
}

impl Memory {
    pub fn of(root: &PinRoot) -> Self {
        Self::at(state_file(root, "json"))
    }

    fn at(path: PathBuf) -> Self {
        Self {
            path,
            has_failed: false,
        }
    }

    /// Returns what the last service has left. A file that cannot be read is as good as none, and logged.
    pub fn load(&self) -> Option<State> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!("cannot read {}: {error}", self.path.display());
                return None;
            }
        };
        let state = serde_json::from_reader(BufReader::new(file)).map_err(anyhow::Error::from);
        let state = state.and_then(State::checked);
        if let Err(error) = &state {
            tracing::warn!(
                "{} is not a state of this version, and is not used: {error}",
                self.path.display()
            );
        }
        state.ok()
    }

    /// Writes the state down, and returns whether that was possible. Where it was not, says so once and leaves no state: by one that is
    /// out of date, the next service would run hooks once more, and after those for what has happened since.
    pub fn save(&mut self, state: &State) -> bool {
        let saved = write(&self.path, state);
        if let Err(error) = &saved {
            self.forget();
            if !self.has_failed {
                tracing::warn!(
                    "cannot write {}: {error}; when this service is started again, it will not know of grants that ended \
                     meanwhile",
                    self.path.display()
                );
            }
        }
        self.has_failed = saved.is_err();
        saved.is_ok()
    }

    /// Removes the file, where there is nothing to know any more.
    pub fn forget(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the path of a file for the next service of this pin root.
pub fn state_file(root: &PinRoot, extension: &str) -> PathBuf {
    state_directory::path().join(file_name(root, extension))
}

fn write(path: &Path, state: &State) -> io::Result<()> {
    let new = path.with_extension("new");
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    let written = write_to(&new, state).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn write_to(path: &Path, state: &State) -> io::Result<()> {
    let mut file = File::options();
    let file = file.write(true).create(true).truncate(true).mode(0o600);
    let mut writer = BufWriter::new(file.open(path)?);
    serde_json::to_writer(&mut writer, state)?;
    writer.flush()
}

/// Returns the id of this boot; empty where the kernel does not tell.
pub fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn state() -> State {
        State {
            boot: boot(),
            looked: 7,
            wall: Timestamp::now(),
            granted: vec![Granted {
                gate: "ssh".into(),
                who: Who {
                    user: Some("alice".into()),
                    ..Who::default()
                },
            }],
            grants: vec![Known {
                holder: 0,
                source: "192.0.2.0/24".parse().expect("a network"),
                until: u64::MAX,
                connections: 3,
                is_closed: true,
                is_unsaid: true,
            }],
            closings: vec![Record::now("gate.closed")],
            lost: Lost {
                since: 5,
                events: 9,
            },
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_secret() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("new/state.json");
        let mut memory = Memory::at(path.clone());
        assert_eq!(memory.load(), None);
        assert!(memory.save(&state()));
        let saved = memory.load().expect("it was saved");
        assert_eq!(saved.closings[0].event, "gate.closed");
        assert!(memory.save(&saved));
        assert_eq!(memory.load(), Some(saved));
        for (path, mode) in [(&*path, 0o600), (path.parent().expect("it has one"), 0o700)] {
            let permissions = fs::metadata(path).expect("it is there").permissions();
            assert_eq!(permissions.mode() & 0o777, mode, "{}", path.display());
        }
        memory.forget();
        assert_eq!(memory.load(), None);
    }

    #[test]
    fn what_cannot_be_read_or_written_harms_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("state.json");
        fs::write(&path, "{\"boot\": ").expect("writable");
        let mut memory = Memory::at(path.clone());
        assert_eq!(memory.load(), None);
        let mut of_nobody = state();
        of_nobody.granted.clear();
        assert!(memory.save(&of_nobody));
        assert_eq!(memory.load(), None);
        // A directory where the file would be.
        fs::remove_file(&path).expect("it is there");
        fs::create_dir(&path).expect("writable");
        assert!(!memory.save(&state()));
        assert_eq!(memory.load(), None);
        fs::remove_dir(&path).expect("empty");
        assert!(memory.save(&state()));
        let names = fs::read_dir(folder.path()).expect("readable");
        assert_eq!(names.count(), 1, "nothing is left beside the file");
    }

    /// Here a directory is in the way, elsewhere the disk is full.
    #[test]
    fn what_is_out_of_date_is_not_left() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("state.json");
        let mut memory = Memory::at(path.clone());
        assert!(memory.save(&state()));
        fs::create_dir(path.with_extension("new")).expect("writable");
        assert!(!memory.save(&state()));
        assert_eq!(memory.load(), None);
    }
}
