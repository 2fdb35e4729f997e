//! Notices grants that end and grants given by hand, neither of which the kernel reports. What ended while no service ran
//! is found by the next one, from what this one has left.
//!
//! Grants end by themselves. This module also frees their slots, once their ends have been reported, so that knocks find free
//! slots and the filter has live grants alone. Without a service, knocks take the slots of grants that have ended.

mod resume;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use ipnet::IpNet;
use jiff::Timestamp;
use knock_common::{event::Kind, report::class};

use self::resume::{Moment, resume};
use super::{
    log::Log,
    memory::{Granted, Known, Memory, State},
    names::{EXPIRED, REVOKED},
    record::{Record, network_text, wall_clock},
};
use crate::{
    datapath::{Datapath, GrantRow, Who, keys::Holders},
    sys::clock::monotonic_now,
};

/// The grants as they were last seen.
pub struct Watch {
    known: Grants,
    /// How often the tables were looked at.
    looks: u64,
    /// When they were last looked at, ns of `CLOCK_MONOTONIC`.
    looked: u64,
    memory: Memory,
    /// What was last written down.
    saved: Option<Saved>,
    /// The tables are gone, and every grant with them.
    is_gone: bool,
}

/// By gate and source.
type Grants = HashMap<(u16, IpNet), Seen>;

/// A grant as it was last seen. Who has it is known by name, since a key may be gone when its grant ends.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// ns of `CLOCK_MONOTONIC`.
    until: u64,
    connections: u32,
    /// Shared: there may be many grants, and few who have them.
    who: Arc<Who>,
    /// The last [look](Watch::looks) that found it in the tables.
    look: u64,
}

impl Seen {
    fn of(row: &GrantRow, holders: &mut Holders<'_>, look: u64) -> Self {
        Self {
            until: row.until,
            connections: row.connections,
            who: Arc::clone(holders.of(row.user)),
            look,
        }
    }
}

/// What a state that was written down says, as far as it tells it from others.
#[derive(Debug, PartialEq)]
struct Saved {
    /// How many grants, and the sum of their hashes.
    grants: (usize, u64),
    closings: Vec<Record>,
}

/// How long the end of a grant may go unnoticed.
const PAUSE: Duration = Duration::from_secs(1);

impl Watch {
    /// Begins with the grants that the last service has seen, and reports those that have ended since. Where it has left
    /// nothing, begins with the grants that there are, for which no event is made.
    pub fn new(datapath: &Datapath, memory: Memory, log: &mut Log) -> Result<Self> {
        let looked = monotonic_now();
        let Some(state) = memory.load() else {
            let known = seen(&datapath.grants()?, datapath);
            return Ok(Self {
                known,
                looks: 0,
                looked,
                memory,
                saved: None,
                is_gone: false,
            });
        };
        log.run_again(&state.closings);
        let ended = seen(&datapath.ended_grants(state.looked)?, datapath);
        let (known, closed) = resume(&state, &Moment::now(), &datapath.applied, ended);
        for closed in closed {
            log.say_within(class::CLOSINGS, closed);
        }
        Ok(Self {
            known,
            looks: 0,
            looked,
            memory,
            saved: None,
            is_gone: false,
        })
    }

    /// Compares the tables with what was seen last, reports what has changed, and frees the slots of grants that have ended.
    pub fn look(&mut self, datapath: &Datapath, log: &mut Log) -> Result<()> {
        for change in log.changes() {
            self.note(&change, datapath);
        }
        self.looks += 1;
        let looks = self.looks;
        let now = monotonic_now();
        let mut holders = datapath.holders();
        let mut by_hand = Vec::new();
        let mut brief = Vec::new();
        let mut slots = Vec::new();
        datapath.every_grant(|slot, row| {
            let place = (row.gate, row.source);
            if row.until <= now {
                slots.push((slot, row.until));
                // One by hand that was given and has ended between two looks, which no event tells of.
                let is_new = row.until > self.looked && !self.known.contains_key(&place);
                if row.user.is_none() && is_new {
                    let seen = Seen::of(&row, &mut holders, looks - 1);
                    self.known.insert(place, seen);
                    brief.push((row.until, place));
                }
                return;
            }
            let before = self
                .known
                .insert(place, Seen::of(&row, &mut holders, looks));
            if row.user.is_none() && before.is_none_or(|before| before.until != row.until) {
                by_hand.push((row.until, place));
            }
        })?;
        self.looked = now;
        brief.retain(|(_, place)| self.known.get(place).is_some_and(|seen| seen.look != looks));
        opened_by_hand(brief, datapath, log);
        let missing = self.known.extract_if(|_, grant| grant.look != looks);
        let mut ended: Vec<_> = missing.collect();
        if self.known.len() < self.known.capacity() / 4 {
            self.known.shrink_to_fit();
        }
        let now = monotonic_now();
        if ended.iter().any(|(_, grant)| grant.until > now) {
            // It was taken away, or another one by hand took its place and has ended.
            let short = seen(&datapath.ended_grants(0)?, datapath);
            for (place, grant) in ended.iter_mut().filter(|(_, grant)| grant.until > now) {
                grant.until = short.get(place).map_or(grant.until, |short| short.until);
            }
        }
        ended.sort_by_key(|(_, grant)| grant.until);
        for (place, grant) in &ended {
            end(*place, grant, datapath, log);
        }
        opened_by_hand(by_hand, datapath, log);
        self.save(datapath, log);
        datapath.free_ended(&slots)
    }

    /// Learns of a grant that was given, or of one whose end was reported: what is given and taken away between two looks is
    /// in no table.
    fn note(&mut self, change: &Record, datapath: &Datapath) {
        let applied = &datapath.applied;
        let place = change.gate.as_deref().and_then(|name| {
            let id = applied.ids.gate(name)?;
            let source = change.source.as_deref()?;
            let network = match source.parse() {
                Ok(address) => applied.gate(id)?.grant_to.network(address),
                Err(_) => source.parse().ok()?,
            };
            Some((id, network))
        });
        // A gate that is gone by now has no grants.
        let Some(place) = place else {
            return;
        };
        if change.event == Kind::Closed.name() {
            self.known.remove(&place);
        } else if let Some(until) = change.until {
            self.known.entry(place).or_insert_with(|| Seen {
                until: monotonic(until),
                connections: 0,
                who: Arc::new(Who {
                    user: change.user.clone(),
                    key: change.key.clone(),
                    origin: change.origin.clone(),
                }),
                look: self.looks,
            });
        }
    }

    /// Reports the end of every grant: the tables are gone.
    pub fn end_all(&mut self, datapath: &Datapath, log: &mut Log) {
        for (place, grant) in &self.known {
            end(*place, grant, datapath, log);
        }
        self.is_gone = true;
    }

    /// Writes down what is left to do for the next service, after the last event.
    pub fn finish(&mut self, datapath: &Datapath, log: &Log) {
        if self.is_gone {
            self.known.clear();
        }
        if self.is_gone && log.unfinished_closings().is_empty() {
            self.memory.forget();
        } else if self.saved.is_some() {
            self.save(datapath, log);
        }
    }

    /// Writes down what is known, where that has changed.
    fn save(&mut self, datapath: &Datapath, log: &Log) {
        let applied = &datapath.applied;
        let mut count = 0;
        let mut sum = 0_u64;
        for (place, grant) in &self.known {
            if applied.gate_name(place.0).is_some() {
                let mut hasher = DefaultHasher::new();
                (place, grant.until, grant.connections, &grant.who).hash(&mut hasher);
                count += 1;
                sum = sum.wrapping_add(hasher.finish());
            }
        }
        let saved = Saved {
            grants: (count, sum),
            closings: log.unfinished_closings(),
        };
        if self.saved.as_ref() == Some(&saved) {
            return;
        }
        let mut granted = Vec::new();
        let mut numbers = HashMap::new();
        let mut grants = Vec::with_capacity(count);
        for ((gate, source), grant) in &self.known {
            if let Some(name) = applied.gate_name(*gate) {
                let number = numbers.entry((gate, &*grant.who)).or_insert_with(|| {
                    granted.push(Granted {
                        gate: name.to_owned(),
                        who: Who::clone(&grant.who),
                    });
                    granted.len() - 1
                });
                grants.push(Known {
                    holder: *number,
                    source: *source,
                    until: grant.until,
                    connections: grant.connections,
                });
            }
        }
        let Moment {
            boot,
            monotonic: looked,
            wall,
        } = Moment::now();
        self.memory.save(&State {
            boot,
            looked,
            wall,
            granted,
            grants,
            closings: saved.closings.clone(),
        });
        self.saved = Some(saved);
    }

    /// Returns the time until the next look.
    pub fn pause(&self) -> Duration {
        let now = monotonic_now();
        let next_end = self
            .known
            .values()
            .map(|row| row.until.saturating_sub(now))
            .min();
        let until_then = next_end.map_or(PAUSE, Duration::from_nanos);
        until_then.clamp(Duration::from_millis(50), PAUSE)
    }
}

/// Reports grants that were given by hand: until when, and their gates and sources.
fn opened_by_hand(mut given: Vec<(u64, (u16, IpNet))>, datapath: &Datapath, log: &mut Log) {
    given.sort_unstable();
    for (until, place) in given {
        let opened = Record {
            until: Some(wall_clock(until)),
            ..about(place, &Who::default(), Kind::Opened, datapath)
        };
        log.say_within(class::OPENINGS, opened);
    }
}

/// Reports the end of a grant that is no longer live. `place`: its gate and source.
fn end(place: (u16, IpNet), grant: &Seen, datapath: &Datapath, log: &mut Log) {
    let now = monotonic_now();
    // Its last connection has closed it, which the kernel has reported.
    let gate = datapath.applied.gate(place.0);
    let limit = gate.map_or(0, |gate| gate.connections);
    if limit != 0 && grant.connections >= limit {
        return;
    }
    let (reason, time) = if grant.until <= now {
        (EXPIRED, wall_clock(grant.until))
    } else {
        (REVOKED, wall_clock(now))
    };
    let closed = Record {
        time,
        reason: Some(reason.into()),
        ..about(place, &grant.who, Kind::Closed, datapath)
    };
    log.say_within(class::CLOSINGS, closed);
}

/// Returns a time to come by `CLOCK_MONOTONIC`, ns.
fn monotonic(time: Timestamp) -> u64 {
    let from_now = time.duration_since(Timestamp::now()).as_nanos();
    monotonic_now().saturating_add(u64::try_from(from_now).unwrap_or(0))
}

fn about((gate, source): (u16, IpNet), who: &Who, event: Kind, datapath: &Datapath) -> Record {
    let Who { user, key, origin } = who.clone();
    Record {
        gate: datapath.applied.gate_name(gate).map(ToOwned::to_owned),
        user,
        key,
        origin,
        source: Some(network_text(source)),
        ..Record::now(event.name())
    }
}

fn seen(rows: &[GrantRow], datapath: &Datapath) -> Grants {
    let mut holders = datapath.holders();
    let rows = rows.iter().map(|row| {
        let seen = Seen::of(row, &mut holders, 0);
        ((row.gate, row.source), seen)
    });
    rows.collect()
}
