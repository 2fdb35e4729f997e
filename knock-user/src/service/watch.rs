//! Notices grants that end and grants given by hand, neither of which the kernel reports. What ended while no service ran
//! is found by the next one, from what this one has left.

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
    memory::{Memory, ToKnow, ToSave, boot},
    names::{EXPIRED, REVOKED},
    record::{Record, network_text, wall_clock},
};
use crate::{
    datapath::{Datapath, GrantRow, Who},
    sys::clock::monotonic_now,
};

/// The grants as they were last seen.
pub struct Watch {
    known: Grants,
    memory: Memory,
    /// What was last written down.
    saved: Option<Saved>,
    /// The tables are gone, and every grant with them.
    is_gone: bool,
}

/// By gate and source.
type Grants = HashMap<(u16, IpNet), Seen>;

/// A grant as it was last seen. Who has it is known by name, since a key may be gone when its grant ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    /// ns of `CLOCK_MONOTONIC`.
    until: u64,
    connections: u32,
    /// Shared: there may be many grants, and few who have them.
    who: Arc<Who>,
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
        let Some(state) = memory.load() else {
            let known = seen(&datapath.grants()?, datapath);
            return Ok(Self {
                known,
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
            memory,
            saved: None,
            is_gone: false,
        })
    }

    /// Compares the tables with what was seen last, and reports what has changed.
    pub fn look(&mut self, datapath: &Datapath, log: &mut Log) -> Result<()> {
        for change in log.changes() {
            self.note(&change, datapath);
        }
        let rows = datapath.grants()?;
        let present = seen(&rows, datapath);
        let missing = self.known.iter();
        let missing = missing.filter(|(place, _)| !present.contains_key(*place));
        let mut ended: Vec<_> = missing
            .map(|(place, seen)| (*place, seen.clone()))
            .collect();
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
        for row in rows.iter().filter(|row| row.user.is_none()) {
            let place = (row.gate, row.source);
            let before = self.known.get(&place);
            if before.is_none_or(|before| before.until != row.until) {
                let opened = Record {
                    until: Some(wall_clock(row.until)),
                    ..about(place, &Who::default(), Kind::Opened, datapath)
                };
                log.say_within(class::OPENINGS, opened);
            }
        }
        self.known = present;
        self.save(datapath, log);
        Ok(())
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
        for ((gate, source), grant) in &self.known {
            if let Some(gate) = applied.gate_name(*gate) {
                let mut hasher = DefaultHasher::new();
                (gate, source, grant).hash(&mut hasher);
                count += 1;
                sum = sum.wrapping_add(hasher.finish());
            }
        }
        let state = Saved {
            grants: (count, sum),
            closings: log.unfinished_closings(),
        };
        if self.saved.as_ref() == Some(&state) {
            return;
        }
        let grants = self.known.iter();
        let mut grants: Vec<_> = grants
            .filter_map(|((gate, source), grant)| {
                Some(ToKnow {
                    gate: applied.gate_name(*gate)?,
                    user: grant.who.user.as_deref(),
                    key: grant.who.key.as_deref(),
                    origin: grant.who.origin.as_deref(),
                    source: *source,
                    until: grant.until,
                    ends: wall_clock(grant.until),
                    connections: grant.connections,
                })
            })
            .collect();
        grants.sort_by_key(|grant| (grant.gate, grant.source));
        self.memory.save(&ToSave {
            boot: &boot(),
            looked: monotonic_now(),
            grants,
            closings: &state.closings,
        });
        self.saved = Some(state);
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
        let seen = Seen {
            until: row.until,
            connections: row.connections,
            who: Arc::clone(holders.of(row.user)),
        };
        ((row.gate, row.source), seen)
    });
    rows.collect()
}
