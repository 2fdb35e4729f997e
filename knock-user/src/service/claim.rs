//! The claim of a service to its pin root: one at a time serves it.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use super::{
    own_file::OwnFile,
    socket::{DIRECTORY, path_of},
};
use crate::datapath::{NotPermitted, PinRoot};

/// The lock on a file that a service holds as long as it lives. Whoever removes its socket does not take it away, and the kernel
/// ends it with the process.
#[derive(Debug)]
pub struct Claim {
    /// Removed while it is locked.
    _named: OwnFile,
    _locked: File,
}

/// Another service serves the root.
#[derive(Debug)]
pub struct Served {
    root: PathBuf,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "another `knockgate run` serves {} already",
            self.root.display()
        )
    }
}

impl std::error::Error for Served {}

impl Claim {
    /// Claims `root` until the value is dropped. Fails with [`Served`] where another service has done so.
    pub fn to(root: &PinRoot) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(DIRECTORY)
            .map_err(|error| refused(error, format!("to create {DIRECTORY}")))?;
        let path = path_of(root, "lock");
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|error| refused(error, format!("to open {}", path.display())))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let root = root.path().to_owned();
                    return Err(Served { root }.into());
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            let named = OwnFile::of(&path, &file.metadata()?);
            // A service that has ended meanwhile has removed the file that was opened here.
            if named.is_there() {
                return Ok(Self {
                    _named: named,
                    _locked: file,
                });
            }
        }
    }
}

fn refused(error: io::Error, what: String) -> anyhow::Error {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return NotPermitted {
            what,
            needs: "CAP_DAC_OVERRIDE",
        }
        .into();
    }
    anyhow::Error::new(error).context(format!("not possible {what}"))
}
