//! Flows that began under a grant.

use std::{
    collections::{BTreeSet, HashSet},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{frame, session::Session};

use crate::{
    config::{Established, Gate, connections},
    datapath::open::Datapath,
    sys::{bpf::mapping::Mapping, clock::monotonic_now},
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
    /// Returns the flows that go on past their grants, the busiest in front.
    pub fn sessions(&self) -> Result<Vec<SessionRow>> {
        let now = monotonic_now();
        let (mut open, mut closing) = (Vec::new(), Vec::new());
        self.each_session(now, |session, gate| {
            // Where flows are cut, they are remembered only to count connections.
            if gate.established == Established::Cut {
                return;
            }
            let rows = if session.is_closing() {
                &mut closing
            } else {
                &mut open
            };
            rows.push(row(session, now));
        })?;
        open.extend(connected(closing));
        open.sort_by_key(|row| (row.idle, row.source));
        Ok(open)
    }

    /// Counts the flows at these gates that have outlived the grants of their source: nothing says any more whose these were.
    pub fn count_outlived(&self, gates: &[String]) -> Result<usize> {
        let grants: HashSet<_> = self
            .grants()?
            .iter()
            .map(|row| (row.gate, row.source))
            .collect();
        let lengths: BTreeSet<u8> = grants
            .iter()
            .map(|(_, source)| source.prefix_len())
            .collect();
        let has_grant = |row: &SessionRow| {
            let networks = lengths
                .iter()
                .filter_map(|length| IpNet::new(row.source.ip(), *length).ok());
            networks
                .map(|network| network.trunc())
                .any(|network| grants.contains(&(row.gate, network)))
        };
        let ids: Vec<u16> = gates
            .iter()
            .filter_map(|name| self.applied.ids.gate(name))
            .collect();
        let mut sessions = self.sessions()?;
        sessions.retain(|row| ids.contains(&row.gate) && !has_grant(row));
        Ok(sessions.len())
    }

    /// Counts the flows that have a place in the table: also those that do not go on past their grants.
    pub fn count_sessions(&self) -> Result<u64> {
        let now = monotonic_now();
        let (mut open, mut closing) = (0, Vec::new());
        self.each_session(now, |session, _| {
            if session.is_closing() {
                closing.push(row(session, now));
            } else {
                open += 1;
            }
        })?;
        Ok(open + connected(closing).len() as u64)
    }

    /// Returns whether a flow of the table has been idle for too long, as far as its gate is known. `now`: ns of `CLOCK_MONOTONIC`.
    pub(in crate::datapath) fn is_idle(&self, session: &Session, now: u64) -> bool {
        let gate = self.applied.gate(session.tenancy.gate());
        gate.is_some_and(|gate| !is_within_idle(session, gate, now))
    }

    /// Calls `each` with every flow that is remembered and has not been idle for too long, and with its gate. A new flow takes the
    /// place of any other.
    fn each_session(&self, now: u64, mut each: impl FnMut(&Session, &Gate)) -> Result<()> {
        let mut each = |session: Session| {
            if let Some(gate) = self.applied.gate(session.tenancy.gate())
                && is_within_idle(&session, gate, now)
            {
                each(&session, gate);
            }
        };
        if self.is_writable() {
            let sessions = self.session_table()?.sessions();
            sessions.for_each(|(_, session)| each(session));
        } else {
            let copy = Mapping::of(&self.sessions)?;
            let sessions = copy.iter().filter(|session| session.tenancy.is_live());
            sessions.for_each(each);
        }
        Ok(())
    }
}

fn is_within_idle(session: &Session, gate: &Gate, now: u64) -> bool {
    Duration::from_nanos(session.idle(now)) < gate.session_idle
}

/// Keeps the rows of which the host has a socket. The program would ask the host the same with the flow's next packet. All
/// are kept where the kernel cannot list the sockets.
pub(in crate::datapath) fn connected(mut closing: Vec<SessionRow>) -> Vec<SessionRow> {
    if closing.is_empty() {
        return closing;
    }
    match connections() {
        Ok(connected) => closing.retain(|row| connected.contains(&(row.destination, row.source))),
        Err(error) => tracing::debug!("cannot ask the kernel which connections are open: {error}"),
    }
    closing
}

/// Returns what is shown of a session. `now`: ns of `CLOCK_MONOTONIC`.
pub(in crate::datapath) fn row(session: &Session, now: u64) -> SessionRow {
    let [source, destination] = session.ends();
    SessionRow {
        gate: session.tenancy.gate(),
        protocol: if session.tenancy.protocol() == frame::TCP {
            Protocol::Tcp
        } else {
            Protocol::Udp
        },
        source,
        destination,
        idle: Duration::from_nanos(session.idle(now)),
    }
}
