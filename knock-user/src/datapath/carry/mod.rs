//! Carries over what tables hold when they are replaced by tables of another size, and ends what no longer applies.
//!
//! Tables that can stay are the same before and after, so nothing is carried. Of the others, a copy is made before the
//! program is replaced, and what the old program has added, changed or ended meanwhile follows afterwards.

mod counters;
mod grants;
mod outdated;
mod progress;
mod sessions;

use std::collections::HashSet;

use anyhow::Result;
use knock_common::session::Session;

use self::grants::Grants;
use super::{open::Datapath, tables::Group};
use crate::sys::clock::monotonic_now;

/// For which grants the new tables must have room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    ForAll,
    /// As many as there is room for are enough.
    ForSome,
}

/// What has been copied, to tell what becomes of it until the program is replaced.
pub struct Copied {
    grants: Grants,
    sessions: Vec<Session>,
}

/// Copies, before the program is replaced, what the tables of `old` hold whose group is not in `lasting`. Fails where the
/// new tables have too little room for the grants.
pub fn before(
    old: &Datapath,
    new: &mut Datapath,
    lasting: &HashSet<Group>,
    room: Room,
) -> Result<Copied> {
    let now = monotonic_now();
    let mut copied = Copied {
        grants: Grants::new(),
        sessions: Vec::new(),
    };
    if !lasting.contains(&Group::Grants) {
        copied.grants = grants::copy(old, new, now, room)?;
    }
    if !lasting.contains(&Group::Sessions) {
        copied.sessions = sessions::copy(old, new, now)?;
    }
    if !lasting.contains(&Group::Progress) {
        progress::copy(old, new, now)?;
    }
    if !lasting.contains(&Group::Counters) {
        counters::copy(old, new)?;
    }
    Ok(copied)
}

/// Carries over what the old program has changed since, when it judges no packet any more. The new configuration is in force
/// then, so what there is no room for ends.
pub fn after(
    old: &Datapath,
    new: &mut Datapath,
    lasting: &HashSet<Group>,
    copied: &Copied,
) -> Result<()> {
    let now = monotonic_now();
    if !lasting.contains(&Group::Counters) {
        counters::copy(old, new)?;
    }
    if !lasting.contains(&Group::Grants) {
        grants::follow(old, new, &copied.grants, now)?;
    }
    if !lasting.contains(&Group::Sessions) {
        sessions::follow(old, new, &copied.sessions, now)?;
    }
    Ok(())
}
