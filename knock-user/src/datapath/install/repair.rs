//! Attaches the program again where it is missing, with the tables and grants that there are.

use anyhow::{Context as _, Result};

use super::{
    attach::{Guarded, Place, guard},
    attachment::{Attachment, Lack},
    damaged::pin_again,
    owned,
    pins::{
        change,
        directory::{self, Directory, Holds},
        root::PinRoot,
    },
    settle::is_attached,
    tcx,
    xdp::Attached,
};
use crate::datapath::{error::other_version, open::Datapath};

/// The outcome of [`repair`].
#[derive(Debug, Default)]
pub struct Repair {
    pub guarded: Vec<Guarded>,
    /// Interfaces that the program could not be attached to, and why.
    pub failed: Vec<(String, anyhow::Error)>,
}

/// Attaches the program to the configured interfaces that lack it, except to those that were taken down by themselves.
/// Needs the lock.
pub fn repair(datapath: &mut Datapath, root: &PinRoot) -> Result<Repair> {
    repair_where(datapath, root, &|row| row.state != Err(Lack::Down))
}

/// Attaches the program to all configured interfaces that lack it. Needs the lock.
pub(super) fn repair_all(datapath: &mut Datapath, root: &PinRoot) -> Result<Repair> {
    repair_where(datapath, root, &|_| true)
}

/// Puts programs that are pinned in place of ours that are not, as far as that can be seen. Needs the lock.
///
/// Before a replacement: whoever undoes it puts back what is pinned.
pub(super) fn repair_unpinned(datapath: &mut Datapath, root: &PinRoot) -> Result<()> {
    let directories = root.directories()?;
    let is_unpinned = |row: &Attachment| match &row.state {
        // Without an interface of its name, the replacement leaves its link alone.
        Err(Lack::Replaced) => row.index.is_some(),
        // As one that cannot be seen to be ours, another's is never replaced.
        Err(Lack::SlotTaken(_, program)) => {
            owned::is_of_any(*program, &directories).unwrap_or_default()
        }
        _ => false,
    };
    let Repair { failed, .. } = repair_where(datapath, root, &is_unpinned)?;
    match failed.into_iter().next() {
        None => Ok(()),
        Some((name, error)) => Err(error).with_context(|| {
            format!(
                "somebody has removed the pin of the program that guards {name}, and no other one could be put in its place"
            )
        }),
    }
}

fn repair_where(
    datapath: &mut Datapath,
    root: &PinRoot,
    wanted: &dyn Fn(&Attachment) -> bool,
) -> Result<Repair> {
    let mut repair = Repair::default();
    for attachment in datapath.attachments()? {
        if !attachment.needs_repair() || !wanted(&attachment) {
            continue;
        }
        let name = attachment.configured;
        let Err(lack) = attachment.state else {
            continue;
        };
        let prepared = if lack == Lack::Down {
            remake_directory(datapath, root, &name)
        } else {
            directory::require_whole(&root.of(&name))
                .or_else(|lacking| complete_directory(datapath, root, &name, lacking))
        };
        let attached = prepared.and_then(|()| match lack {
            Lack::Behind(_) => Place::of(&root.of(&name), &attachment.name, &datapath.applied)
                .and_then(|place| tcx::bring_forward(&place))
                .map(|()| Some(Attached::Tcx)),
            _ => guard(root, &name, &datapath.applied),
        });
        match attached {
            Ok(attached) => repair.guarded.extend(attached.map(|attached| Guarded {
                interface: name,
                attached,
            })),
            Err(error) => repair.failed.push((name, error)),
        }
    }
    if !repair.guarded.is_empty() {
        // Replies are made by the interface's index, which may be another one now.
        let state = datapath.read_host_state(&datapath.attachments()?)?;
        datapath.set_host_state(&state)?;
    }
    Ok(repair)
}

/// Returns whether the program has been attached since it came up. A process that was killed while it brought it up leaves
/// directories without links, perhaps not for all interfaces, and connections that it has not adopted.
pub(super) fn has_been_attached(datapath: &Datapath, root: &PinRoot) -> Result<bool> {
    // What it has counted stays when all links are gone, or what it was in a slot.
    if !datapath.packets()?.is_empty() {
        return Ok(true);
    }
    for Directory { path, holds, .. } in root.directories()? {
        if holds == Holds::Instance && (!directory::links(&path)?.is_empty() || is_attached(&path)?)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Pins again what is gone from the directory of an interface. `lacking`: what to say where no other one has it.
fn complete_directory(
    datapath: &Datapath,
    root: &PinRoot,
    name: &str,
    lacking: anyhow::Error,
) -> Result<()> {
    if datapath.whole_directory()?.is_none() {
        return Err(lacking);
    }
    pin_again(datapath, root, name)
}

/// Makes the directory of an interface that was taken down.
fn remake_directory(datapath: &Datapath, root: &PinRoot, name: &str) -> Result<()> {
    let whole = datapath.whole_directory()?;
    let from = whole.ok_or_else(|| other_version(root.path()))?;
    root.fill(name, |directory| change::copy(&from, directory))?;
    Ok(())
}
