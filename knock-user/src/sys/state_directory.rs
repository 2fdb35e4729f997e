//! Where this host keeps what has to outlive a process.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

/// Where the service manager names no other.
const DIRECTORY: &str = "/var/lib/knockgate";

/// Returns the directory. It may not exist yet.
pub fn path() -> PathBuf {
    // systemd lists all state directories of a unit; ours has one.
    let given = env::var_os("STATE_DIRECTORY").filter(|value| !value.is_empty());
    given.map_or_else(|| PathBuf::from(DIRECTORY), PathBuf::from)
}

/// Writes a file of the directory, as JSON, whole or not at all.
pub fn save(path: &Path, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory)?;
    // Mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.persist(path)?;
    Ok(())
}
