//! Notices grants that end, and those given by hand: the kernel does both without a word.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::report::class;

use super::{Record, log::Log, record::wall_clock};
use crate::gate::{Gate, GrantRow, monotonic_now};

/// The grants as they were last seen.
pub struct Watch {
    known: HashMap<(u16, IpNet), GrantRow>,
}

/// How long an end may go unnoticed.
const PAUSE: Duration = Duration::from_secs(1);

impl Watch {
    /// What there is already makes no event.
    pub fn new(gate: &Gate) -> Result<Self> {
        let known = gate.grants()?.into_iter().map(keyed).collect();
        Ok(Self { known })
    }

    /// Compares the table with what was seen last.
    pub fn look(&mut self, gate: &Gate, log: &mut Log) -> Result<()> {
        let now = monotonic_now();
        let users = gate.users();
        let record = |row: &GrantRow, event: &str| Record {
            gate: gate.name_of(row.gate).map(ToOwned::to_owned),
            user: row
                .sequence
                .and_then(|sequence| users.get(sequence as usize))
                .map(ToString::to_string),
            source: Some(shown(row.source)),
            ..Record::now(event)
        };
        let present: HashMap<_, _> = gate.grants()?.into_iter().map(keyed).collect();
        for (key, row) in &self.known {
            // Its last connection closed it already, and the kernel said so.
            let limit = gate.config.gates[usize::from(row.gate)].connections;
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
                ..record(row, "gate.closed")
            };
            log.say_within(class::CLOSINGS, closed);
        }
        for (key, row) in &present {
            let before = self.known.get(key);
            if row.sequence.is_none() && before.is_none_or(|before| before.until != row.until) {
                let opened = Record {
                    until: Some(wall_clock(row.until)),
                    ..record(row, "gate.opened")
                };
                log.say_within(class::OPENINGS, opened);
            }
        }
        self.known = present;
        Ok(())
    }

    /// Until the next look.
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

/// A whole address without its length, as in the kernel's events.
fn shown(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}
