//! A program of ours whose pin somebody has removed is known by the tables that it uses.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{
    entry::Entry,
    framing::Framing,
    pins::{
        access,
        directory::{self, Directory, Holds},
    },
    program::ENTRIES,
    xdp,
};
use crate::{
    datapath::{
        chain::into::{InSlot, IntoSlot},
        tables,
    },
    sys::bpf,
};

/// Returns whether a program uses the tables that are pinned in `directory`. `false` as well where this process may not ask the kernel.
pub fn is_of(program: u32, directory: &Path) -> Result<bool> {
    // Each entry looks up in it, and each configuration has its own.
    let pin = directory.join(tables::ROLE.definition.pin_name());
    let Some(table) = tables::pinned(&pin)? else {
        return Ok(false);
    };
    Ok(xdp::uses(program, table.info()?.id()))
}

/// As [`is_of`], of the instance or of a replacement that is going on.
pub(super) fn is_of_any(program: u32, directories: &[Directory]) -> Result<bool> {
    for Directory { path, holds, .. } in directories {
        if matches!(holds, Holds::Instance | Holds::Unfinished) && is_of(program, path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the names in the kernel's list of what is pinned as this entry.
pub(super) fn names(entry: Entry) -> impl Iterator<Item = &'static str> {
    let [_, frags, _] = ENTRIES;
    let frags = (entry == Entry::xdp(Framing::Ethernet)).then_some(frags);
    [entry.name()].into_iter().chain(frags)
}

/// Pins the programs in `directory` again that its links and its slot carry, where none is pinned there in their places: whoever undoes
/// a replacement puts back what is pinned.
pub(super) fn pin_carried(directory: &Path, into: Option<&IntoSlot>) -> Result<()> {
    let mut carried = Vec::new();
    for path in directory::links(directory)? {
        let link = bpf::program_link(&path)
            .with_context(|| format!("cannot look at {}", path.display()))?;
        carried.extend(link.map(|link| link.program));
    }
    if let Some(into) = into
        && let InSlot::Program(program) = into.look()?
    {
        carried.push(program);
    }
    for program in carried {
        let mut lacking = Entry::ALL.into_iter();
        let lacking = lacking.find(|entry| {
            !directory.join(entry.pin()).exists()
                && names(*entry).any(|name| xdp::is_called(program, name))
        });
        if let Some(entry) = lacking
            && is_of(program, directory)?
        {
            let pin = directory.join(entry.pin());
            xdp::open(program)
                .and_then(|program| Ok(bpf::pin(&program, &pin)?))
                .with_context(|| format!("cannot pin the program again at {}", pin.display()))?;
            access::level(directory, entry.pin());
        }
    }
    Ok(())
}
