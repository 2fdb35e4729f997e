//! What is left to do once another configuration is in force: what the old program has changed since the copy follows, and what
//! does not apply any more ends.
//!
//! The directories of the configuration before are removed last. While one of them is there, this is not done, and whoever comes
//! next does it, whatever became of the process that should have.

use std::{collections::HashSet, fs, io, path::Path};

use anyhow::{Context as _, Result};

use super::{
    pins::{
        directory::{self, Holds},
        root::PinRoot,
    },
    settle::{forget, generation},
};
use crate::{
    datapath::{
        carry::{self, Copied, Room},
        keys::{KeyRows, KeyTables, Keys, Newest},
        open::{self, Datapath},
        tables::{Access, Group, PinDirectory},
    },
    sys::{clock::monotonic_now, grace},
};

/// Completes the replacement of `old` by `new`, whose directories have changed places. `rows` and `lost`: the keys, and the slots
/// whose keys are gone. `lasting`: the groups of tables that both have. What fails is a warning, since the new configuration is in
/// force all the same.
pub(super) fn complete(
    root: &PinRoot,
    old: &Datapath,
    new: &mut Datapath,
    (rows, lost): (&KeyRows, &HashSet<u32>),
    lasting: &HashSet<Group>,
    copied: &Copied,
) {
    grace::wait();
    succeeds(carry::after(old, new, lasting, copied));
    let have_keys = lasting.contains(&Group::Keys) || succeeds(follow_keys(root, old, new, rows));
    let have_ended = succeeds(new.end_grants_of_keys(lost).map(drop))
        && succeeds(new.end_outdated(Some(&old.applied)).map(drop));
    let config = new.config().clone();
    succeeds(new.look_for_lengths(&config, Room::ForSome, monotonic_now()));
    succeeds(new.end_grants_left_out());
    if have_keys && have_ended {
        succeeds(forget_before(root, new.generation));
    }
}

/// Completes a replacement for a process that was killed. `before`: a directory of the configuration that was replaced. What the
/// old program has changed between the copy and the replacement of the program is lost, except for the newest times of keys.
pub(super) fn complete_killed(root: &PinRoot, before: &Path) -> Result<()> {
    let mut new = Datapath::open(root)?;
    if directory::meta(before)?.since != new.since {
        return Ok(());
    }
    let earlier = PinDirectory {
        path: before.to_owned(),
        access: Access::Change,
    };
    let earlier = KeyTables::open(&earlier)?;
    new.keys()?.follow(&earlier);
    let compiled = Keys::read(new.config(), false)?.compile(&new.applied, Some(&new))?;
    new.end_grants_of_keys(&earlier.lost(&compiled.rows))?;
    if let Some(error) = new.apply_compiled(compiled)? {
        tracing::warn!("{error:#}");
    }
    new.end_outdated(Some(&open::applied(before)?))?;
    new.end_grants_left_out()
}

/// Gives the directory of an interface that is not guarded any more the name of one that is left, so that nobody opens it.
pub(super) fn give_up_place(root: &PinRoot, interface: &str) -> Result<()> {
    let place = root.of(interface);
    match fs::rename(&place, root.unnamed(interface)) {
        // It has been taken down alone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed.with_context(|| format!("cannot rename {}", place.display())),
    }
}

/// Returns whether a step has succeeded, and warns if not.
pub(super) fn succeeds(step: Result<()>) -> bool {
    step.inspect_err(warn_of).is_ok()
}

/// Warns of what has failed after a new configuration came into force.
pub(super) fn warn_of(error: &anyhow::Error) {
    tracing::warn!(
        "the new configuration is in force, but something is not done that follows from it: {error:#}"
    );
}

/// Has the new tables accept knocks that are newer than those that the old ones have accepted.
fn follow_keys(root: &PinRoot, old: &Datapath, new: &mut Datapath, rows: &KeyRows) -> Result<()> {
    new.keys()?.follow(old.keys()?);
    let newest = Newest::going_on(new.config(), &[], root.path());
    new.keys_mut()?.apply(rows, &newest)
}

/// Removes the directories that the one with this generation has taken the places of.
fn forget_before(root: &PinRoot, present: u32) -> Result<()> {
    for directory in root.directories()? {
        // Without a generation, it was one from which somebody had removed pins.
        if directory.holds == Holds::Unfinished && generation(&directory.path) != Some(present) {
            forget(root, &directory.path)?;
        }
    }
    Ok(())
}
