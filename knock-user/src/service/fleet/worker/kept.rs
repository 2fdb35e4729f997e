//! The number of the last revocation that was put into the tables, in a file: the next service does not put it there again,
//! since it would end what was given after it.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{datapath::PinRoot, service::memory::state_file};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    fleet: String,
    applied: u64,
}

/// The file of a pin root.
pub struct Kept {
    path: PathBuf,
    fleet: String,
    applied: Option<u64>,
    /// Whether the last attempt to write it has failed.
    has_failed: bool,
}

impl Kept {
    pub fn of(root: &PinRoot, fleet: &str) -> Self {
        Self::at(state_file(root, "fleet"), fleet)
    }

    fn at(path: PathBuf, fleet: &str) -> Self {
        let text = fs::read(&path).unwrap_or_default();
        let state = serde_json::from_slice::<State>(&text).ok();
        let state = state.filter(|state| state.fleet == fleet);
        Self {
            path,
            fleet: fleet.to_owned(),
            applied: state.map(|state| state.applied),
            has_failed: false,
        }
    }

    /// Returns the number; `None`: this host has never been one of the fleet.
    pub fn applied(&self) -> Option<u64> {
        self.applied
    }

    /// Writes the number down, where it is another one. Where that fails, says so once.
    pub fn set(&mut self, applied: u64) {
        if self.applied == Some(applied) && !self.has_failed {
            return;
        }
        self.applied = Some(applied);
        let state = State {
            fleet: self.fleet.clone(),
            applied,
        };
        let written = self.write(&state);
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

    fn write(&self, state: &State) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(&self.path);
        fs::create_dir_all(directory)?;
        // Mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.persist(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_that_of_the_same_fleet() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/state.fleet");
        let mut kept = Kept::at(path.clone(), "edge");
        assert_eq!(kept.applied(), None);
        kept.set(7);
        assert_eq!(Kept::at(path.clone(), "edge").applied(), Some(7));
        assert_eq!(Kept::at(path, "core").applied(), None);
    }
}
