//! Sessions.

use std::cmp::Reverse;

use anyhow::Result;
use knock_common::{
    Address,
    address::{V4, V6},
    session::{Session, table::Beginning},
};

use crate::datapath::open::Datapath;

/// Copies the sessions into tables that no program uses yet. Where there is room for fewer, those without a packet for the
/// longest time are left out.
pub fn copy(old: &Datapath, new: &Datapath, now: u64) -> Result<()> {
    let mut sessions = all(old)?;
    if sessions.len() > new.sessions.len() as usize {
        sessions.sort_by_key(|session| session.idle(now));
    }
    for session in sessions {
        if !put(new, &session)? {
            break;
        }
    }
    Ok(())
}

/// Carries over the sessions that have begun since [`copy`], as far as there is room.
pub fn follow(old: &Datapath, new: &Datapath, now: u64) -> Result<()> {
    let mut fresh = all(old)?;
    // Nothing begins earlier than a minute before, however long the copy took.
    fresh.retain(|session| session.idle(now) < 60_000_000_000);
    fresh.sort_by_key(|session| Reverse(session.last));
    for session in fresh {
        if !has(new, &session)? && !put(new, &session)? {
            break;
        }
    }
    Ok(())
}

fn all(datapath: &Datapath) -> Result<Vec<Session>> {
    let sessions = datapath.session_table()?.sessions();
    Ok(sessions.map(|(_, session)| session).collect())
}

fn has(datapath: &Datapath, session: &Session) -> Result<bool> {
    if session.tenancy.state() == V4::FAMILY {
        datapath.has_session(&session.flow::<V4>())
    } else {
        datapath.has_session(&session.flow::<V6>())
    }
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
