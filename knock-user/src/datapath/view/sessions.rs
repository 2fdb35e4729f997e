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
    datapath::{
        edit::sessions::InSessions,
        open::Datapath,
        tables::{absent_as_none, data},
    },
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

    /// Counts the sessions by their slots, in a fraction of the time that [`Datapath::sessions`] takes. Sessions are
    /// looked up whose slots do not tell whether they have been idle for too long; if these are many, all are read.
    pub fn count_sessions(&self) -> Result<u64> {
        /// How many sessions are read among all others in the time of one look-up.
        const LOOK_UP: usize = 3;
        let now = monotonic_now();
        let slots = Mapping::of(&self.session_slots)?;
        let (mut open, mut closing) = (0, Vec::new());
        let mut count = |slot: &SessionSlot| {
            if slot.state == state::OPEN {
                open += 1;
            } else {
                closing.push(ends(slot));
            }
        };
        let mut doubtful = Vec::new();
        for (index, slot) in (0..).zip(slots.iter()) {
            if slot.family == 0 || slot.state == state::ENDED {
                continue;
            }
            let (least, most) = idle_by(slot.last, now);
            if self.is_kept(slot.gate, most) {
                count(&slot);
            } else if self.is_kept(slot.gate, least) {
                doubtful.push((index, slot));
            }
        }
        if doubtful.len() > slots.len() / LOOK_UP {
            return Ok(self.sessions()?.len() as u64);
        }
        for (index, slot) in doubtful {
            let is_live = if slot.family == V4::FAMILY {
                self.is_live::<V4>(&slot, index, now)?
            } else {
                self.is_live::<V6>(&slot, index, now)?
            };
            if is_live {
                count(&slot);
            }
        }
        if !closing.is_empty() {
            let connected = connections()?;
            closing.retain(|(source, destination)| connected.contains(&(*destination, *source)));
        }
        Ok(open + closing.len() as u64)
    }

    /// Returns whether the slot with this index has a session that goes on past its grant.
    fn is_live<A: InSessions>(&self, slot: &SessionSlot, index: u32, now: u64) -> Result<bool>
    where
        Flow<A>: Pod,
    {
        let session = absent_as_none(A::table(&self.sessions).get(&slot.flow::<A>(), 0))?;
        Ok(session.is_some_and(|session| {
            let idle = Duration::from_nanos(session.idle(now));
            session.slot == index && self.is_kept(session.gate, idle)
        }))
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

/// Returns the least and the most time for which a session can have been idle whose slot has this `last`, in units of
/// 2^[`SLOT_SHIFT`] ns. One unit more than the slot says: a CPU that read the clock at the end of a unit may have written it
/// after one that read it in the next.
const fn idle_by(last: u32, now: u64) -> (Duration, Duration) {
    // Widening; `From` is not const.
    let first = (last as u64) << SLOT_SHIFT;
    let end = first + ((2 << SLOT_SHIFT) - 1);
    (
        Duration::from_nanos(now.saturating_sub(end)),
        Duration::from_nanos(now.saturating_sub(first)),
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_bounds_the_time_for_which_its_session_is_idle() {
        let unit = 1 << SLOT_SHIFT;
        for (last, now) in [
            (3 * unit, 3 * unit),
            (3 * unit, 4 * unit - 1),
            (4 * unit - 1, 4 * unit),
            (3 * unit, 9 * unit + 7),
            (3 * unit + 1, 9 * unit + 7),
            (4 * unit - 1, 9 * unit + 7),
        ] {
            let (least, most) = idle_by((last >> SLOT_SHIFT) as u32, now);
            let idle = Duration::from_nanos(now - last);
            assert!(least <= idle && idle <= most, "{last} {now}");
            assert!(most < least + Duration::from_nanos(2 * unit));
        }
        // Of a packet on a CPU whose clock was ahead.
        assert_eq!(idle_by(4, 4 * unit - 1), (Duration::ZERO, Duration::ZERO));
    }
}
