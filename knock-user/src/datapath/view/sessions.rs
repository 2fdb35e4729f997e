//! Flows that began under a grant.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use knock_common::{
    Address,
    address::{V4, V6},
    frame,
    session::{Flow, SLOT_SHIFT, Session, SessionSlot, state},
};

use crate::{
    config::{Established, connections},
    datapath::{edit::sessions::slot_time, open::Datapath, tables::data},
    sys::{
        bpf::{batch, mapping::Mapping},
        clock::monotonic_now,
    },
    values::Protocol,
};

/// A flow that began under a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Id of the gate.
    pub gate: u16,
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub idle: Duration,
}

impl Datapath {
    /// Returns the sessions, the busiest in front.
    pub fn sessions(&self) -> Result<Vec<SessionRow>> {
        let now = monotonic_now();
        let mut open = Vec::new();
        let mut closing = Vec::new();
        let mut each = |is_closing: bool, row: SessionRow| {
            let rows = if is_closing { &mut closing } else { &mut open };
            rows.push(row);
        };
        self.read_sessions(&self.sessions.v4, now, |flow, session| {
            each(session.closing != 0, row(flow, session, now));
        })?;
        self.read_sessions(&self.sessions.v6, now, |flow, session| {
            each(session.closing != 0, row(flow, session, now));
        })?;
        open.extend(connected(closing)?);
        open.sort_by_key(|row| (row.idle, row.source));
        Ok(open)
    }

    /// Counts the sessions, in a fraction of the time that [`Datapath::sessions`] takes.
    pub fn count_sessions(&self) -> Result<u64> {
        let now = slot_time(monotonic_now());
        let mut open = 0;
        let mut closing = Vec::new();
        for slot in Mapping::of(&self.session_slots)?.iter() {
            if slot.family == 0 || slot.state == state::ENDED {
                continue;
            }
            // Less than the unit more than it says.
            let idle = u64::from(now.saturating_sub(slot.last)).saturating_sub(1) << SLOT_SHIFT;
            if !self.is_kept(slot.gate, Duration::from_nanos(idle)) {
                continue;
            }
            if slot.state == state::OPEN {
                open += 1;
            } else {
                closing.push(ends(&slot));
            }
        }
        if !closing.is_empty() {
            let connected = connections()?;
            closing.retain(|(source, destination)| connected.contains(&(*destination, *source)));
        }
        Ok(open + closing.len() as u64)
    }

    /// Returns whether a flow at a gate goes on past its grant.
    fn is_kept(&self, gate: u16, idle: Duration) -> bool {
        self.applied.gate(gate).is_some_and(|gate| {
            // Where flows are cut, they are remembered only to count connections.
            gate.established == Established::Keep && idle < gate.session_idle
        })
    }

    /// Calls `each` with every flow that goes on past its grant.
    fn read_sessions<A: Address>(
        &self,
        table: &HashMap<MapData, Flow<A>, Session>,
        now: u64,
        mut each: impl FnMut(&Flow<A>, &Session),
    ) -> Result<()>
    where
        Flow<A>: Pod,
    {
        batch::for_each(data(table), |flow: &Flow<A>, session: &Session| {
            if self.is_kept(session.gate, Duration::from_nanos(session.idle(now))) {
                each(flow, session);
            }
        })
    }
}

/// Keeps the rows of which the host has a socket. The program would ask the host the same with the flow's next packet.
fn connected(mut closing: Vec<SessionRow>) -> Result<Vec<SessionRow>> {
    if !closing.is_empty() {
        let connected = connections()?;
        closing.retain(|row| connected.contains(&(row.destination, row.source)));
    }
    Ok(closing)
}

/// Returns source and destination of a slot's flow.
fn ends(slot: &SessionSlot) -> (SocketAddr, SocketAddr) {
    let address = |padded| -> IpAddr {
        if slot.family == V4::FAMILY {
            V4::unpadded(padded).into()
        } else {
            V6::unpadded(padded).into()
        }
    };
    (
        SocketAddr::new(address(slot.source), slot.source_port),
        SocketAddr::new(address(slot.destination), slot.destination_port),
    )
}

fn row<A: Address>(flow: &Flow<A>, session: &Session, now: u64) -> SessionRow {
    SessionRow {
        gate: session.gate,
        protocol: if flow.protocol == u32::from(frame::TCP) {
            Protocol::Tcp
        } else {
            Protocol::Udp
        },
        source: SocketAddr::new(flow.source.into(), flow.source_port),
        destination: SocketAddr::new(flow.destination.into(), flow.destination_port),
        idle: Duration::from_nanos(session.idle(now)),
    }
}
