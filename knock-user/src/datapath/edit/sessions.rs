//! Sessions, changed while the program changes the same table.

use std::time::Duration;

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{
    Address,
    memory::SessionMemory as _,
    row,
    session::{
        Flow, Session,
        remember::holder_of,
        table::{self, Beginning},
    },
    set::NO_SLOT,
    time::elapsed,
};

use crate::{
    config::GrantTo,
    datapath::{
        edit::session_table::SessionTable,
        open::Datapath,
        view::sessions::{connected, row},
    },
    sys::clock::{monotonic_now, pass_tick},
};

impl Datapath {
    pub(in crate::datapath) fn has_session<A: Address>(&self, flow: &Flow<A>) -> Result<bool> {
        Ok(table::find(self.session_table()?, flow).is_some())
    }

    /// As [`Datapath::has_session`], for one by which packets pass this gate.
    pub(in crate::datapath) fn has_session_at<A: Address>(
        &self,
        gate: u16,
        flow: &Flow<A>,
    ) -> Result<bool> {
        let idle = self.applied.gate(gate).map(|rules| rules.session_idle);
        let found = table::find(self.session_table()?, flow);
        Ok(found.is_some_and(|found| {
            let silent = Duration::from_nanos(elapsed(found.last, monotonic_now()));
            found.tenancy.gate() == gate && idle.is_some_and(|idle| silent < idle)
        }))
    }

    /// Adds the session of a flow, in its home row or in the next one that has a free slot. Returns `false` if there is none. A flow
    /// that cannot be linked is left out.
    pub(in crate::datapath) fn add_session<A: Address>(
        &self,
        flow: &Flow<A>,
        beginning: &Beginning,
    ) -> Result<bool> {
        let sessions = self.session_table()?;
        let gate = self.applied.gate(beginning.gate);
        let to_prefix = gate.is_some_and(|gate| gate.grant_to == GrantTo::Prefix);
        let holder = holder_of(flow.source, to_prefix, self.seed);
        let rows = sessions.session_rows();
        let choice = row::first_choice(flow.position(self.seed), rows);
        let home = choice / row::SLOTS;
        let others = (home + 1..rows).chain(0..home).map(|row| row * row::SLOTS);
        let mut slots = [choice]
            .into_iter()
            .chain(others)
            .map(|choice| table::take_free(sessions, choice));
        let Some(slot) = slots.find(|slot| *slot != NO_SLOT) else {
            return Ok(false);
        };
        table::begin(sessions, slot, flow, holder, beginning);
        Ok(true)
    }

    /// Ends the sessions that are `to_end`. No packet passes by one of them when this returns. Returns how many flows went on until then: of one that both sides have closed, or that has been
    /// idle for too long, the session stays in the table until its slot is needed.
    pub(in crate::datapath) fn end_sessions(
        &self,
        to_end: impl Fn(&Session) -> bool,
    ) -> Result<usize> {
        let sessions = self.session_table()?;
        let now = monotonic_now();
        let (mut open, mut closing) = (0, Vec::new());
        for (slot, session) in sessions.sessions() {
            if !to_end(&session) || !table::end(sessions, slot, session.tenancy) {
                continue;
            }
            if session.is_closing() {
                closing.push(row(&session, now));
            } else if !self.is_idle(&session, now) {
                open += 1;
            }
        }
        // Until then, a CPU may remember that a flow passes.
        pass_tick();
        Ok(open + connected(closing).len())
    }
}

/// Makes the sessions from within `network` at `gate` look up their grant again: each caches when the grant that
/// admitted it ends, which may be earlier now.
pub(super) fn look_up_again(sessions: &SessionTable, network: IpNet, gate: u16) {
    for (slot, session) in sessions.sessions() {
        if session.tenancy.gate() == gate
            && network.contains(&session.ends()[0].ip())
            && let Some(session) = sessions.session(slot)
        {
            // If the slot has been given to another flow meanwhile, that flow only looks its grant up once more. If a packet
            // arrives at the same moment, this write may be lost. Packets of the flow then count as `grant`, not as `session`,
            // until the end that was stored earlier.
            session.set_granted(0);
        }
    }
}
