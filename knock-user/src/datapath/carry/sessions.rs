//! Sessions.

use std::{cmp::Reverse, collections::HashMap};

use anyhow::Result;
use aya::Pod;
use knock_common::{
    address::{V4, V6},
    session::{Flow, Session},
};

use crate::{
    datapath::{edit::sessions::InSessions, open::Datapath, tables::data},
    sys::bpf::batch,
};

/// Copies the sessions into tables that no program uses yet. Where there is room for fewer, those without a packet for the
/// longest time are left out.
pub fn copy(old: &Datapath, new: &mut Datapath, now: u64) -> Result<()> {
    let (mut v4, mut v6) = (all::<V4>(old)?, all::<V6>(old)?);
    let room = new.session_slots.len() as usize;
    if v4.len() + v6.len() > room {
        let idle = |session: &Session| session.idle(now);
        let mut times: Vec<u64> = v4.iter().map(|(_, session)| idle(session)).collect();
        times.extend(v6.iter().map(|(_, session)| idle(session)));
        times.sort_unstable();
        let longest = times[room - 1];
        v4.retain(|(_, session)| idle(session) <= longest);
        v6.retain(|(_, session)| idle(session) <= longest);
        v4.sort_by_key(|(_, session)| Reverse(session.last));
        v6.sort_by_key(|(_, session)| Reverse(session.last));
    }
    let mut held = HashMap::new();
    let mut slots = 0..new.session_slots.len();
    copy_family(new, v4, &mut slots, &mut held)?;
    copy_family(new, v6, &mut slots, &mut held)?;
    let held = held.into_iter();
    batch::write(
        data(&new.session_count),
        held.map(|(holder, count)| (u32::from(holder), count)),
    )
}

fn copy_family<A: InSessions>(
    new: &mut Datapath,
    sessions: Vec<(Flow<A>, Session)>,
    slots: &mut impl Iterator<Item = u32>,
    held: &mut HashMap<u16, u32>,
) -> Result<()>
where
    Flow<A>: Pod,
{
    let (mut taken, mut rows) = (Vec::new(), Vec::new());
    for ((flow, session), slot) in sessions.into_iter().zip(slots) {
        let row = new.slot_of(&flow, &session);
        *held.entry(row.holder).or_default() += 1;
        taken.push((slot, row));
        rows.push((flow, Session { slot, ..session }));
    }
    batch::write(data(&new.session_slots), taken)?;
    batch::write(data(A::table(&new.sessions)), rows)
}

/// Carries over the sessions that have begun since [`copy`], as far as there is room.
pub fn follow(old: &Datapath, new: &mut Datapath, now: u64) -> Result<()> {
    let mut slots = new.free_session_slots();
    follow_family(new, all::<V4>(old)?, now, &mut slots)?;
    follow_family(new, all::<V6>(old)?, now, &mut slots)
}

fn follow_family<A: InSessions>(
    new: &mut Datapath,
    sessions: Vec<(Flow<A>, Session)>,
    now: u64,
    slots: &mut impl Iterator<Item = u32>,
) -> Result<()>
where
    Flow<A>: Pod,
{
    let mut fresh: Vec<_> = sessions
        .into_iter()
        // Nothing begins earlier than a minute before, however long the copy took.
        .filter(|(_, session)| session.idle(now) < 60_000_000_000)
        .collect();
    fresh.sort_by_key(|(_, session)| Reverse(session.last));
    for (flow, session) in fresh {
        if !new.has_session(&flow)? && !new.add_session(&flow, session, slots)? {
            return Ok(());
        }
    }
    Ok(())
}

fn all<A: InSessions>(datapath: &Datapath) -> Result<Vec<(Flow<A>, Session)>>
where
    Flow<A>: Pod,
{
    let mut all = Vec::new();
    batch::for_each(
        data(A::table(&datapath.sessions)),
        |flow: &Flow<A>, session: &Session| all.push((*flow, *session)),
    )?;
    Ok(all)
}
