//! Grants, which only time, `revoke`, their connections and a change of the configuration end.

use std::cmp::Reverse;

use anyhow::{Result, bail};
use knock_common::{
    address::{V4, V6},
    grant::{
        Grant,
        table::{self, Details, Found},
    },
};

use super::Room;
use crate::datapath::{
    edit::{grant_table::GrantTable, grants::GrantsFull},
    open::Datapath,
};

/// Copies the live grants into tables that no program uses yet; of too many, those that last longest.
pub fn copy(old: &Datapath, new: &Datapath, now: u64, room: Room) -> Result<()> {
    let mut live = live(old, now)?;
    let (count, limit) = (live.len(), new.grants.len());
    if count > limit as usize {
        let grants = format!("{count} grants are live, but limits.grants = {limit}");
        match room {
            Room::ForAll => bail!("{grants}; revoke some, or raise the limit"),
            Room::ForSome => tracing::warn!("{grants}: the others end"),
        }
        live.sort_unstable_by_key(|grant| Reverse(grant.until));
    }
    put(new, &live, now, room)
}

/// Carries over the grants that were given or renewed since [`copy`].
pub fn follow(old: &Datapath, new: &Datapath, now: u64, room: Room) -> Result<()> {
    put(new, &live(old, now)?, now, room)
}

/// Stores grants, but for those that are there and last as long: as copied, or renewed by the new program.
fn put(new: &Datapath, grants: &[Grant], now: u64, room: Room) -> Result<()> {
    // From the end: see `take_slot`. None is looked at twice, since each may have been taken.
    let mut slots = (0..new.grants.len()).rev();
    for grant in grants {
        let decide = |present: Option<Found>| {
            let lasts = present.is_some_and(|present| present.until >= grant.until);
            let details = Details {
                user: grant.earned.user(),
                port: grant.earned.port(),
                connections: grant.connections,
            };
            (!lasts).then_some((grant.until, details))
        };
        let take = |table: &GrantTable| slots.find(|slot| table::take(table, *slot, now));
        let stored = if let Some(key) = grant.key::<V4>() {
            new.store(&key, decide, take, now).map(drop)
        } else if let Some(key) = grant.key::<V6>() {
            new.store(&key, decide, take, now).map(drop)
        } else {
            Ok(())
        };
        match stored {
            Err(error) if room == Room::ForSome && error.is::<GrantsFull>() => {}
            stored => stored?,
        }
    }
    Ok(())
}

fn live(datapath: &Datapath, now: u64) -> Result<Vec<Grant>> {
    let mut live = Vec::new();
    datapath.each_slot(|_, grant| {
        if grant.until > now {
            live.push(*grant);
        }
    })?;
    Ok(live)
}
