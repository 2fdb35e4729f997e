//! Carries over what tables hold when they are replaced by tables of another size, and ends what no longer applies.
//!
//! Tables that can stay are the same before and after, so nothing is carried. Of the others, a copy is made before the
//! program is replaced, and what the old program has added meanwhile follows afterwards.

mod counters;
mod grants;
mod outdated;
mod progress;
mod sessions;

use std::collections::HashSet;

use anyhow::Result;

use super::{open::Datapath, tables::Group};
use crate::sys::clock::monotonic_now;

/// For which grants the new tables must have room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    ForAll,
    /// As many as there is room for are enough.
    ForSome,
}

/// Copies, before the program is replaced, what the tables of `old` hold whose group is not in `lasting`. Fails where the
/// new tables have too little room for the grants.
pub fn before(
    old: &Datapath,
    new: &mut Datapath,
    lasting: &HashSet<Group>,
    room: Room,
) -> Result<()> {
    let now = monotonic_now();
    if !lasting.contains(&Group::Grants) {
        grants::copy(old, new, now, room)?;
    }
    if !lasting.contains(&Group::Sessions) {
        sessions::copy(old, new, now)?;
    }
    if !lasting.contains(&Group::Progress) {
        progress::copy(old, new, now)?;
    }
    if !lasting.contains(&Group::Counters) {
        counters::copy(old, new)?;
    }
    Ok(())
}

/// Carries over what was added since, when no packet is judged by the old program any more.
pub fn after(
    old: &Datapath,
    new: &mut Datapath,
    lasting: &HashSet<Group>,
    room: Room,
) -> Result<()> {
    let now = monotonic_now();
    if !lasting.contains(&Group::Grants) {
        grants::follow(old, new, now, room)?;
    }
    if !lasting.contains(&Group::Sessions) {
        sessions::follow(old, new, now)?;
    }
    if !lasting.contains(&Group::Counters) {
        counters::copy(old, new)?;
    }
    Ok(())
}
