//! What a service leaves to the next one, in a file: the last revocation that was put into the tables, since to put it there
//! again would end what was given after it; those before it, by which an older copy of the engine is told from what there is;
//! and the newest time of each host, since what is older than that is not new.

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    datapath::PinRoot, fleet::state::Memory, service::memory::state_file, sys::state_directory,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    fleet: String,
    #[serde(flatten)]
    memory: Memory,
}

/// The file of a pin root.
pub struct Kept {
    path: PathBuf,
    file: File,
    /// Whether the last attempt to write it has failed.
    has_failed: bool,
}

impl Kept {
    pub fn of(root: &PinRoot, fleet: &str) -> Self {
        Self::at(state_file(root, "fleet"), fleet)
    }

    fn at(path: PathBuf, fleet: &str) -> Self {
        let text = fs::read(&path).unwrap_or_default();
        let file = serde_json::from_slice::<File>(&text).ok();
        let file = file.filter(|file| file.fleet == fleet);
        Self {
            path,
            file: file.unwrap_or_else(|| File {
                fleet: fleet.to_owned(),
                memory: Memory::default(),
            }),
            has_failed: false,
        }
    }

    pub fn memory(&self) -> &Memory {
        &self.file.memory
    }

    /// Writes it down, where it is something else. Where that fails, says so once.
    pub fn set(&mut self, memory: Memory) {
        if self.file.memory == memory && !self.has_failed {
            return;
        }
        self.file.memory = memory;
        let written = state_directory::save(&self.path, &self.file);
        if let Err(error) = &written
            && !self.has_failed
        {
            tracing::warn!(
                "cannot write {}: {error}; when this service is started again, it ends what was given since the last \
                 revocation",
                self.path.display()
            );
        }
        self.has_failed = written.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{
        record::{Mark, Revocation},
        state::When,
    };

    #[test]
    fn what_is_kept_is_of_the_same_fleet() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/state.fleet");
        let mut kept = Kept::at(path.clone(), "edge");
        assert_eq!(*kept.memory(), Memory::default());
        let memory = Memory {
            applied: Some(Mark {
                number: 7,
                nonce: u64::MAX,
            }),
            known: vec![Revocation {
                gate: Some("ssh".to_owned()),
                network: None,
                host: "edge-1".to_owned(),
                nonce: u64::MAX,
                after: u64::MAX - 1,
            }],
            replaced: Some(Mark {
                number: 6,
                nonce: u64::MAX,
            }),
            hosts: [("edge-1".to_owned(), u64::MAX)].into(),
            serial: u64::MAX,
            kept: When {
                boot: "boot".to_owned(),
                steady: u64::MAX,
                wall: u64::MAX,
            },
        };
        kept.set(memory.clone());
        assert_eq!(*Kept::at(path.clone(), "edge").memory(), memory);
        assert_eq!(*Kept::at(path, "core").memory(), Memory::default());
    }
}
