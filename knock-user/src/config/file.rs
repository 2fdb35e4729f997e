//! The file itself: its text, and who may read and change it.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use super::{
    DEFAULT_PATH,
    finding::{Finding, Invalid, Level},
};

/// A million knocks take well under half of this.
const LARGEST_FILE: u64 = 128 * 1024 * 1024;

/// Who may read and change a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    owner: u32,
    mode: u32,
}

/// Returns the text of a file and, for a regular one, who may read and change it.
pub(super) fn read(path: &Path) -> io::Result<(String, Option<Access>)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut text = String::new();
    file.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let access = Access {
        owner: metadata.uid(),
        mode: metadata.mode(),
    };
    Ok((text, metadata.is_file().then_some(access)))
}

/// Says why a file could not be read, and what to do.
pub(super) fn unreadable(name: &str, error: &io::Error) -> Invalid {
    let message = match error.kind() {
        io::ErrorKind::NotFound if name == DEFAULT_PATH => {
            "there is no configuration file; `knockgate init` writes one to start from".to_owned()
        }
        io::ErrorKind::NotFound => format!(
            "there is no configuration file; `knockgate init --config {name}` writes one to start from"
        ),
        io::ErrorKind::PermissionDenied => {
            "not permitted to read this file; run as its owner or as root (CAP_DAC_READ_SEARCH)"
                .to_owned()
        }
        io::ErrorKind::InvalidData => "this file is not UTF-8 text; save it as UTF-8".to_owned(),
        io::ErrorKind::IsADirectory => "this is a directory; name the file in it".to_owned(),
        io::ErrorKind::FileTooLarge => {
            format!(
                "this file is larger than {} MiB, the most that is read",
                LARGEST_FILE >> 20
            )
        }
        _ if error.raw_os_error() == Some(libc::EMFILE) => {
            "this file cannot be read, since this process may open no more files; raise its limit with \
             `ulimit -n 1024`"
                .to_owned()
        }
        _ => format!("this file cannot be read: {error}"),
    };
    Invalid::unreadable(
        name,
        message,
        error.kind() == io::ErrorKind::PermissionDenied,
    )
}

/// Returns the finding about a file that others can read or change than root or the user that this process runs as. That they
/// can read it is an error where `is_secret`: the file has sequences, which are passwords, or hooks, which may name some.
pub(super) fn open_to_others(file: &str, access: Access, is_secret: bool) -> Option<Finding> {
    let Access { owner, mode } = access;
    // SAFETY: the call takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    let (level, message) = if owner != 0 && owner != user {
        let message = format!(
            "this file belongs to another user (uid {owner}), who can change it: `chown {user} {file}` and `chmod 600 \
             {file}`"
        );
        (Level::Error, message)
    } else {
        let (level, can) = match mode & 0o066 {
            0 => return None,
            bits if bits & 0o022 != 0 => {
                (Level::Error, "change this file, and so say who may pass")
            }
            _ if is_secret => (
                Level::Error,
                "read this file, and its sequences are passwords",
            ),
            _ => (Level::Warning, "read this file"),
        };
        let mode = mode & 0o7777;
        let message =
            format!("others than the owner can {can} (mode {mode:04o}): `chmod 600 {file}`");
        (level, message)
    };
    Some(Finding::about_file(level, "open-to-others", file, message))
}
