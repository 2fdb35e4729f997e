//! Who may use the pins: owner, group and mode, which an administrator may have changed.

use std::{
    fs::{self, Metadata, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
};

use super::directory::names;
use crate::datapath::{error::is_denied, tables};

/// Bits of a mode that `chmod` sets.
const MODE: u32 = 0o7777;
/// Of these, the ones that every process may set on its own files: not those for set-user-id and set-group-id, which
/// systemd's `RestrictSUIDSGID=` forbids.
const PERMISSIONS: u32 = 0o777;

/// Gives the directory `to` and each pin in it the owner, group and mode that `from` and its pins have. What is in `to` alone
/// gets those of the table that identifies the instance. That this is not permitted is logged.
pub fn carry(from: &Path, to: &Path) {
    let carried = names(to).and_then(|names| {
        for name in names.unwrap_or_default() {
            let like = fs::metadata(from.join(&name)).or_else(|_| identity(from))?;
            give(&to.join(name), &like)?;
        }
        Ok(give(to, &fs::metadata(from)?)?)
    });
    if let Err(error) = carried {
        complain(to, &error);
    }
}

/// Gives a pin those of the table that identifies the instance in its directory.
pub fn level(directory: &Path, pin: &str) {
    let given = identity(directory).and_then(|like| give(&directory.join(pin), &like));
    if let Err(error) = given {
        complain(directory, &error.into());
    }
}

fn identity(directory: &Path) -> io::Result<Metadata> {
    fs::metadata(directory.join(tables::META.definition.pin_name()))
}

fn give(path: &Path, like: &Metadata) -> io::Result<()> {
    let now = fs::metadata(path)?;
    if (now.uid(), now.gid()) != (like.uid(), like.gid()) {
        chown(path, Some(like.uid()), Some(like.gid()))?;
    }
    // Changing the owner may have changed it.
    let now = fs::metadata(path)?;
    if now.mode() & MODE == like.mode() & MODE {
        return Ok(());
    }
    let set = |bits| fs::set_permissions(path, Permissions::from_mode(like.mode() & bits));
    match set(MODE) {
        Err(error) if is_denied(&error) => set(PERMISSIONS),
        set => set,
    }
}

fn complain(directory: &Path, error: &anyhow::Error) {
    tracing::warn!(
        "the pins in {} could not be given the owner, group and mode of those before them, so that only root may \
         look: {error:#}; with `chmod g+s` on the pin root they get its group by themselves",
        directory.display()
    );
}
