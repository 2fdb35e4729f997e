//! Notices grants that end and grants given by hand, neither of which the kernel reports. What ended while no service ran
//! is found by the next one, from what this one has left.
//!
//! Grants end by themselves. This module also frees their slots, once their ends have been reported, so that knocks find free
//! slots and the filter has live grants alone. Without a service, knocks take the slots of grants that have ended.

mod notes;
mod reports;
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
use knock_common::event::Cause;

use self::{
    reports::{Given, close, end_each, opened},
    resume::{Moment, resume},
};
use super::{
    log::Log,
    memory::{Granted, Known, Lost, Memory, State, boot},
    record::Record,
};
use crate::{
    datapath::{Applied, Datapath, GrantRow, Who, keys::Holders},
    sys::clock::monotonic_now,
};

/// The grants as they were last seen.
pub struct Watch {
    known: Grants,
    /// How often the tables have been looked at.
    looks: u64,
    /// When they were last looked at, ns of `CLOCK_MONOTONIC`.
    looked: u64,
    memory: Memory,
    /// What was last written down.
    saved: Option<Saved>,
    /// The tables are gone, and every grant with them.
    is_gone: bool,
}

/// A gate and a source.
type Place = (u16, IpNet);

type Grants = HashMap<Place, Seen>;

/// A grant as it was last seen. Who has it is known by name, since a key may be gone when its grant ends.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// ns of `CLOCK_MONOTONIC`.
    until: u64,
    connections: u32,
    used: Used,
    begun: Begun,
    /// Its end was moved to before the time that it had, which a knock that closes does and reports.
    is_cut_short: bool,
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
            used: Used::No,
            begun: Begun::Said,
            is_cut_short: false,
            who: Arc::clone(holders.of(row.user)),
            look,
        }
    }

    fn given(&self, place: Place) -> Given {
        (self.until, place, Arc::clone(&self.who))
    }
}

/// Whether a grant admits no more connections. That closes its gate, though the grant is still in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Used {
    No,
    /// The tables say so, and the kernel's report may come yet: it is sent after the connection was counted, or left out.
    Found,
    /// It has been reported.
    Said,
}

/// Whether a grant by a knock or of another host was said to be given, or to be renewed until then. Those by hand are reported when
/// they are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    Said,
    /// A report has come since the last look.
    Noted,
    /// The tables say so since this time, ns of `CLOCK_MONOTONIC`, and a report may come yet. None does where the kernel has left
    /// it out, where a knock opens for two addresses, of which it reports the one, or where a service has ended before it said so.
    Found(u64),
}

/// What a look has found that is left to do.
#[must_use]
pub struct Found {
    /// Grants that were given and not reported.
    given: Vec<Given>,
    /// Slots of grants that have ended, and when these did.
    ended: Vec<(u32, u64)>,
}

/// What a state that was written down says, as far as it tells it from others.
#[derive(Debug, PartialEq)]
struct Saved {
    /// How many grants, and the sum of their hashes.
    grants: (usize, u64),
    closings: Vec<Record>,
    lost: Lost,
}

/// How long the kernel's report of a grant may take after the grant is in the tables, ns.
const GRACE: u64 = 1_000_000_000;

/// By how much the end of a grant that was learned from a report may be too early, ns: reports have whole microseconds of another
/// clock, which may be slowed down.
const ROUNDED: u64 = 1_000_000;

/// How long the end of a grant may go unnoticed.
const PAUSE: Duration = Duration::from_secs(1);

impl Watch {
    /// Begins with the grants that the last service has seen, and reports those that have ended since. Where it has left
    /// nothing, begins with the grants that there are, for which no event is made.
    pub fn new(datapath: &Datapath, memory: Memory, log: &mut Log) -> Result<Self> {
        let looked = monotonic_now();
        let Some(state) = memory.load() else {
            let mut known = seen(&datapath.grants()?, datapath);
            for (place, grant) in &mut known {
                if is_used(&datapath.applied, place.0, grant.connections) {
                    grant.used = Used::Said;
                }
            }
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
        if state.boot == boot() && state.lost.since == datapath.since {
            log.goes_on_from(state.lost.events);
        }
        let ended = seen(&datapath.ended_grants(state.looked)?, datapath);
        let (known, said) = resume(&state, &Moment::now(), &datapath.applied, ended);
        for (class, record) in said {
            log.say_within(class, record);
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
    /// The configuration must not be replaced meanwhile: the tables before it miss what the program after it gives.
    pub fn look(&mut self, datapath: &Datapath, log: &mut Log) -> Result<()> {
        self.note_all(log, &datapath.applied);
        let found = self.compare(datapath, log)?;
        self.settle(found, datapath, log)
    }

    /// Goes on with the tables of a configuration that has replaced another one. Reports the ends of grants, those of gates that are
    /// gone as well. What it returns is to be settled once the hooks are those of `next`.
    pub fn follow(&mut self, datapath: &Datapath, next: &Datapath, log: &mut Log) -> Result<Found> {
        let (before, after) = (&datapath.applied, &next.applied);
        // A report does not say which of the two has given the grant, so where they give it to different networks, the tables alone
        // tell which that is.
        let grant_to = |applied: &Applied, gate| applied.gate(gate).map(|gate| gate.grant_to);
        let is_alike = |gate| {
            let to = grant_to(after, gate);
            to.is_none() || to == grant_to(before, gate)
        };
        let said = self.note(log, before, is_alike);
        let has_gone = |gate: u16| before.gate_name(gate) != after.gate_name(gate);
        let gone = self.known.extract_if(|place, _| has_gone(place.0));
        end_each(gone.collect(), datapath, log);
        let found = self.compare(next, log)?;
        // Said once, for the one network or for the other.
        if !said.is_empty() {
            for ((gate, source), grant) in &mut self.known {
                let is_of_it =
                    |(of, to): &Place| of == gate && (to.contains(source) || source.contains(to));
                if matches!(grant.begun, Begun::Found(_)) && said.iter().any(is_of_it) {
                    grant.begun = Begun::Said;
                }
            }
        }
        Ok(found)
    }

    /// Reports what has changed in the tables, but for grants by hand that have not ended yet.
    fn compare(&mut self, datapath: &Datapath, log: &mut Log) -> Result<Found> {
        let looks = self.looks + 1;
        let now = monotonic_now();
        let applied = &datapath.applied;
        let mut holders = datapath.holders();
        let mut found = Found {
            given: Vec::new(),
            ended: Vec::new(),
        };
        let mut brief = Vec::new();
        let mut used = Vec::new();
        let mut unsaid = Vec::new();
        datapath.every_grant(|slot, row| {
            let place = (row.gate, row.source);
            if row.until <= now {
                found.ended.push((slot, row.until));
                // One by hand that was given and has ended between two looks, which no event tells of.
                let is_new = row.until > self.looked && !self.known.contains_key(&place);
                if row.user.is_none() && is_new {
                    let seen = Seen::of(&row, &mut holders, looks - 1);
                    self.known.insert(place, seen);
                    brief.push((row.until, place, Arc::default()));
                }
                return;
            }
            let mut seen = Seen::of(&row, &mut holders, looks);
            if row.user.is_some() {
                match self.known.get(&place) {
                    // CPUs that give it at the same moment may have put it into two slots.
                    Some(twin) if twin.look == looks => {
                        seen.begun = twin.begun;
                        seen.until = twin.until.max(row.until);
                    }
                    before => {
                        seen.begun = begun(before, row.until, now);
                        if matches!(seen.begun, Begun::Found(_)) {
                            unsaid.push(place);
                        }
                    }
                }
            }
            let before = self.known.insert(place, seen);
            // By a knock, it is the one before, or one whose beginning was noted.
            let before = before.filter(|before| row.user.is_some() || before.until == row.until);
            if row.user.is_none() && before.is_none() {
                found.given.push((row.until, place, Arc::default()));
            }
            if is_used(applied, row.gate, row.connections) {
                used.push((place, before.map_or(Used::No, |before| before.used)));
            }
        })?;
        self.looks = looks;
        self.looked = now;
        brief.retain(|(_, place, _)| self.known.get(place).is_some_and(|seen| seen.look != looks));
        opened(brief, datapath, log);
        for (place, before) in used {
            if let Some(grant) = self.known.get_mut(&place) {
                grant.used = match before {
                    Used::No => Used::Found,
                    Used::Found | Used::Said => Used::Said,
                };
                if before == Used::Found {
                    if matches!(grant.begun, Begun::Found(_)) {
                        grant.begun = Begun::Said;
                        opened(vec![grant.given(place)], datapath, log);
                    }
                    let (reason, time) = (Cause::Used.name(), Timestamp::now());
                    close(place, &grant.who, reason, time, datapath, log);
                }
            }
        }
        for place in unsaid {
            if let Some(grant) = self.known.get_mut(&place)
                && let Begun::Found(since) = grant.begun
                && now - since >= GRACE
            {
                grant.begun = Begun::Said;
                // After its end, a beginning would be one without an end.
                if grant.used != Used::Said {
                    found.given.push(grant.given(place));
                }
            }
        }
        let missing = self.known.extract_if(|_, grant| grant.look != looks);
        let mut ended: Vec<_> = missing.collect();
        if self.known.len() < self.known.capacity() / 4 {
            self.known.shrink_to_fit();
        }
        let now = monotonic_now();
        if ended.iter().any(|(_, grant)| grant.until > now) {
            // It was taken away, or another one by hand took its place and has ended.
            let short = seen(&datapath.ended_grants(0)?, datapath);
            let early = ended.extract_if(.., |(_, grant)| grant.until > now);
            for (place, mut grant) in early.collect::<Vec<_>>() {
                if let Some(short) = short.get(&place) {
                    grant.until = short.until;
                    grant.is_cut_short = grant.who.key.is_some() && grant.who == short.who;
                }
                if grant.is_cut_short {
                    // The kernel's report may come until the next look.
                    self.known.insert(place, grant);
                } else {
                    ended.push((place, grant));
                }
            }
        }
        end_each(ended, datapath, log);
        Ok(found)
    }

    /// Reports the grants that were given, writes down what is known, and frees the slots of grants that have ended.
    pub fn settle(&mut self, found: Found, datapath: &Datapath, log: &mut Log) -> Result<()> {
        opened(found.given, datapath, log);
        self.save(datapath, log);
        datapath.free_ended(&found.ended)
    }

    /// Reports the end of every grant: the tables are gone. What was given since the last look has been in no table that was read.
    pub fn end_all(&mut self, datapath: &Datapath, log: &mut Log) {
        self.note_all(log, &datapath.applied);
        end_each(self.known.drain().collect(), datapath, log);
        self.is_gone = true;
    }

    /// Writes down what is left to do for the next service, after the last event.
    pub fn finish(&mut self, datapath: &Datapath, log: &mut Log) {
        if self.is_gone && log.unfinished_closings().is_empty() {
            self.memory.forget();
        } else {
            if !self.is_gone {
                // What was said since the last look.
                self.note_all(log, &datapath.applied);
            }
            // Also where nothing is known but what was: what was given and has ended since, and was said, is not said once more.
            self.saved = None;
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
                let Seen {
                    until,
                    connections,
                    used,
                    begun,
                    is_cut_short: _,
                    who,
                    look: _,
                } = grant;
                let is_unsaid = matches!(begun, Begun::Found(_));
                (place, until, connections, used, is_unsaid, who).hash(&mut hasher);
                count += 1;
                sum = sum.wrapping_add(hasher.finish());
            }
        }
        let saved = Saved {
            grants: (count, sum),
            closings: log.unfinished_closings(),
            lost: Lost {
                since: datapath.since,
                events: log.lost(),
            },
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
                    is_closed: grant.used == Used::Said,
                    is_unsaid: matches!(grant.begun, Begun::Found(_)),
                });
            }
        }
        let Moment {
            boot,
            monotonic: looked,
            wall,
        } = Moment::now();
        let is_saved = self.memory.save(&State {
            boot,
            looked,
            wall,
            granted,
            grants,
            closings: saved.closings.clone(),
            lost: saved.lost,
        });
        // What could not be written is tried again.
        self.saved = is_saved.then_some(saved);
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

/// Returns what is known of the beginning of a live grant that was not given by hand here. `before`: what the last look has left of it.
fn begun(before: Option<&Seen>, until: u64, now: u64) -> Begun {
    let Some(before) = before else {
        return Begun::Found(now);
    };
    match before.begun {
        Begun::Said if before.until.saturating_add(ROUNDED) < until => Begun::Found(now),
        Begun::Found(since) => Begun::Found(since),
        Begun::Said | Begun::Noted => Begun::Said,
    }
}

/// Returns whether a grant of this gate, by the gate's id, admits no more connections after so many.
fn is_used(applied: &Applied, gate: u16, connections: u32) -> bool {
    let limit = applied.gate(gate).map_or(0, |gate| gate.connections);
    limit != 0 && connections >= limit
}

fn seen(rows: &[GrantRow], datapath: &Datapath) -> Grants {
    let mut holders = datapath.holders();
    let rows = rows.iter().map(|row| {
        let seen = Seen::of(row, &mut holders, 0);
        ((row.gate, row.source), seen)
    });
    rows.collect()
}
