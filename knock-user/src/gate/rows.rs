//! What the kernel's tables say, as rows for people and scripts.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{
    Address, Reason,
    address::{Padded, V4, V6},
    grant::{BY_HAND, Grant, GrantKey},
    knock::Outcome,
    report::class,
    session::{Flow, Session},
    time::TICK_SHIFT,
};

use super::{
    batch,
    tables::{Gate, absent_as_none, data},
};
use crate::config::{Established, Protocol, connections};

/// A live grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRow {
    pub gate: u16,
    /// Index of the sequence that earned it; `None`: given by hand.
    pub sequence: Option<u32>,
    pub source: IpNet,
    /// ns of `CLOCK_MONOTONIC`.
    pub until: u64,
    /// New connections admitted so far.
    pub connections: u32,
}

/// A source that has begun to knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRow {
    pub source: IpAddr,
    pub step: u8,
    pub of: u8,
    /// Gates that its knocks may lead to.
    pub gates: Vec<u16>,
    /// Since its latest knock.
    pub age: Duration,
}

/// A flow that began under a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    pub gate: u16,
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub idle: Duration,
}

/// Packets of one reason, at one gate or none, over all CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketRow {
    pub reason: Reason,
    pub gate: Option<u16>,
    pub packets: u64,
    pub bytes: u64,
}

/// Knocks of one outcome at one gate, over all CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnockRow {
    pub gate: u16,
    pub outcome: Outcome,
    pub count: u64,
}

/// How full a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRow {
    pub name: &'static str,
    pub used: u64,
    pub capacity: u32,
}

/// ns of `CLOCK_MONOTONIC`, the clock of all tables.
pub fn monotonic_now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call fills the structure; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

impl Gate {
    /// Live grants, those that end first in front.
    pub fn grants(&self) -> Result<Vec<GrantRow>> {
        let now = monotonic_now();
        let mut rows = Vec::new();
        batch::for_each(
            data(&self.grants.v4),
            |key: &GrantKey<V4>, grant: &Grant| {
                rows.extend(grant_row(
                    key.address.into(),
                    key.length,
                    key.gate,
                    grant,
                    now,
                ));
            },
        )?;
        batch::for_each(
            data(&self.grants.v6),
            |key: &GrantKey<V6>, grant: &Grant| {
                rows.extend(grant_row(
                    key.address.into(),
                    key.length,
                    key.gate,
                    grant,
                    now,
                ));
            },
        )?;
        rows.sort_by_key(|row| (row.until, row.source));
        Ok(rows)
    }

    /// Sources with progress at some gate that they may knock at, the latest in front.
    pub fn sources(&self) -> Result<Vec<SourceRow>> {
        let now = monotonic_now();
        let reach = self.reach();
        let mut rows = Vec::new();
        for progress in self.progress.map()?.rows() {
            let Some(state) = self.automaton.states.get(progress.state as usize) else {
                continue;
            };
            let age = now.saturating_sub(progress.last());
            // A run older than any of its sequences may take leads nowhere.
            let too_old = age >> TICK_SHIFT > u64::from(state.within);
            if progress.state == 0 || progress.is_complete() || too_old {
                continue;
            }
            let source = padded_address(progress.address, progress.family() == 4);
            let gates: Vec<u16> = reach[progress.state as usize]
                .iter()
                .copied()
                .filter(|gate| self.may_knock(source, *gate))
                .collect();
            if !gates.is_empty() {
                rows.push(SourceRow {
                    source,
                    step: state.depth,
                    of: state.of,
                    gates,
                    age: Duration::from_nanos(age),
                });
            }
        }
        rows.sort_by_key(|row| (row.age, row.source));
        Ok(rows)
    }

    /// Flows that are remembered, the busiest in front.
    pub fn sessions(&self) -> Result<Vec<SessionRow>> {
        let now = monotonic_now();
        let mut rows = Vec::new();
        let mut closing = Vec::new();
        batch::for_each(
            data(&self.sessions.v4),
            |flow: &Flow<V4>, session: &Session| {
                let rows = if session.closing == 0 {
                    &mut rows
                } else {
                    &mut closing
                };
                rows.extend(self.session_row(flow, session, now));
            },
        )?;
        batch::for_each(
            data(&self.sessions.v6),
            |flow: &Flow<V6>, session: &Session| {
                let rows = if session.closing == 0 {
                    &mut rows
                } else {
                    &mut closing
                };
                rows.extend(self.session_row(flow, session, now));
            },
        )?;
        if !closing.is_empty() {
            // What the program will ask the host with the flow's next packet, should there be one.
            let open = connections()?;
            closing.retain(|row| open.contains(&(row.destination, row.source)));
            rows.append(&mut closing);
        }
        rows.sort_by_key(|row| (row.idle, row.source));
        Ok(rows)
    }

    /// Every packet counter: of no gate first, then gate by gate. Rows that say nothing are left out.
    pub fn packets(&self) -> Result<Vec<PacketRow>> {
        let mut rows = Vec::new();
        for index in 0..self.packets.len() {
            let (packets, bytes) = self
                .packets
                .get(&index, 0)?
                .iter()
                .fold((0, 0), |(packets, bytes), counter| {
                    (packets + counter.packets, bytes + counter.bytes)
                });
            let block = index as usize / Reason::COUNT;
            let reason = Reason::ALL[index as usize % Reason::COUNT];
            if packets != 0 {
                rows.push(PacketRow {
                    reason,
                    gate: block
                        .checked_sub(1)
                        .and_then(|gate| u16::try_from(gate).ok()),
                    packets,
                    bytes,
                });
            }
        }
        Ok(rows)
    }

    /// Every knock counter, gate by gate.
    pub fn knocks(&self) -> Result<Vec<KnockRow>> {
        let mut rows = Vec::new();
        for (gate, _) in (0_u16..).zip(&self.config.gates) {
            for outcome in Outcome::ALL {
                let count = self.knocks.get(&outcome.counter(gate), 0)?.iter().sum();
                rows.push(KnockRow {
                    gate,
                    outcome,
                    count,
                });
            }
        }
        Ok(rows)
    }

    /// Events that were left out since the gate came up.
    pub fn lost(&self) -> Result<u64> {
        let mut lost = 0;
        for class in 0..class::COUNT {
            let budgets = self.budget.get(&class, 0)?;
            lost += budgets.iter().map(|budget| budget.lost).sum::<u64>();
        }
        Ok(lost)
    }

    /// How full the tables are.
    pub fn tables(&self) -> Result<[TableRow; 3]> {
        let limits = self.config.limits;
        // There are more places than that where the limit is no power of two.
        let sources = self.progress.map()?.used().count() as u64;
        Ok([
            TableRow {
                name: "sources",
                used: sources.min(limits.sources.into()),
                capacity: limits.sources,
            },
            TableRow {
                name: "grants",
                used: self.grants()?.len() as u64,
                capacity: limits.grants,
            },
            TableRow {
                name: "sessions",
                used: self.sessions()?.len() as u64,
                capacity: limits.sessions,
            },
        ])
    }

    /// Takes away the grants and sessions of every source within `network`, at `gate` or at all.
    /// Returns how many of each.
    pub fn revoke(&mut self, network: IpNet, gate: Option<u16>) -> Result<(usize, usize)> {
        let at = |of: u16| gate.is_none_or(|gate| gate == of);
        let within = |address: IpAddr| network.contains(&address);
        let mut grants = 0;
        for row in self.grants()? {
            if at(row.gate) && network.contains(&row.source) {
                let removed = match row.source {
                    IpNet::V4(source) => {
                        let address = source.addr().into();
                        let key = GrantKey::new(address, source.prefix_len(), row.gate);
                        self.remove::<V4>(&key)?
                    }
                    IpNet::V6(source) => {
                        let address = source.addr().into();
                        let key = GrantKey::new(address, source.prefix_len(), row.gate);
                        self.remove::<V6>(&key)?
                    }
                };
                grants += usize::from(removed);
            }
        }
        let mut flows4 = Vec::new();
        let mut flows6 = Vec::new();
        batch::for_each(
            data(&self.sessions.v4),
            |flow: &Flow<V4>, session: &Session| {
                if at(session.gate) && within(flow.source.into()) {
                    flows4.push(*flow);
                }
            },
        )?;
        batch::for_each(
            data(&self.sessions.v6),
            |flow: &Flow<V6>, session: &Session| {
                if at(session.gate) && within(flow.source.into()) {
                    flows6.push(*flow);
                }
            },
        )?;
        let mut sessions = 0;
        for flow in &flows4 {
            sessions += usize::from(absent_as_none(self.sessions.v4.remove(flow))?.is_some());
        }
        for flow in &flows6 {
            sessions += usize::from(absent_as_none(self.sessions.v6.remove(flow))?.is_some());
        }
        Ok((grants, sessions))
    }

    /// The user of each sequence.
    pub fn users(&self) -> Vec<&str> {
        self.config
            .gates
            .iter()
            .flat_map(|gate| &gate.knocks)
            .map(|knock| knock.user.as_str())
            .collect()
    }

    /// Name of a gate.
    pub fn name_of(&self, gate: u16) -> Option<&str> {
        let gate = self.config.gates.get(usize::from(gate))?;
        Some(gate.name.as_str())
    }

    fn may_knock(&self, source: IpAddr, gate: u16) -> bool {
        self.config
            .gates
            .get(usize::from(gate))
            .is_some_and(|gate| {
                gate.sources.is_empty()
                    || gate.sources.iter().any(|network| network.contains(&source))
            })
    }

    /// For every state, the gates of the sequences that begin with it.
    fn reach(&self) -> Vec<Vec<u16>> {
        let mut reach = vec![Vec::new(); self.automaton.states.len()];
        let knocks = (0_u16..)
            .zip(&self.config.gates)
            .flat_map(|(gate, rules)| rules.knocks.iter().map(move |knock| (gate, knock)));
        for (gate, knock) in knocks {
            for state in self.automaton.path(&knock.sequence) {
                let gates: &mut Vec<u16> = &mut reach[state as usize];
                if gates.last() != Some(&gate) {
                    gates.push(gate);
                }
            }
        }
        reach
    }

    fn session_row<A: Address>(
        &self,
        flow: &Flow<A>,
        session: &Session,
        now: u64,
    ) -> Option<SessionRow> {
        let idle = Duration::from_nanos(session.idle(now));
        let gate = self.config.gates.get(usize::from(session.gate))?;
        // Where flows are cut they are remembered only to count them.
        let kept = gate.established == Established::Keep && idle < gate.session_idle;
        kept.then(|| SessionRow {
            gate: session.gate,
            protocol: if flow.protocol == u32::from(knock_common::frame::TCP) {
                Protocol::Tcp
            } else {
                Protocol::Udp
            },
            source: SocketAddr::new(flow.source.into(), flow.source_port),
            destination: SocketAddr::new(flow.destination.into(), flow.destination_port),
            idle,
        })
    }
}

fn grant_row(address: IpAddr, length: u8, gate: u16, grant: &Grant, now: u64) -> Option<GrantRow> {
    let source = IpNet::new(address, length).ok()?;
    (grant.until > now).then_some(GrantRow {
        gate,
        sequence: (grant.user != BY_HAND).then_some(grant.user),
        source,
        until: grant.until,
        connections: grant.connections,
    })
}

/// An address as the tables and events hold it.
pub fn padded_address(words: Padded, v4: bool) -> IpAddr {
    if v4 {
        V4::unpadded(words).into()
    } else {
        V6::unpadded(words).into()
    }
}
