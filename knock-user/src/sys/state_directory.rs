//! Where this host keeps what has to outlive a process.

use std::{env, path::PathBuf};

/// Where the service manager names no other.
const DIRECTORY: &str = "/var/lib/knockgate";

/// Returns the directory. It may not exist yet.
pub fn path() -> PathBuf {
    // systemd lists all state directories of a unit; ours has one.
    let given = env::var_os("STATE_DIRECTORY").filter(|value| !value.is_empty());
    given.map_or_else(|| PathBuf::from(DIRECTORY), PathBuf::from)
}
