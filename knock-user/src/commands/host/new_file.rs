//! Configurations that are written: by `init`, and by `import`.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, bail};

/// Writes a file with mode 0600, and makes its directory. Overwrites no file.
pub(super) fn create(path: &Path, text: &str) -> anyhow::Result<()> {
    let shown = path.display();
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.with_context(|| format!("the directory {} cannot be made", parent.display()))?;
    }
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!(exists(path));
        }
        opened => opened.with_context(|| format!("{shown} cannot be written"))?,
    };
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    if written.is_err() {
        // The remains would make the next attempt fail.
        let _ = fs::remove_file(path);
    }
    written.with_context(|| format!("{shown} could not be written whole and was removed again"))
}

/// Refuses a path that exists, before anything else can fail. [`create`] decides in the end.
pub(super) fn refuse_existing(path: &Path) -> anyhow::Result<()> {
    match path.symlink_metadata() {
        Ok(_) => bail!(exists(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error)
            .with_context(|| format!("{} cannot be read; run this as root", path.display())),
        Err(error) => Err(error).with_context(|| format!("{} cannot be written", path.display())),
    }
}

fn exists(path: &Path) -> String {
    format!(
        "{} exists and is never overwritten: move it away, or name another file",
        path.display()
    )
}
