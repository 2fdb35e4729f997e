//! What the directories of a pin root hold, and whose pins are in them.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, Map, MapData, MapType};
use knock_common::layout::{LAYOUT, Meta};

use super::root::{PinRoot, interface_of};
use crate::{
    datapath::{
        error::{NotPermitted, cannot, cannot_open, is_denied, other_version},
        install::entry::Entry,
        tables::{self, Definition},
    },
    sys::bpf::{self, Kind},
};

/// Name of the link's pin in an interface's directory. A link that has stayed on an interface which was renamed makes
/// room for the next as `link%INDEX`.
pub const LINK: &str = "link";
/// Names of the pins of the program's entries. An entry is pinned once an interface needs it.
pub const PROGRAMS: [&str; 4] = {
    let [one, two, three, four] = Entry::ALL;
    [one.pin(), two.pin(), three.pin(), four.pin()]
};

/// An entry of the pin root.
#[derive(Debug)]
pub struct Directory {
    /// The interface that it was made for.
    pub interface: String,
    pub path: PathBuf,
    pub holds: Holds,
}

/// What an entry of the pin root holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// Tables of this layout.
    Instance,
    /// A part of what this build pins, on no interface: a process was killed while it made or removed it.
    Unfinished,
    /// Pins of another version.
    OtherVersion,
    /// Not knockgate's; the name of something that shows it.
    Foreign(String),
}

impl PinRoot {
    /// Returns what is below the root, in order of the paths; nothing where there is no root.
    pub fn directories(&self) -> Result<Vec<Directory>> {
        self.refuse_dots()?;
        let cannot_read = || format!("cannot read {}", self.path().display());
        let Some(entries) = read_dir(self.path())? else {
            return Ok(Vec::new());
        };
        let Some(on_bpffs) = self.is_on_bpffs()? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.with_context(cannot_read)?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let (interface, is_unnamed) = interface_of(&name);
            let holds = if !on_bpffs || !path.is_dir() {
                Holds::Foreign(name)
            } else {
                let held = match holds(&path, is_unnamed) {
                    // Who may look at the others sees this one once it is full.
                    Err(error) if is_unnamed && error.is::<NotPermitted>() => {
                        Some(Holds::Unfinished)
                    }
                    held => held?,
                };
                match held {
                    // A process that was killed has left it, with or without all tables.
                    Some(Holds::Instance) if is_unnamed => Holds::Unfinished,
                    Some(holds) => holds,
                    // Gone since it was listed.
                    None => continue,
                }
            };
            found.push(Directory {
                interface,
                path,
                holds,
            });
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }
}

/// Returns the pins of links in a directory: the first is called [`LINK`].
pub fn links(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut links = Vec::new();
    for name in names(directory)?.unwrap_or_default() {
        if is_link(&name) {
            links.push(directory.join(name));
        }
    }
    Ok(links)
}

/// Returns a name for the pin of a link beside another one in a directory. `index`: of its interface.
pub fn free_link(directory: &Path, index: impl fmt::Display) -> PathBuf {
    let mut free = directory.join(format!("{LINK}%{index}"));
    // Two network namespaces may use the same index.
    while free.exists() {
        free.as_mut_os_string().push("%");
    }
    free
}

/// Returns whether a directory has all tables. A program that is missing can be loaded onto them.
pub fn is_whole(directory: &Path) -> bool {
    let mut tables = tables::ALL.iter();
    tables.all(|table| directory.join(table.pin_name()).exists())
}

/// Fails where a directory has not all tables: a program that is loaded there would get others in place of those that are gone.
pub fn require_whole(directory: &Path) -> Result<()> {
    if is_whole(directory) {
        return Ok(());
    }
    bail!(
        "{} has not all pins: `knockgate up` pins them again, or, where no other interface has them, brings up anew what \
         is in the file, without the grants that there are",
        directory.display()
    );
}

/// Returns the identity of the instance of this layout that is pinned in `directory`.
pub fn meta(directory: &Path) -> Result<Meta> {
    meta_if_there(directory)?.ok_or_else(|| other_version(directory))
}

/// As [`meta`]; `None` where there is none, as when another process has just removed it.
pub fn meta_if_there(directory: &Path) -> Result<Option<Meta>> {
    let Some(table) = identity(directory)? else {
        return Ok(None);
    };
    if table.info()?.value_size() as usize != tables::META.definition.value {
        return Err(other_version(directory));
    }
    read(table).map(Some)
}

/// Returns the names in a directory, sorted; `None` where it is gone.
pub(super) fn names(directory: &Path) -> Result<Option<Vec<String>>> {
    let cannot_read = || format!("cannot read {}", directory.display());
    let Some(entries) = read_dir(directory)? else {
        return Ok(None);
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(cannot_read)?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(Some(names))
}

fn read_dir(directory: &Path) -> Result<Option<fs::ReadDir>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(Some(entries)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("read the pins in", directory, error)),
    }
}

/// Returns what a directory on a BPF file system holds; `None` where it is gone. `is_unnamed`: by its name, it was being
/// filled, so that it needs no mark to be knockgate's.
fn holds(directory: &Path, is_unnamed: bool) -> Result<Option<Holds>> {
    let Some(names) = names(directory)? else {
        return Ok(None);
    };
    if let Some(layout) = layout_of(directory)? {
        return Ok(Some(if layout == LAYOUT {
            Holds::Instance
        } else {
            Holds::OtherVersion
        }));
    }
    if !is_unnamed {
        // Tables that happen to have the same names and sizes do not make these pins knockgate's.
        let unmarked = names.into_iter().next();
        return Ok(Some(unmarked.map_or(Holds::Unfinished, Holds::Foreign)));
    }
    let mut holds = Holds::Unfinished;
    for name in names {
        let path = directory.join(&name);
        let table = table_of(&name);
        let is_program = PROGRAMS.contains(&name.as_str());
        if path.is_dir() || !(table.is_some() || is_program || is_link(&name)) {
            return Ok(Some(Holds::Foreign(name)));
        }
        let is_of_this_build = match table {
            Some(table) => table.is_pinned_at(&path)?,
            // A link may be on an interface, which it then guards.
            None => is_program && is_kind(&path, Kind::Program)?,
        };
        if !is_of_this_build {
            holds = Holds::OtherVersion;
        }
    }
    Ok(Some(holds))
}

/// Returns the layout of the tables pinned in `directory`, by the table that identifies an instance; `None` where
/// there is no such table, 0 where it has another form than in this build.
fn layout_of(directory: &Path) -> Result<Option<u32>> {
    let Some(table) = identity(directory)? else {
        return Ok(None);
    };
    if table.info()?.value_size() as usize != tables::META.definition.value {
        return Ok(Some(0));
    }
    Ok(Some(read(table)?.layout))
}

/// Opens the table in `directory` that identifies an instance, of whatever version; `None` where there is none.
fn identity(directory: &Path) -> Result<Option<MapData>> {
    let Definition { name, .. } = tables::META.definition;
    let pin = directory.join(tables::META.definition.pin_name());
    let Some(table) = tables::pinned(&pin)? else {
        return Ok(None);
    };
    let info = table.info()?;
    let is_array = info.map_type().is_ok_and(|kind| kind == MapType::Array);
    // Its name in the kernel distinguishes it from tables of other programs.
    Ok((is_array && info.name_as_str() == Some(name)).then_some(table))
}

fn read(table: MapData) -> Result<Meta> {
    let table: Array<_, Meta> = Map::Array(table).try_into()?;
    table.get(&0, 0).context("cannot read what is pinned")
}

/// Returns the table that has a pin of this name.
fn table_of(pin: &str) -> Option<&'static Definition> {
    tables::ALL.iter().find(|table| table.pin_name() == pin)
}

fn is_link(pin: &str) -> bool {
    pin.strip_prefix(LINK)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('%'))
}

/// Returns whether some version of knockgate has made this pin. Those of this version are known by their names; a table
/// of another one has its pin's name in the kernel too, in capitals and cut after 15 bytes.
pub(super) fn is_ours(path: &Path, pin: &str) -> bool {
    if PROGRAMS.contains(&pin) || is_link(pin) || table_of(pin).is_some() {
        return !path.is_dir();
    }
    tables::pinned(path).is_ok_and(|table| {
        let expected: String = pin.to_uppercase().chars().take(15).collect();
        let info = table.and_then(|table| table.info().ok());
        info.is_some_and(|info| info.name_as_str() == Some(&expected))
    })
}

fn is_kind(path: &Path, kind: Kind) -> Result<bool> {
    match bpf::look(path) {
        Ok(object) => Ok(bpf::kind(&object) == Some(kind)),
        Err(error) if is_denied(&error) => Err(cannot_open(path, error)),
        // Gone, or nothing that can be opened.
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_known_by_name() {
        assert!(is_link("link") && is_link("link%7"));
        assert!(!is_link("linkage") && !is_link("program"));
    }
}
