//! Takes down what is up.

use anyhow::{Result, bail};

use super::{
    attachment,
    pins::{
        change,
        directory::{Directory, Holds},
        root::PinRoot,
    },
};
use crate::{
    config::Order,
    datapath::{
        chain::into,
        keys::{Kept, latest},
        open::Datapath,
    },
    sys::{grace, state_directory},
};

/// Detaches and removes what is pinned for these interfaces; for all where none is named. Returns the interfaces.
///
/// Needs no configuration, succeeds where nothing is up, and removes nothing that is not knockgate's.
pub fn down(root: &PinRoot, interfaces: &[String]) -> Result<Vec<String>> {
    match root.is_on_bpffs()? {
        None => return Ok(Vec::new()),
        Some(true) => {}
        Some(false) => bail!(
            "{} is not on a BPF file system, so nothing is pinned there: nothing was removed",
            root.path().display()
        ),
    }
    let Some(_lock) = root.lock_existing()? else {
        return Ok(Vec::new());
    };
    let (ours, foreign): (Vec<_>, Vec<_>) = root
        .directories()?
        .into_iter()
        .partition(|directory| !matches!(directory.holds, Holds::Foreign(_)));
    if ours.is_empty()
        && let Some(Directory {
            path,
            holds: Holds::Foreign(name),
            ..
        }) = foreign.first()
    {
        bail!(
            "what is in {} is not knockgate's (`{name}`, for one): nothing was removed",
            path.display()
        );
    }
    // Its tables stay open.
    let datapath = Datapath::open(root).ok();
    let mut removed: Vec<String> = Vec::new();
    let all = ours.len();
    let configured = datapath
        .as_ref()
        .map_or_else(Vec::new, |datapath| datapath.config().interfaces.clone());
    let selected = select(root, ours, interfaces, &configured)?;
    if selected.len() < all
        && let Some(into) = selected.iter().find_map(|of| into::of(&of.path))
    {
        bail!(
            "one program in {into} guards all interfaces: take them all down, with `knockgate down`"
        );
    }
    let programs = attachment::all_programs(&selected)?;
    for into in selected.iter().filter_map(|of| into::of(&of.path)) {
        into::require_known(&into, &programs)?;
    }
    for directory in selected {
        change::remove(&directory.path)?;
        if !removed.contains(&directory.interface) {
            removed.push(directory.interface);
        }
    }
    if let Some(datapath) = datapath
        && !datapath.config().knock.ports.is_empty()
        && !holds_an_instance(root)?
    {
        grace::wait();
        keep_newest_times(&datapath, root);
    }
    root.tidy();
    Ok(removed)
}

fn holds_an_instance(root: &PinRoot) -> Result<bool> {
    let directories = root.directories()?;
    Ok(directories
        .iter()
        .any(|directory| directory.holds == Holds::Instance))
}

/// Keeps what the next instance has to know, so that no knock opens twice. No packet is judged by the program any more.
fn keep_newest_times(datapath: &Datapath, root: &PinRoot) {
    let kept = || -> Result<()> {
        let (directory, pins) = (state_directory::path(), root.path());
        let others = Kept::read(&directory, pins).unwrap_or_default();
        let complete = Kept {
            complete: true,
            ..datapath.newest_times()?
        };
        // What others have accepted since they were kept is not known.
        let complete = complete.with(others, latest(datapath.config()));
        complete.write(&directory, pins)
    };
    if let Err(error) = kept() {
        tracing::warn!("{error:#}");
    }
}

/// Returns the directories of these interfaces; all where none is named. An interface is found by its name when it was
/// pinned, and by its name now. One of `configured`, those of the configuration in force, may have been taken down before.
fn select(
    root: &PinRoot,
    directories: Vec<Directory>,
    interfaces: &[String],
    configured: &[String],
) -> Result<Vec<Directory>> {
    if interfaces.is_empty() || directories.is_empty() {
        return Ok(directories);
    }
    let mut names: Vec<String> = directories
        .iter()
        .map(|directory| directory.interface.clone())
        .collect();
    names.dedup();
    let renamed = attachment::attachments(root, &[], None, Order::Last).unwrap_or_default();
    let mut wanted = Vec::new();
    for interface in interfaces {
        let now = || renamed.iter().find(|row| row.name == *interface);
        if names.contains(interface) {
            wanted.push(interface.clone());
        } else if let Some(row) = now() {
            wanted.push(row.configured.clone());
        } else if !configured.contains(interface) {
            bail!(
                "knockgate is not up on {interface}; it is up on {}",
                names.join(", ")
            );
        }
    }
    let is_wanted = |directory: &Directory| wanted.contains(&directory.interface);
    Ok(directories.into_iter().filter(is_wanted).collect())
}
