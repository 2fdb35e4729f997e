//! Grants, which only time, `revoke`, their users, their connections and a change of the configuration end.

use std::{cmp::Reverse, collections::HashMap};

use anyhow::{Result, bail};
use knock_common::{
    Address,
    address::{V4, V6},
    grant::{
        Grant, GrantKey,
        table::{self, Details, Found},
    },
};

use super::Room;
use crate::{
    config::count,
    datapath::{
        edit::{grant_table::GrantTable, grants::GrantsFull},
        open::Datapath,
    },
};

/// Grants as tables had them, by tag and address: what a key of either family consists of.
pub type Grants = HashMap<(u64, [u64; 2]), Grant>;

/// Copies the live grants into tables that no program uses yet; of too many, those that last longest. Returns them.
pub fn copy(old: &Datapath, new: &Datapath, now: u64, room: Room) -> Result<Grants> {
    let mut grants = all(old)?;
    grants.retain(|_, grant| grant.until > now);
    let (number, limit) = (grants.len(), new.grants.len());
    let mut live: Vec<&Grant> = grants.values().collect();
    if number > limit as usize {
        if room == Room::ForAll {
            bail!(
                "{number} grants are live, but limits.grants = {limit}; revoke some, or raise the limit"
            );
        }
        live.sort_unstable_by_key(|grant| Reverse(grant.until));
    }
    let rows = live.into_iter().map(|grant| Change {
        copied: None,
        last: Some(grant),
    });
    match put(new, rows, now)? {
        0 => {}
        // There may be too many for one of the sets.
        _ if room == Room::ForAll => return Err(GrantsFull(limit).into()),
        without_room => warn_of(without_room, limit),
    }
    Ok(grants)
}

/// Carries over what has become of grants since [`copy`], which has returned `copied`, as far as there is room.
pub fn follow(old: &Datapath, new: &Datapath, copied: &Grants, now: u64) -> Result<()> {
    let last = all(old)?;
    let changes = last.iter().map(|(key, last)| Change {
        copied: copied.get(key),
        last: Some(last),
    });
    let gone = copied.iter().filter(|(key, _)| !last.contains_key(*key));
    let gone = gone.map(|(_, copied)| Change {
        copied: Some(copied),
        last: None,
    });
    match put(new, changes.chain(gone), now)? {
        0 => {}
        without_room => warn_of(without_room, new.grants.len()),
    }
    Ok(())
}

fn warn_of(without_room: usize, limit: u32) {
    let grants = count(without_room, "grant");
    tracing::warn!("limits.grants = {limit} leaves no room for {grants}, not carried over");
}

/// A grant in the tables that are replaced.
#[derive(Debug, Clone, Copy)]
struct Change<'g> {
    /// As it was copied; `None`: it was not.
    copied: Option<&'g Grant>,
    /// As the old program has left it, live or not; `None`: there is none any more.
    last: Option<&'g Grant>,
}

/// A grant in the tables that take their place.
#[derive(Debug, Clone, Copy)]
struct Present {
    until: u64,
    connections: u32,
}

impl Change<'_> {
    /// Returns the end and the rest that a grant is to have, by what is there; `None`: it stays as it is. What the new program has
    /// done since the copy holds, whatever the old one has done. `now`: ns of `CLOCK_MONOTONIC`.
    fn outcome(&self, present: Option<Present>, now: u64) -> Option<(u64, Details)> {
        let live = self.last.filter(|last| last.until > now);
        let Some(copied) = self.copied.filter(|copied| copied.until > now) else {
            // Not copied, or over since. One that is there is the new program's, except for the copy.
            let is_newer = |present: Present| {
                let copied = self.copied.map(|copied| copied.until);
                copied != Some(present.until)
            };
            let last = live.filter(|_| !present.is_some_and(is_newer))?;
            return Some((last.until, details(last, last.connections)));
        };
        // There was no room for it, or the new program has ended or renewed it.
        let present = present.filter(|present| present.until == copied.until)?;
        let Some(last) = live else {
            let ended = self.last.map_or(now, |last| last.until);
            return Some((ended, details(copied, present.connections)));
        };
        let is_as_copied = last.until == copied.until
            && last.earned == copied.earned
            && last.connections == copied.connections;
        let since = present.connections.saturating_sub(copied.connections);
        let connections = last.connections.saturating_add(since);
        (!is_as_copied).then(|| (last.until, details(last, connections)))
    }
}

fn details(grant: &Grant, connections: u32) -> Details {
    Details {
        user: grant.earned.user(),
        port: grant.earned.port(),
        connections,
    }
}

/// Makes the new tables hold what has become of these grants. Returns for how many there was no room.
fn put<'g>(new: &Datapath, rows: impl Iterator<Item = Change<'g>>, now: u64) -> Result<usize> {
    // From the end: see `take_slot`. None is looked at twice, since each may have been taken.
    let mut slots = (0..new.grants.len()).rev();
    let mut without_room = 0;
    for row in rows {
        let Some(grant) = row.last.or(row.copied) else {
            continue;
        };
        let stored = if let Some(key) = grant.key::<V4>() {
            put_one(new, &row, &key, &mut slots, now)
        } else if let Some(key) = grant.key::<V6>() {
            put_one(new, &row, &key, &mut slots, now)
        } else {
            Ok(())
        };
        match stored {
            Err(error) if error.is::<GrantsFull>() => without_room += 1,
            stored => stored?,
        }
    }
    Ok(without_room)
}

fn put_one<A: Address>(
    new: &Datapath,
    row: &Change<'_>,
    key: &GrantKey<A>,
    slots: &mut impl Iterator<Item = u32>,
    now: u64,
) -> Result<()> {
    let decide = |found: Option<Found>, grants: &GrantTable| {
        let present = found.map(|found| Present {
            until: found.until,
            connections: grants.connections(found.slot),
        });
        row.outcome(present, now)
    };
    let take = |table: &GrantTable| slots.find(|slot| table::take(table, *slot, now));
    new.store(key, decide, take, now).map(drop)
}

/// Returns the grants, live or not. Of two with the same key, the one that lasts longer.
fn all(datapath: &Datapath) -> Result<Grants> {
    let mut grants = Grants::new();
    datapath.each_slot(|_, grant| {
        let lasts = grants.entry((grant.tag, grant.address)).or_insert(*grant);
        if lasts.until < grant.until {
            *lasts = *grant;
        }
    })?;
    Ok(grants)
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use knock_common::grant::Earned;

    use super::*;

    const NOW: u64 = 1000;

    fn grant(until: u64, connections: u32) -> Grant {
        Grant {
            until,
            connections,
            earned: Earned(7),
            ..Grant::zeroed()
        }
    }

    /// Each a grant by its end and its connections: as it was copied, as the old program has left it, as it is in the new tables,
    /// and as it is to be there.
    type Row = (&'static str, [Option<(u64, u32)>; 4]);

    const ROWS: [Row; 14] = [
        (
            "nothing has changed",
            [Some((2000, 1)), Some((2000, 1)), Some((2000, 1)), None],
        ),
        (
            "the old program has admitted a connection",
            [
                Some((2000, 0)),
                Some((2000, 1)),
                Some((2000, 0)),
                Some((2000, 1)),
            ],
        ),
        (
            "both have",
            [
                Some((2000, 1)),
                Some((2000, 3)),
                Some((2000, 2)),
                Some((2000, 4)),
            ],
        ),
        (
            "the new program has",
            [Some((2000, 1)), Some((2000, 1)), Some((2000, 2)), None],
        ),
        (
            "the old program has renewed it",
            [
                Some((2000, 3)),
                Some((2500, 1)),
                Some((2000, 3)),
                Some((2500, 1)),
            ],
        ),
        (
            "the new program has renewed it",
            [Some((2000, 3)), Some((2000, 4)), Some((2500, 0)), None],
        ),
        (
            "the old program has ended it",
            [
                Some((2000, 3)),
                Some((900, 3)),
                Some((2000, 3)),
                Some((900, 3)),
            ],
        ),
        (
            "it is gone from the old tables",
            [Some((2000, 3)), None, Some((2000, 3)), Some((NOW, 3))],
        ),
        (
            "the new program has ended it",
            [Some((2000, 3)), Some((2000, 3)), Some((900, 3)), None],
        ),
        (
            "the old program has renewed it, then the new one has ended it",
            [Some((2000, 3)), Some((2500, 0)), Some((900, 3)), None],
        ),
        (
            "there was no room for it, or another has its slot since the new program ended it",
            [Some((2000, 3)), Some((2500, 0)), None, None],
        ),
        (
            "it was given since the copy",
            [None, Some((2500, 1)), None, Some((2500, 1))],
        ),
        (
            "it was given since the copy, and then by the new program, which has ended it",
            [None, Some((2500, 1)), Some((900, 0)), None],
        ),
        (
            "the copy ended by itself, and the old program has given it again",
            [
                Some((950, 1)),
                Some((2500, 0)),
                Some((950, 1)),
                Some((2500, 0)),
            ],
        ),
    ];

    #[test]
    fn what_either_program_takes_away_stays_away() {
        for (what, row) in ROWS {
            let [copied, last, present, expected] = row;
            let [copied, last] =
                [copied, last].map(|grant| grant.map(|(until, used)| self::grant(until, used)));
            let change = Change {
                copied: copied.as_ref(),
                last: last.as_ref(),
            };
            let present = present.map(|(until, connections)| Present { until, connections });
            let outcome = change.outcome(present, NOW);
            let expected = expected.map(|(until, connections)| {
                let details = Details {
                    connections,
                    ..Details::new(7, 0)
                };
                (until, details)
            });
            assert_eq!(outcome, expected, "{what}");
        }
    }
}
