//! Notices grants that end and grants given by hand, neither of which the kernel reports.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{event::Kind, report::class};

use super::{
    log::Log,
    record::{Record, wall_clock},
};
use crate::{
    datapath::{Datapath, GrantRow},
    sys::clock::monotonic_now,
};

/// The grants as they were last seen.
pub struct Watch {
    known: HashMap<(u16, IpNet), GrantRow>,
}

/// How long the end of a grant may go unnoticed.
const PAUSE: Duration = Duration::from_secs(1);

impl Watch {
    /// Begins with the grants that there are, for which no event is made.
    pub fn new(datapath: &Datapath) -> Result<Self> {
        let known = datapath.grants()?.into_iter().map(keyed).collect();
        Ok(Self { known })
    }

    /// Compares the tables with what was seen last, and reports what has changed.
    pub fn look(&mut self, datapath: &Datapath, log: &mut Log) -> Result<()> {
        let now = monotonic_now();
        let applied = &datapath.applied;
        let record = |row: &GrantRow, event: &str| Record {
            gate: applied.gate_name(row.gate).map(ToOwned::to_owned),
            user: row
                .user
                .and_then(|user| applied.user_name(user))
                .map(ToOwned::to_owned),
            source: Some(shown(row.source)),
            ..Record::now(event)
        };
        let present: HashMap<_, _> = datapath.grants()?.into_iter().map(keyed).collect();
        for (key, row) in &self.known {
            // Its last connection has closed it, which the kernel has reported.
            let limit = applied.gate(row.gate).map_or(0, |gate| gate.connections);
            if present.contains_key(key) || (limit != 0 && row.connections >= limit) {
                continue;
            }
            let (reason, time) = if row.until <= now {
                ("expired", wall_clock(row.until))
            } else {
                ("revoked", wall_clock(now))
            };
            let closed = Record {
                time,
                reason: Some(reason.into()),
                ..record(row, Kind::Closed.name())
            };
            log.say_within(class::CLOSINGS, closed);
        }
        for (key, row) in &present {
            let before = self.known.get(key);
            if row.user.is_none() && before.is_none_or(|before| before.until != row.until) {
                let opened = Record {
                    until: Some(wall_clock(row.until)),
                    ..record(row, Kind::Opened.name())
                };
                log.say_within(class::OPENINGS, opened);
            }
        }
        self.known = present;
        Ok(())
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

fn keyed(row: GrantRow) -> ((u16, IpNet), GrantRow) {
    ((row.gate, row.source), row)
}

/// Writes a whole address without its prefix length, as in the kernel's events.
fn shown(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}
