//! Grants, which only time, `revoke`, their connections and a change of the configuration end.

use anyhow::{Result, bail};
use knock_common::{
    address::{V4, V6},
    grant::{
        Grant,
        table::{self, Details, Found},
    },
};

use crate::datapath::{edit::grant_table::GrantTable, open::Datapath};

/// Copies the live grants into tables that no program uses yet.
pub fn copy(old: &Datapath, new: &Datapath, now: u64) -> Result<()> {
    let live = live(old, now)?;
    let (count, room) = (live.len(), new.grants.len());
    if count > room as usize {
        bail!(
            "{count} grants are live, but limits.grants = {room}; revoke some, or raise the limit"
        );
    }
    put(new, &live, now)
}

/// Carries over the grants that were given or renewed since [`copy`].
pub fn follow(old: &Datapath, new: &Datapath, now: u64) -> Result<()> {
    put(new, &live(old, now)?, now)
}

/// Stores grants, but for those that are there and last as long: as copied, or renewed by the new program.
fn put(new: &Datapath, grants: &[Grant], now: u64) -> Result<()> {
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
        if let Some(key) = grant.key::<V4>() {
            new.store(&key, decide, take, now)?;
        } else if let Some(key) = grant.key::<V6>() {
            new.store(&key, decide, take, now)?;
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
