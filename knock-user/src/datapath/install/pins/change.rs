//! Making, copying and removing the directories of a pin root. Needs the lock.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    access,
    directory::{PROGRAMS, is_ours, links, names},
    root::{PinRoot, make_directory},
};
use crate::{
    datapath::{chain::into, tables},
    sys::bpf,
};

impl PinRoot {
    /// Fills a directory beside that of `interface` by `pin`. It has the name of one that is unfinished.
    pub fn fill_beside(
        &self,
        interface: &str,
        pin: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let unnamed = self.unnamed(interface);
        make_directory(&unnamed)?;
        pin(&unnamed)
    }

    /// Fills the directory of `interface` by `pin`, and gives it its name when it is full.
    pub fn fill(&self, interface: &str, pin: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let (unnamed, directory) = (self.unnamed(interface), self.of(interface));
        make_directory(&unnamed)?;
        let filled = pin(&unnamed).and_then(|()| {
            // An empty directory of that name is replaced.
            fs::rename(&unnamed, &directory).map_err(|error| match error.raw_os_error() {
                Some(libc::ENOTEMPTY | libc::EEXIST | libc::ENOTDIR) => anyhow!(
                    "{} is not knockgate's, so {interface} cannot be pinned there; remove it, or choose \
                     another --pin-root",
                    directory.display()
                ),
                _ => anyhow!(error).context(format!("cannot make {}", directory.display())),
            })
        });
        if filled.is_err()
            && let Err(error) = unpin(&unnamed)
        {
            tracing::warn!("{error:#}");
        }
        filled.map(|()| directory)
    }
}

/// Pins the tables that are pinned in `from` in `to` as well, and the programs of which `to` has none yet.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for table in tables::ALL {
        copy_pin(&table.pin_name(), from, to)?;
    }
    copy_programs(from, to)?;
    access::carry(from, to);
    Ok(())
}

/// Pins the programs that are pinned in `from` in `to` as well, as far as `to` has none of that name yet.
pub fn copy_programs(from: &Path, to: &Path) -> Result<()> {
    for name in lacking(from, to) {
        copy_pin(name, from, to)?;
    }
    Ok(())
}

/// As [`copy_programs`], to a directory that is in use.
pub fn add_programs(from: &Path, to: &Path) -> Result<()> {
    for name in lacking(from, to) {
        copy_pin(name, from, to)?;
        access::level(to, name);
    }
    Ok(())
}

/// Returns the names of programs that `from` has and `to` lacks.
fn lacking(from: &Path, to: &Path) -> impl Iterator<Item = &'static str> {
    let mut names = PROGRAMS.to_vec();
    names.retain(|name| from.join(name).exists() && !to.join(name).exists());
    names.into_iter()
}

fn copy_pin(name: &str, from: &Path, to: &Path) -> Result<()> {
    bpf::open(&from.join(name))
        .and_then(|object| bpf::pin(&object, &to.join(name)))
        .with_context(|| format!("cannot pin {name} in {} again", to.display()))
}

/// Removes a directory with what is knockgate's in it, and takes the program out of the slot that it is in.
pub fn remove(directory: &Path) -> Result<()> {
    into::leave(directory)?;
    unpin(directory)
}

/// Sorts the names of pins as [`unpin`] removes them.
fn removal_order(name: &str) -> (Option<usize>, String) {
    let last = [&tables::CONFIG.definition, &tables::META.definition];
    let position = last.iter().position(|table| table.pin_name() == name);
    (position, name.to_owned())
}

/// Returns whether the table is gone from a directory that [`unpin`] removes first.
pub fn is_partly_unpinned(directory: &Path) -> bool {
    let names = tables::ALL.iter().map(tables::Definition::pin_name);
    let first = names.min_by_key(|name| removal_order(name));
    first.is_some_and(|name| !directory.join(name).exists())
}

/// Removes a directory with what is knockgate's in it. The link goes first: while it is there, so are the tables. What identifies
/// the instance goes last, and before that the configuration: while the programs are there, it says whether they are in a slot.
pub fn unpin(directory: &Path) -> Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let in_directory = || format!("cannot remove the pins in {}", directory.display());
    for link in links(directory)? {
        // Where this fails (before Linux 5.9), removing the pin detaches the link, only later.
        let _ = bpf::detach_link(&link);
        gone(fs::remove_file(link)).with_context(in_directory)?;
    }
    let Some(mut names) = names(directory)? else {
        return Ok(());
    };
    names.sort_by_cached_key(|name| removal_order(name));
    let mut left = Vec::new();
    for name in names {
        let path = directory.join(&name);
        if is_ours(&path, &name) {
            gone(fs::remove_file(path)).with_context(in_directory)?;
        } else {
            left.push(name);
        }
    }
    if left.is_empty() {
        gone(fs::remove_dir(directory)).with_context(in_directory)
    } else {
        tracing::warn!(
            "left in {}, since knockgate has not pinned it: {}",
            directory.display(),
            left.join(", ")
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(names: &[String]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in names {
            fs::write(folder.path().join(name), "").expect("writable");
        }
        folder
    }

    /// Whoever else removes one pin has not removed all before it.
    #[test]
    fn what_a_killed_down_leaves_is_told_from_other_damage() {
        let names = tables::ALL.iter().map(tables::Definition::pin_name);
        let mut names: Vec<String> = names.collect();
        names.sort_by_cached_key(|name| removal_order(name));
        assert_eq!(names.last().map(String::as_str), Some("meta"));
        for gone in 1..=names.len() {
            let folder = folder_with(&names[gone..]);
            assert!(is_partly_unpinned(folder.path()), "{gone}");
        }
        for gone in 1..names.len() {
            let folder = folder_with(&names);
            fs::remove_file(folder.path().join(&names[gone])).expect("it is there");
            assert!(!is_partly_unpinned(folder.path()), "{}", names[gone]);
        }
    }
}
