//! Flows that began under a grant.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use knock_common::{
    Address, frame,
    session::{Flow, Session},
};

use crate::{
    config::{Established, Protocol, connections},
    datapath::{open::Datapath, tables::data},
    sys::{bpf::batch, clock::monotonic_now},
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

/// Rows, and those of flows that may be over: a FIN or RST has come.
#[derive(Default)]
struct Rows {
    open: Vec<SessionRow>,
    closing: Vec<SessionRow>,
}

impl Datapath {
    /// Returns the sessions, the busiest in front.
    pub fn sessions(&self) -> Result<Vec<SessionRow>> {
        let now = monotonic_now();
        let mut rows = Rows::default();
        self.read_sessions(&self.sessions.v4, now, &mut rows)?;
        self.read_sessions(&self.sessions.v6, now, &mut rows)?;
        let Rows { mut open, closing } = rows;
        if !closing.is_empty() {
            // The program would ask the host the same with the flow's next packet.
            let connected = connections()?;
            let closing = closing.into_iter();
            open.extend(closing.filter(|row| connected.contains(&(row.destination, row.source))));
        }
        open.sort_by_key(|row| (row.idle, row.source));
        Ok(open)
    }

    fn read_sessions<A: Address>(
        &self,
        table: &HashMap<MapData, Flow<A>, Session>,
        now: u64,
        rows: &mut Rows,
    ) -> Result<()>
    where
        Flow<A>: Pod,
    {
        batch::for_each(data(table), |flow: &Flow<A>, session: &Session| {
            let row = self.session_row(flow, session, now);
            if session.closing == 0 {
                rows.open.extend(row);
            } else {
                rows.closing.extend(row);
            }
        })
    }

    fn session_row<A: Address>(
        &self,
        flow: &Flow<A>,
        session: &Session,
        now: u64,
    ) -> Option<SessionRow> {
        let idle = Duration::from_nanos(session.idle(now));
        let gate = self.applied.gate(session.gate)?;
        // Where flows are cut, they are remembered only to count connections.
        let kept = gate.established == Established::Keep && idle < gate.session_idle;
        kept.then(|| SessionRow {
            gate: session.gate,
            protocol: if flow.protocol == u32::from(frame::TCP) {
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
