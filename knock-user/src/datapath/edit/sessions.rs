//! Sessions, changed while the program changes the same tables.

use std::{mem::offset_of, net::IpAddr, sync::atomic::Ordering};

use anyhow::Result;
use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use ipnet::IpNet;
use knock_common::{
    Address,
    address::{V4, V6},
    session::{Flow, SLOT_SHIFT, Session, SessionSlot, remember::holder_of, state},
};

use crate::{
    config::GrantTo,
    datapath::{
        open::{Datapath, Sessions},
        tables::{absent_as_none, data, is},
    },
    sys::bpf::{batch, mapping::Mapping},
};

/// `BPF_NOEXIST` and `BPF_EXIST` of `linux/bpf.h`: make an entry, change one.
const NO_EXIST: u64 = 1;
const EXIST: u64 = 2;

impl Datapath {
    pub(in crate::datapath) fn has_session<A: InSessions>(&self, flow: &Flow<A>) -> Result<bool>
    where
        Flow<A>: Pod,
    {
        Ok(absent_as_none(A::table(&self.sessions).get(flow, 0))?.is_some())
    }

    /// Returns the slots in the order in which user space takes them: from the end, since the program begins at the
    /// front.
    pub(in crate::datapath) fn free_session_slots(&self) -> impl Iterator<Item = u32> + use<> {
        (0..self.session_slots.len()).rev()
    }

    /// Adds a session, in the first of `slots` that is unused. Returns `false` where there is none.
    ///
    /// The program may take the same slot at the same time. Then the session is not found through its slot any more, and
    /// its entry stays until it is made anew.
    pub(in crate::datapath) fn add_session<A: InSessions>(
        &mut self,
        flow: &Flow<A>,
        session: Session,
        slots: &mut impl Iterator<Item = u32>,
    ) -> Result<bool>
    where
        Flow<A>: Pod,
    {
        for index in slots {
            if self.session_slots.get(&index, 0)?.family != 0 {
                continue;
            }
            let slot = self.slot_of(flow, &session);
            self.session_slots.set(index, slot, 0)?;
            let holder = u32::from(slot.holder);
            let held = self.session_count.get(&holder, 0)?;
            self.session_count.set(holder, held + 1, 0)?;
            let session = Session {
                slot: index,
                ..session
            };
            return match A::table_mut(&mut self.sessions).insert(flow, session, NO_EXIST) {
                Err(error) if is(&error, libc::EEXIST) => Ok(true),
                Err(error) if is(&error, libc::E2BIG) => Ok(false),
                inserted => Ok(inserted.map(|()| true)?),
            };
        }
        Ok(false)
    }

    /// Removes sessions, and notes it in their slots. Returns how many of them were still there.
    pub(in crate::datapath) fn remove_sessions<A: InSessions>(
        &mut self,
        sessions: &[(Flow<A>, Session)],
    ) -> Result<usize>
    where
        Flow<A>: Pod,
    {
        if sessions.is_empty() {
            return Ok(0);
        }
        let slots = Mapping::of(&self.session_slots)?;
        let mut removed = 0;
        for (flow, session) in sessions {
            let was_there = absent_as_none(A::table_mut(&mut self.sessions).remove(flow))?;
            removed += usize::from(was_there.is_some());
            note_end(&slots, flow, session.slot as usize);
        }
        Ok(removed)
    }

    /// Returns the contents of the slot of a session.
    pub(in crate::datapath) fn slot_of<A: Address>(
        &self,
        flow: &Flow<A>,
        session: &Session,
    ) -> SessionSlot {
        let gate = self.applied.gate(session.gate);
        let to_prefix = gate.is_some_and(|gate| gate.grant_to == GrantTo::Prefix);
        SessionSlot {
            source: flow.source.padded(),
            destination: flow.destination.padded(),
            source_port: flow.source_port,
            destination_port: flow.destination_port,
            holder: holder_of(flow.source, to_prefix, self.seed),
            protocol: flow.protocol.to_le_bytes()[0],
            family: A::FAMILY,
            last: slot_time(session.last),
            gate: session.gate,
            state: session.closing,
            zero: 0,
        }
    }
}

/// Notes in the slot of a flow that its session has ended, unless the program has given the slot to another one.
fn note_end<A: Address>(slots: &Mapping<SessionSlot>, flow: &Flow<A>, index: usize) {
    /// Of [`SessionSlot::last`], with which a word begins that has `state`, too.
    const WORD: usize = offset_of!(SessionSlot, last) / 8;
    const STATE: usize = offset_of!(SessionSlot, state) % 8;
    if index >= slots.len() {
        return;
    }
    let before = slots.words_of(index)[WORD].load(Ordering::SeqCst);
    let slot = slots.get(index);
    if slot.family == A::FAMILY && slot.flow::<A>() == *flow {
        let mut after = before.to_ne_bytes();
        after[STATE] = state::ENDED;
        // If it fails, a packet has come in between, or the slot is another's: then a session that is gone counts for as long
        // as it might have been idle. If the slot became another session's in between and the word
        // is the same, that session is not counted until its first packet in a later unit of time.
        let _ = slots.words_of(index)[WORD].compare_exchange(
            before,
            u64::from_ne_bytes(after),
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
    }
}

/// Returns a time of `CLOCK_MONOTONIC`, ns, in the unit of [`SessionSlot::last`].
fn slot_time(time: u64) -> u32 {
    (time >> SLOT_SHIFT) as u32
}

/// An address whose family has a table of sessions.
pub(in crate::datapath) trait InSessions: Address
where
    Flow<Self>: Pod,
{
    fn table(sessions: &Sessions) -> &HashMap<MapData, Flow<Self>, Session>;
    fn table_mut(sessions: &mut Sessions) -> &mut HashMap<MapData, Flow<Self>, Session>;
}

impl InSessions for V4 {
    fn table(sessions: &Sessions) -> &HashMap<MapData, Flow<Self>, Session> {
        &sessions.v4
    }

    fn table_mut(sessions: &mut Sessions) -> &mut HashMap<MapData, Flow<Self>, Session> {
        &mut sessions.v4
    }
}

impl InSessions for V6 {
    fn table(sessions: &Sessions) -> &HashMap<MapData, Flow<Self>, Session> {
        &sessions.v6
    }

    fn table_mut(sessions: &mut Sessions) -> &mut HashMap<MapData, Flow<Self>, Session> {
        &mut sessions.v6
    }
}

/// Makes the sessions from within `network` at `gate` look up their grant again: each caches when the grant that
/// admitted it ends, which may be earlier now.
pub(super) fn look_up_again<A: Address>(
    sessions: &mut HashMap<MapData, Flow<A>, Session>,
    network: IpNet,
    gate: u16,
) -> Result<()>
where
    Flow<A>: Pod,
{
    let mut changed = Vec::new();
    batch::for_each(data(sessions), |flow: &Flow<A>, session: &Session| {
        let source: IpAddr = flow.source.into();
        if session.gate == gate && network.contains(&source) {
            let session = Session {
                granted_until: 0,
                ..*session
            };
            changed.push((*flow, session));
        }
    })?;
    for (flow, session) in changed {
        // The time of a packet that has come since it was read is lost, so the session may end that much earlier.
        absent_as_none(sessions.insert(flow, session, EXIST))?;
    }
    Ok(())
}
