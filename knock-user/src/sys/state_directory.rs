//! Where this host keeps what has to outlive a process.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::Serialize;
use tempfile::NamedTempFile;

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
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let mut file = beside(path)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.persist(path)?;
    Ok(())
}

/// Makes a file of mode 0600 that is to take the place of another. One that a kill leaves has the instance in its name, too.
pub fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!(".{name}-");
    let directory = path.parent().unwrap_or(path);
    tempfile::Builder::new()
        .prefix(&prefix)
        .tempfile_in(directory)
}
