//! Files and folders that are their owner's alone, and the documents in them.

use std::{
    fs::{Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Hundreds of keys of one name fit into this.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Returns the text of a file that is its owner's alone; `None` where there is none.
pub(crate) fn read_private(path: &Path) -> Result<Option<Zeroizing<String>>> {
    let shown = path.display();
    let failed = || format!("cannot read {shown}");
    let opened = OpenOptions::new()
        .read(true)
        // Without the second, a pipe would wait for its other end.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            bail!("{shown} is a symbolic link, which is not followed: put the file itself there")
        }
        opened => opened.with_context(failed)?,
    };
    let metadata = file.metadata().with_context(failed)?;
    ensure!(
        metadata.is_file(),
        "{shown} is no ordinary file: move it away"
    );
    refuse_open(path, &metadata, "600")?;
    let length = metadata.len();
    ensure!(
        length <= LARGEST_FILE,
        "{shown} is larger than {LARGEST_FILE} bytes: it is no file of a key"
    );
    // One that grows would leave copies of secrets behind.
    let room = usize::try_from(length)?.saturating_add(1);
    let mut text = Zeroizing::new(String::with_capacity(room));
    (&mut file)
        .take(length)
        .read_to_string(&mut text)
        .with_context(failed)?;
    Ok(Some(text))
}

/// Returns what the group and all others may do.
fn mode_of_others(mode: u32) -> u32 {
    mode & 0o077
}

/// Refuses what others than its owner can use, or what belongs to another user; says what repairs it.
pub(crate) fn refuse_open(path: &Path, metadata: &Metadata, mode: &str) -> Result<()> {
    let shown = path.display();
    // SAFETY: the call takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    let owner = metadata.uid();
    ensure!(
        owner == 0 || owner == user,
        "{shown} belongs to another user (uid {owner}), who can change it: `chown {user} {shown}` and `chmod {mode} {shown}`"
    );
    let bits = metadata.mode() & 0o7777;
    ensure!(
        mode_of_others(bits) == 0,
        "others than the owner can use {shown} (mode {bits:04o}), which has secrets: `chmod {mode} {shown}`"
    );
    Ok(())
}

/// Reads a document. The message has no line of it: secrets stand there.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let message = error.message();
        match error.span() {
            Some(span) => {
                let before = text.get(..span.start).unwrap_or(text);
                let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
                format!("line {line}: {message}")
            }
            None => message.to_owned(),
        }
    })
}
