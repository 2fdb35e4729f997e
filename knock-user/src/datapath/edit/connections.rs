//! Connections that are open when a gate begins to protect their port.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use knock_common::{
    Address,
    address::{V4, V6},
    frame::{PortPair, TCP},
    session::{Flow, MORE, table::Beginning},
};

use crate::{
    config::{Config, Established, Gate, Mode},
    datapath::{
        compile::applied::Applied, open::Datapath, trial::TrialState, view::grants::GrantRow,
    },
    sys::{
        clock::monotonic_now,
        sock_diag::{Socket, States, Transport, sockets},
    },
    values::{Port, Protocol},
};

impl Datapath {
    /// Makes sessions of the TCP connections that are open through the ports that this configuration protects and `before`
    /// did not, or that have a grant of a gate which cut them in `before`: those of the gates that keep what is established, as far
    /// as there is room.
    pub(in crate::datapath) fn adopt_connections(&self, before: Option<&Self>) -> Result<()> {
        let before = match before {
            Some(before) if before.trial()? == TrialState::Lapsed => None,
            before => before,
        };
        let grants = before.map_or_else(|| Ok(Vec::new()), Self::grants)?;
        self.adopt_where(|gate, socket| {
            let cuts = |of: &Gate| of.established == Established::Cut;
            Ok(before.is_none_or(|before| {
                !protects(before.config(), socket.local)
                    || before.applied.gate(gate).is_some_and(cuts)
                        && has_grant(before, gate, &grants, socket)
            }))
        })
    }

    /// As [`Datapath::adopt_connections`] in place of `left`, whose grants and sessions are not carried over: those connections too that
    /// pass there by one, unless that ends with what does not apply any more. What `left` has been denying is not made a session.
    pub(in crate::datapath) fn adopt_connections_of(&self, left: &Self) -> Result<()> {
        if left.trial()? == TrialState::Lapsed {
            return self.adopt_connections(None);
        }
        let grants = left.grants()?;
        let mut are_left = HashMap::new();
        self.adopt_where(|gate, socket| {
            if !protects(left.config(), socket.local) {
                return Ok(true);
            }
            // A gate of the same name has the same number.
            if !left.has_session_of(gate, socket)? && !has_grant(left, gate, &grants, socket) {
                return Ok(false);
            }
            let source = socket.remote.ip();
            Ok(match are_left.entry((gate, source)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => {
                    let rules = self.applied.gate(gate);
                    let leaves = |rules| left.leaves_sessions(self.config(), rules, source);
                    *unknown.insert(rules.map_or(Ok(false), leaves)?)
                }
            })
        })
    }

    /// Makes sessions of the TCP connections that are open through the ports of gates that keep what is established, as far as they
    /// are wanted and there is room.
    fn adopt_where(&self, mut is_wanted: impl FnMut(u16, &Socket) -> Result<bool>) -> Result<()> {
        if self.config().mode == Mode::Monitor {
            return Ok(());
        }
        let keeps = |gate: &Gate| gate.established == Established::Keep;
        if !self.config().gates.iter().any(keeps) {
            return Ok(());
        }
        let open = match open_connections() {
            Ok(open) => open,
            // The one who gives the command has been asked for, and to be up matters more to all others.
            Err(error) => {
                tracing::warn!("{error:#}: those that are open at protected ports end now");
                return Ok(());
            }
        };
        let now = monotonic_now();
        for socket in open {
            let Some(gate) = keeping_gate(&self.applied, &socket) else {
                continue;
            };
            if !is_wanted(gate, &socket)? {
                continue;
            }
            let has_room = match (socket.remote.ip(), socket.local.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    let flow = flow(V4::from(source), V4::from(destination), &socket);
                    self.adopt(&flow, gate, now)?
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    let flow = flow(V6::from(source), V6::from(destination), &socket);
                    self.adopt(&flow, gate, now)?
                }
                _ => true,
            };
            if !has_room {
                tracing::warn!(
                    "limits.sessions is too small for the connections that are open: some of them end now"
                );
                break;
            }
        }
        Ok(())
    }

    /// Returns whether a connection passes a gate by its session.
    pub(in crate::datapath) fn has_session_of(&self, gate: u16, socket: &Socket) -> Result<bool> {
        if keeping_gate(&self.applied, socket) != Some(gate) {
            return Ok(false);
        }
        match (socket.remote.ip(), socket.local.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.has_session_at(gate, &flow(V4::from(source), V4::from(destination), socket))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.has_session_at(gate, &flow(V6::from(source), V6::from(destination), socket))
            }
            _ => Ok(false),
        }
    }

    fn adopt<A: Address>(&self, flow: &Flow<A>, gate: u16, now: u64) -> Result<bool> {
        let beginning = Beginning {
            gate,
            initial: 0,
            last: now,
            // A SYN with its ports begins another connection.
            granted: MORE,
            ending: 0,
        };
        Ok(self.has_session(flow)? || self.add_session(flow, &beginning)?)
    }
}

/// Returns the established TCP connections of this network namespace that packets from other hosts belong to.
pub(in crate::datapath) fn open_connections() -> Result<Vec<Socket>> {
    let mut open = sockets(Transport::Tcp, &States::ESTABLISHED)
        .context("cannot ask the kernel which connections are open, for which it needs inet_diag and tcp_diag")?;
    open.retain(Socket::is_reachable);
    Ok(open)
}

/// Returns whether `config` denies packets to this TCP end without a grant.
pub(in crate::datapath) fn protects(config: &Config, local: SocketAddr) -> bool {
    let port = tcp(local);
    let protects =
        |gate: &Gate| gate.protect.contains(&port) && config.guards_own(gate, local.ip());
    config.mode == Mode::Enforce && config.gates.iter().any(protects)
}

/// Returns the id of the gate that protects a connection's port and keeps what is established.
fn keeping_gate(applied: &Applied, socket: &Socket) -> Option<u16> {
    let port = tcp(socket.local);
    let mut gates = applied.gates();
    let (id, _) = gates
        .find(|(_, gate)| gate.established == Established::Keep && gate.protect.contains(&port))?;
    protects(&applied.config, socket.local).then_some(id)
}

/// Returns whether a connection passes a gate of `before` by a grant.
fn has_grant(before: &Datapath, gate: u16, grants: &[GrantRow], socket: &Socket) -> bool {
    let protects = |of: &Gate| of.protect.contains(&tcp(socket.local));
    let admits = |row: &GrantRow| {
        row.gate == gate
            && row.source.contains(&socket.remote.ip())
            && [0, socket.remote.port()].contains(&row.port)
    };
    before.applied.gate(gate).is_some_and(protects) && grants.iter().any(admits)
}

fn tcp(end: SocketAddr) -> Port {
    Port {
        number: end.port(),
        protocol: Protocol::Tcp,
    }
}

/// Returns the flow from the client to this host.
fn flow<A>(source: A, destination: A, socket: &Socket) -> Flow<A> {
    Flow {
        source,
        destination,
        ports: PortPair::new(socket.remote.port(), socket.local.port()),
        protocol: u32::from(TCP),
    }
}
