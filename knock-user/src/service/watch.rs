//! Notices grants that end and grants given by hand, neither of which the kernel reports. What ended while no service ran
//! is found by the next one, from what this one has left.

mod resume;

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{event::Kind, report::class};

use self::resume::{Moment, resume};
use super::{
    log::Log,
    memory::{Known, Memory, State, boot},
    names::{EXPIRED, REVOKED},
    record::{Record, network_text, wall_clock},
};
use crate::{
    datapath::{Datapath, GrantRow},
    sys::clock::monotonic_now,
};

/// The grants as they were last seen.
pub struct Watch {
    known: Grants,
    memory: Memory,
    /// As it was last written down.
    saved: Option<State>,
    /// The tables are gone, and every grant with them.
    is_gone: bool,
}

/// By gate and source.
type Grants = HashMap<(u16, IpNet), GrantRow>;

/// How long the end of a grant may go unnoticed.
const PAUSE: Duration = Duration::from_secs(1);

impl Watch {
    /// Begins with the grants that the last service has seen, and reports those that have ended since. Where it has left
    /// nothing, begins with the grants that there are, for which no event is made.
    pub fn new(datapath: &Datapath, memory: Memory, log: &mut Log) -> Result<Self> {
        let Some(state) = memory.load() else {
            let known = datapath.grants()?.into_iter().map(keyed).collect();
            return Ok(Self {
                known,
                memory,
                saved: None,
                is_gone: false,
            });
        };
        log.run_again(&state.closings);
        let ended = datapath.ended_grants(state.looked)?;
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
        let applied = &datapath.applied;
        let present: Grants = datapath.grants()?.into_iter().map(keyed).collect();
        let missing = self
            .known
            .iter()
            .filter(|(key, _)| !present.contains_key(*key));
        let mut ended: Vec<GrantRow> = missing.map(|(_, row)| row.clone()).collect();
        let now = monotonic_now();
        if ended.iter().any(|row| row.until > now) {
            // It was taken away, or another one by hand took its place and has ended.
            let short: Grants = datapath.ended_grants(0)?.into_iter().map(keyed).collect();
            for row in ended.iter_mut().filter(|row| row.until > now) {
                row.until = short
                    .get(&(row.gate, row.source))
                    .map_or(row.until, |short| short.until);
            }
        }
        ended.sort_by_key(|row| row.until);
        for row in &ended {
            end(row, datapath, log);
        }
        for (key, row) in &present {
            let before = self.known.get(key);
            if row.user.is_none() && before.is_none_or(|before| before.until != row.until) {
                let opened = Record {
                    until: Some(wall_clock(row.until)),
                    ..about(row, Kind::Opened, datapath)
                };
                log.say_within(class::OPENINGS, opened);
            }
        }
        self.known = present;
        let known = |row: &GrantRow| {
            Some(Known {
                gate: applied.gate_name(row.gate)?.to_owned(),
                user: row
                    .user
                    .and_then(|user| applied.user_name(user))
                    .map(ToOwned::to_owned),
                source: row.source,
                until: row.until,
                ends: wall_clock(row.until),
                connections: row.connections,
            })
        };
        self.save(self.known.values().filter_map(known).collect(), log);
        Ok(())
    }

    /// Reports the end of every grant: the tables are gone.
    pub fn end_all(&mut self, datapath: &Datapath, log: &mut Log) {
        for row in self.known.values() {
            end(row, datapath, log);
        }
        self.is_gone = true;
    }

    /// Writes down what is left to do for the next service, after the last event.
    pub fn finish(&mut self, log: &Log) {
        if self.is_gone && log.unfinished_closings().is_empty() {
            self.memory.forget();
        } else if let Some(saved) = &self.saved {
            let grants = if self.is_gone {
                Vec::new()
            } else {
                saved.grants.clone()
            };
            self.save(grants, log);
        }
    }

    fn save(&mut self, mut grants: Vec<Known>, log: &Log) {
        grants.sort_by(|one, other| (&one.gate, one.source).cmp(&(&other.gate, other.source)));
        let closings = log.unfinished_closings();
        // Not `ends`: by the wall clock the same end differs from look to look.
        let identity = |of: &Known| {
            (
                of.gate.clone(),
                of.user.clone(),
                of.source,
                of.until,
                of.connections,
            )
        };
        let is_as_saved = |saved: &State| {
            saved.closings == closings
                && saved
                    .grants
                    .iter()
                    .map(identity)
                    .eq(grants.iter().map(identity))
        };
        if self.saved.as_ref().is_some_and(is_as_saved) {
            return;
        }
        let state = State {
            boot: boot(),
            looked: monotonic_now(),
            grants,
            closings,
        };
        self.memory.save(&state);
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

/// Reports the end of a grant that is no longer live.
fn end(row: &GrantRow, datapath: &Datapath, log: &mut Log) {
    let now = monotonic_now();
    // Its last connection has closed it, which the kernel has reported.
    let gate = datapath.applied.gate(row.gate);
    let limit = gate.map_or(0, |gate| gate.connections);
    if limit != 0 && row.connections >= limit {
        return;
    }
    let (reason, time) = if row.until <= now {
        (EXPIRED, wall_clock(row.until))
    } else {
        (REVOKED, wall_clock(now))
    };
    let closed = Record {
        time,
        reason: Some(reason.into()),
        ..about(row, Kind::Closed, datapath)
    };
    log.say_within(class::CLOSINGS, closed);
}

fn about(row: &GrantRow, event: Kind, datapath: &Datapath) -> Record {
    let applied = &datapath.applied;
    let user = row.user.and_then(|user| applied.user_name(user));
    Record {
        gate: applied.gate_name(row.gate).map(ToOwned::to_owned),
        user: user.map(ToOwned::to_owned),
        source: Some(network_text(row.source)),
        ..Record::now(event.name())
    }
}

fn keyed(row: GrantRow) -> ((u16, IpNet), GrantRow) {
    ((row.gate, row.source), row)
}
