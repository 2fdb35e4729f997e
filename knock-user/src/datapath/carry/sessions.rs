//! Sessions.

use std::{cmp::Reverse, collections::HashSet};

use anyhow::Result;
use knock_common::{
    Address,
    address::{V4, V6},
    session::{
        Session,
        table::{self, Beginning, Found},
    },
};

use crate::datapath::open::Datapath;

/// Copies the sessions into tables that no program uses yet. Where there is room for fewer, those without a packet for the
/// longest time are left out. Returns them.
pub fn copy(old: &Datapath, new: &Datapath, now: u64) -> Result<Vec<Session>> {
    let mut sessions = all(old)?;
    if sessions.len() > new.sessions.len() as usize {
        sessions.sort_by_key(|session| session.idle(now));
    }
    for session in &sessions {
        if !put(new, session)? {
            break;
        }
    }
    Ok(sessions)
}

/// Carries over what has become of sessions since [`copy`], which has returned `copied`: which have ended or are closing, and
/// which have begun, as far as there is room.
pub fn follow(old: &Datapath, new: &Datapath, copied: &[Session], now: u64) -> Result<()> {
    for session in copied {
        let last = find(old, session)?;
        let Some(present) = find(new, session)? else {
            continue;
        };
        // Otherwise the new program has admitted another connection with these ports.
        let is_its = present.session.initial == session.initial;
        match last {
            None if is_its => _ = table::end(new.session_table()?, present.slot, present.tenancy),
            Some(last) if is_its && last.session.is_closing() && !present.session.is_closing() => {
                present.session.ending = last.session.ending;
            }
            _ => {}
        }
    }
    // One that was copied and is not in the new tables has ended there.
    let known: HashSet<_> = copied.iter().map(connection).collect();
    let mut fresh = all(old)?;
    // Nothing begins earlier than a minute before, however long the copy took.
    fresh.retain(|session| {
        session.idle(now) < 60_000_000_000 && !known.contains(&connection(session))
    });
    fresh.sort_by_key(|session| Reverse(session.last));
    for session in fresh {
        if find(new, &session)?.is_none() && !put(new, &session)? {
            break;
        }
    }
    Ok(())
}

/// Returns what distinguishes a connection, also from one before it with the same ports.
const fn connection(session: &Session) -> ([u64; 2], [u64; 2], [u32; 2], [u8; 2]) {
    let Session {
        source,
        destination,
        ports,
        tenancy,
        initial,
        ..
    } = *session;
    let kind = [tenancy.state(), tenancy.protocol()];
    (source, destination, [ports, initial], kind)
}

fn all(datapath: &Datapath) -> Result<Vec<Session>> {
    let sessions = datapath.session_table()?.sessions();
    Ok(sessions.map(|(_, session)| session).collect())
}

/// Looks up the session of the same flow.
fn find<'d>(datapath: &'d Datapath, session: &Session) -> Result<Option<Found<'d>>> {
    let sessions = datapath.session_table()?;
    Ok(if session.tenancy.state() == V4::FAMILY {
        table::find(sessions, &session.flow::<V4>())
    } else {
        table::find(sessions, &session.flow::<V6>())
    })
}

/// Adds a session. Returns `false` if there is no room.
fn put(datapath: &Datapath, session: &Session) -> Result<bool> {
    let Session {
        initial,
        last,
        granted,
        ending,
        tenancy,
        ..
    } = *session;
    let beginning = Beginning {
        gate: tenancy.gate(),
        initial,
        last,
        granted,
        ending,
    };
    if tenancy.state() == V4::FAMILY {
        datapath.add_session(&session.flow::<V4>(), &beginning)
    } else {
        datapath.add_session(&session.flow::<V6>(), &beginning)
    }
}
