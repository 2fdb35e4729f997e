//! What others have pinned.

use std::{io, os::fd::OwnedFd, path::Path};

use anyhow::{Result, bail};

use crate::{
    datapath::error::{cannot_open, is_denied},
    sys::bpf::{self, fs},
};

/// Opens what is pinned at `pin`, to read and change it. `None`: nothing is.
pub fn open(pin: &Path) -> Result<Option<OwnedFd>> {
    opened(pin, bpf::open(pin))
}

/// As [`open`], if only to read it where it may not be changed.
pub fn look(pin: &Path) -> Result<Option<OwnedFd>> {
    match bpf::open(pin) {
        Err(error) if is_denied(&error) || error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            opened(pin, bpf::look(pin))
        }
        object => opened(pin, object),
    }
}

fn opened(pin: &Path, object: io::Result<OwnedFd>) -> Result<Option<OwnedFd>> {
    match object {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => match unfit(pin) {
            Some(why) => bail!("{} {why}", pin.display()),
            None => Err(cannot_open(pin, error)),
        },
    }
}

/// Returns why a path is no pin, for which the kernel has the error of a missing permission (`kernel/bpf/inode.c`).
pub fn unfit(path: &Path) -> Option<&'static str> {
    if path.is_dir() {
        return Some("is a directory: name a pin in it");
    }
    if path.exists() && fs::is_bpffs(path).is_ok_and(|is| !is) {
        return Some("is no pin: it is not on a BPF file system");
    }
    fs::refuses_name(path)
        .is_ok_and(|is| is)
        .then_some("cannot be a pin: the BPF file system takes no names with a dot")
}
