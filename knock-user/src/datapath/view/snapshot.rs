//! The datapath at one moment, with names in place of ids: what commands print.
//!
//! [`Status`] serialises to the document of `status --json`, [`Counters`] to that of `stats --json`; [`Grants`],
//! [`Sources`] and [`Sessions`] to those of the commands of these names.

use std::time::Duration;

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{Reason, knock::fwknop};
use serde::Serialize;

use super::{
    chain::{CalledBy, Next},
    destinations::Destinations,
};
use crate::{
    config::Mode,
    datapath::{
        install::attachment::Attachment,
        keys::Who,
        open::Datapath,
        trial::{self, TrialState},
    },
    sys::clock::monotonic_now,
    values::{Port, Protocol},
};

/// Everything that is shown of a datapath.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    #[serde(flatten)]
    pub status: Status,
    #[serde(flatten)]
    pub counters: Counters,
    /// Events that the program has left out since it came up.
    #[serde(skip)]
    pub events_lost: u64,
    /// The tag of the program in the kernel, as bpftool shows it; `None` where no program is pinned.
    #[serde(skip)]
    pub program_tag: Option<String>,
}

/// The mode of an interface whose trial has ended: every packet passes.
pub const LAPSED: &str = "lapsed";

/// Interfaces, gates, and how full the tables are.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub interfaces: Vec<Interface>,
    pub gates: Vec<GateStatus>,
    pub tables: Vec<TableFill>,
    #[serde(flatten)]
    pub guarded: Destinations,
    /// Why packets may pass without a knock, or not come to another program, though each program is in its place.
    pub warnings: Vec<String>,
    /// Since it came up.
    #[serde(skip)]
    pub up_for: Duration,
    /// The interfaces as they were read.
    #[serde(skip)]
    pub attachments: Vec<Attachment>,
}

/// A configured interface, or one that is guarded under another name.
#[derive(Debug, Clone, Serialize)]
pub struct Interface {
    pub name: String,
    /// `None` where there is no such interface.
    pub index: Option<u32>,
    /// `native` or `generic`; `None` where it is not guarded, or nothing on the interface calls it.
    pub attach: Option<&'static str>,
    /// `enforce` or `monitor`.
    pub mode: &'static str,
    pub try_left_ms: Option<u64>,
    pub guarded: bool,
    /// Its name in the configuration, where it has another one now.
    pub renamed_from: Option<String>,
    /// The slot of another's array by which the program is called; `None` where it is attached itself.
    pub into: Option<CalledBy>,
    /// What gets the packets that pass; `None`: the host.
    pub next: Option<Next>,
}

/// A gate.
#[derive(Debug, Clone, Serialize)]
pub struct GateStatus {
    pub name: String,
    pub protect: Vec<Port>,
    /// Its own destinations; empty: those that are guarded.
    pub protect_at: Vec<IpNet>,
    /// Live grants.
    pub grants: u64,
}

/// How full a table is, in entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TableFill {
    /// The name of its limit in the configuration.
    pub name: &'static str,
    pub used: u64,
    pub capacity: u32,
}

/// What has been counted since it came up, over all CPUs.
#[derive(Debug, Clone, Serialize)]
pub struct Counters {
    pub packets: Vec<Packets>,
    pub knocks: Vec<Knocks>,
    pub authenticated: Vec<Authenticated>,
    /// Packets of fwknop's clients. Empty where the configuration has no keys for them.
    pub fwknop: Vec<FwknopPackets>,
}

/// What looked like packets of fwknop's, of one outcome.
#[derive(Debug, Clone, Serialize)]
pub struct FwknopPackets {
    pub outcome: &'static str,
    pub count: u64,
}

/// Packets of one reason, at one gate or none.
#[derive(Debug, Clone, Serialize)]
pub struct Packets {
    /// `pass` or `deny`.
    pub verdict: &'static str,
    pub reason: &'static str,
    pub gate: Option<String>,
    pub packets: u64,
    pub bytes: u64,
}

/// Knocks of one result at one gate.
#[derive(Debug, Clone, Serialize)]
pub struct Knocks {
    pub gate: String,
    pub result: &'static str,
    pub count: u64,
}

/// What became of datagrams to ports for authenticated knocks.
#[derive(Debug, Clone, Serialize)]
pub struct Authenticated {
    pub outcome: &'static str,
    pub count: u64,
}

/// The live grants, those that end first in front.
#[derive(Debug, Clone, Serialize)]
pub struct Grants {
    pub grants: Vec<Grant>,
}

/// A live grant.
#[derive(Debug, Clone, Serialize)]
pub struct Grant {
    pub gate: String,
    /// `None`: given by hand.
    pub user: Option<String>,
    /// The key that earned it; null: a sequence, or `allow`.
    pub key: Option<String>,
    /// The host of the fleet that gave it; null: this one.
    pub origin: Option<String>,
    /// A network, with its prefix length.
    pub source: String,
    pub expires_in_ms: u64,
    /// New connections admitted so far.
    pub connections: u32,
}

/// The sources part-way through a sequence, the latest in front.
#[derive(Debug, Clone, Serialize)]
pub struct Sources {
    pub sources: Vec<Source>,
}

/// A source part-way through a sequence.
#[derive(Debug, Clone, Serialize)]
pub struct Source {
    pub source: String,
    /// Knocks counted so far ...
    pub step: u8,
    /// ... of how many.
    pub of: u8,
    /// The gates that its knocks may lead to.
    pub gates: Vec<String>,
    /// Since its latest knock.
    pub age_ms: u64,
}

/// The flows that began under a grant, the busiest in front.
#[derive(Debug, Clone, Serialize)]
pub struct Sessions {
    pub sessions: Vec<Session>,
}

/// A flow that began under a grant.
#[derive(Debug, Clone, Serialize)]
pub struct Session {
    pub gate: String,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Address and port.
    pub source: String,
    pub destination: String,
    /// Since its last packet.
    pub idle_ms: u64,
}

impl Datapath {
    /// Reads everything that is shown.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot {
            status: self.status()?,
            counters: self.counters()?,
            events_lost: self.lost()?,
            program_tag: self.program_tag()?,
        })
    }

    /// Reads the state of the interfaces; the rows are in the same order.
    pub fn interfaces(&self) -> Result<(Vec<Interface>, Vec<Attachment>)> {
        let attachments = self.attachments()?;
        let trial = self.trial()?;
        let mode = match (trial, self.config().mode) {
            (TrialState::Left(_), _) => "try",
            (TrialState::Lapsed, _) => "lapsed",
            (TrialState::None, Mode::Enforce) => "enforce",
            (TrialState::None, Mode::Monitor) => "monitor",
        };
        let try_left_ms = match trial {
            TrialState::Left(left) => Some(milliseconds(left)),
            TrialState::Lapsed | TrialState::None => None,
        };
        let into = self.into()?;
        let mut interfaces = Vec::new();
        for attachment in &attachments {
            let attached = attachment.state.as_ref().ok();
            interfaces.push(Interface {
                name: attachment.name.clone(),
                index: attachment.index,
                attach: attached.map(|attached| attached.name()),
                mode,
                try_left_ms,
                guarded: attachment.is_guarded(),
                renamed_from: attachment.renamed_from().map(ToOwned::to_owned),
                into: into.clone(),
                next: self.next(&attachment.configured)?.map(Next::from),
            });
        }
        Ok((interfaces, attachments))
    }

    /// Returns the time since it came up.
    pub fn up_for(&self) -> Duration {
        Duration::from_nanos(monotonic_now().saturating_sub(self.since))
    }

    /// Reads the state of interfaces, gates and tables.
    pub fn status(&self) -> Result<Status> {
        let (interfaces, attachments) = self.interfaces()?;
        let grants = self.count_grants()?;
        let gates = self.applied.gates().map(|(id, gate)| GateStatus {
            name: gate.name.clone(),
            protect: gate.protect.clone(),
            protect_at: gate.protect_at.clone(),
            grants: grants.at(id),
        });
        let mut warnings = self.in_the_way()?;
        if self.trial()? == TrialState::Lapsed {
            warnings.insert(0, trial::LAPSED.to_owned());
        }
        let limits = self.config().limits;
        // There are more places than that where the limit is no power of two.
        let sources = self.progress.map()?.used().count() as u64;
        let tables = [
            (
                "sources",
                sources.min(limits.sources.into()),
                limits.sources,
            ),
            ("grants", grants.all(), limits.grants),
            ("sessions", self.count_sessions()?, limits.sessions),
        ];
        Ok(Status {
            interfaces,
            gates: gates.collect(),
            tables: tables
                .into_iter()
                .map(|(name, used, capacity)| TableFill {
                    name,
                    used,
                    capacity,
                })
                .collect(),
            guarded: self.destinations()?,
            warnings,
            up_for: self.up_for(),
            attachments,
        })
    }

    /// Reads the live grants.
    pub fn named_grants(&self) -> Result<Grants> {
        let rows = self.grants()?;
        let now = monotonic_now();
        let mut holders = self.holders();
        let grants = rows.into_iter().map(|row| {
            let Who { user, key, origin } = Who::clone(holders.of(row.user));
            Grant {
                gate: self.name(row.gate),
                user,
                key,
                origin,
                source: row.source.to_string(),
                // Rounded up, so that a live grant never has 0 left.
                expires_in_ms: row.until.saturating_sub(now).div_ceil(1_000_000),
                connections: row.connections,
            }
        });
        Ok(Grants {
            grants: grants.collect(),
        })
    }

    /// Reads the sources part-way through a sequence.
    pub fn named_sources(&self) -> Result<Sources> {
        let rows = self.sources()?.into_iter();
        let sources = rows.map(|row| Source {
            source: row.source.to_string(),
            step: row.step,
            of: row.of,
            gates: row.gates.iter().map(|gate| self.name(*gate)).collect(),
            age_ms: milliseconds(row.age),
        });
        Ok(Sources {
            sources: sources.collect(),
        })
    }

    /// Reads the flows that began under a grant.
    pub fn named_sessions(&self) -> Result<Sessions> {
        let rows = self.sessions()?.into_iter();
        let sessions = rows.map(|row| Session {
            gate: self.name(row.gate),
            protocol: match row.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            },
            source: row.source.to_string(),
            destination: row.destination.to_string(),
            idle_ms: milliseconds(row.idle),
        });
        Ok(Sessions {
            sessions: sessions.collect(),
        })
    }

    fn name(&self, gate: u16) -> String {
        self.applied.gate_name(gate).unwrap_or_default().to_owned()
    }

    /// Reads the counters.
    pub fn counters(&self) -> Result<Counters> {
        let packets = self.packets()?.into_iter().map(|row| Packets {
            verdict: verdict(row.reason),
            reason: row.reason.name(),
            gate: row.gate.map(|gate| self.name(gate)),
            packets: row.packets,
            bytes: row.bytes,
        });
        let knocks = self.knocks()?.into_iter().map(|row| Knocks {
            gate: self.name(row.gate),
            result: row.outcome.name(),
            count: row.count,
        });
        let authenticated = self.authenticated()?.into_iter();
        let authenticated = authenticated.map(|(outcome, count)| Authenticated {
            outcome: outcome.name(),
            count,
        });
        let mut of_fwknop = Vec::new();
        if self.config().has_fwknop() {
            let counts = fwknop::Outcome::ALL.iter().zip(self.fwknop_counts()?);
            of_fwknop.extend(counts.map(|(outcome, count)| FwknopPackets {
                outcome: outcome.name(),
                count,
            }));
        }
        Ok(Counters {
            packets: packets.collect(),
            knocks: knocks.collect(),
            authenticated: authenticated.collect(),
            fwknop: of_fwknop,
        })
    }
}

/// Returns `pass` or `deny`.
pub fn verdict(reason: Reason) -> &'static str {
    if reason.passes() { "pass" } else { "deny" }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Counters {
    /// Returns the number of packets that passed, and of those that were denied.
    pub fn totals(&self) -> (u64, u64) {
        self.packets
            .iter()
            .fold((0, 0), |(passed, denied), row| match row.verdict {
                "pass" => (passed + row.packets, denied),
                _ => (passed, denied + row.packets),
            })
    }
}

#[cfg(test)]
mod tests;
