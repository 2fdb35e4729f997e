//! Ends what does not apply under the configuration in force.

use std::{collections::HashSet, net::IpAddr};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{frame, grant::BY_HAND, knock::authenticated::key::KEY_USER, session::Session};

use crate::{
    datapath::{compile::applied::Applied, open::Datapath, origin::Holder, view::grants::GrantRow},
    sys::grace,
    values::{Port, Protocol},
};

impl Datapath {
    /// Ends grants of gates and users that are gone or of sources that may not knock any more, with the sessions of these,
    /// and sessions at ports that their gate does not protect. `before`: the configuration that this one has replaced.
    /// Returns how many of each.
    pub fn end_outdated(&mut self, before: Option<&Applied>) -> Result<(usize, usize)> {
        let by_keys = self.keys()?.opened()?;
        let ended = self.end_grants(
            |row| self.is_outdated(row, &by_keys),
            |session| {
                let (gate, source) = (session.tenancy.gate(), source_of(session));
                // A grant by hand may have admitted a source that never was allowed to knock.
                let could_knock = before.is_some_and(|before| may_knock(before, source, gate));
                !is_protected(&self.applied, session)
                    || (could_knock && !may_knock(&self.applied, source, gate))
            },
        )?;
        self.retire_counters()?;
        Ok(ended)
    }

    /// Ends what the keys have opened that are, or were, in these slots, with the sessions of these grants. Returns how many
    /// grants.
    pub fn end_grants_of_keys(&mut self, slots: &HashSet<u32>) -> Result<usize> {
        if slots.is_empty() {
            return Ok(0);
        }
        let is_of_these = |row: &GrantRow| {
            let user = user_of(row);
            user != BY_HAND && user & KEY_USER != 0 && slots.contains(&(user & !KEY_USER))
        };
        let (grants, _) = self.end_grants(is_of_these, |_| false)?;
        Ok(grants)
    }

    /// Ends grants of prefix lengths that the kernel does not look for, of which there were too many. Else they would admit somebody
    /// later, when others have ended.
    pub fn end_grants_left_out(&self) -> Result<()> {
        for row in self.grants()? {
            if !self.looks_for_network(row.source)? {
                self.end_grant(&row)?;
            }
        }
        Ok(())
    }

    /// Ends these grants with their sessions, and the sessions that are over too. Returns how many of each.
    fn end_grants(
        &self,
        is_over: impl Fn(&GrantRow) -> bool,
        is_over_too: impl Fn(&Session) -> bool,
    ) -> Result<(usize, usize)> {
        let mut over = self.grants()?;
        over.retain(is_over);
        let ends = |session: &Session| is_over_too(session) || has_lost_its_grant(session, &over);
        let (mut grants, mut sessions) = (0, 0);
        if !over.is_empty() {
            // Before the grants too: if this process is killed in between, nothing else says whose sessions these are.
            sessions += self.end_sessions(ends)?;
            for row in &over {
                grants += usize::from(self.end_grant(row)?);
            }
            // A packet that is being judged may have found its grant, and begin a session.
            grace::wait();
        }
        sessions += self.end_sessions(ends)?;
        Ok((grants, sessions))
    }

    /// `by_keys`: which gates the keys open, by their slots.
    fn is_outdated(&self, row: &GrantRow, by_keys: &HashSet<(u32, u32)>) -> bool {
        let Some(gate) = self.applied.gate(row.gate) else {
            return true;
        };
        // A grant by hand is for any source.
        let user = user_of(row);
        if user == BY_HAND {
            return false;
        }
        let may_open = if user & KEY_USER != 0 {
            by_keys.contains(&(user & !KEY_USER, row.gate.into()))
        } else {
            let is_user = |name: &str| self.applied.ids.user(&gate.name, name) == Some(user);
            gate.users().any(is_user)
        };
        // The knock came from one of them, and the grant may be for more.
        let allowed =
            |network: &IpNet| network.contains(&row.source) || row.source.contains(network);
        !may_open || !(gate.sources.is_empty() || gate.sources.iter().any(allowed))
    }
}

/// Returns who has a grant, whichever host has given it.
fn user_of(row: &GrantRow) -> u32 {
    row.user.map_or(BY_HAND, |number| Holder::of(number).user)
}

fn source_of(session: &Session) -> IpAddr {
    let [source, _] = session.ends();
    source.ip()
}

fn has_lost_its_grant(session: &Session, ended: &[GrantRow]) -> bool {
    let (gate, source) = (session.tenancy.gate(), source_of(session));
    let is_its = |row: &GrantRow| row.gate == gate && row.source.contains(&source);
    ended.iter().any(is_its)
}

fn may_knock(applied: &Applied, source: IpAddr, gate: u16) -> bool {
    applied.gate(gate).is_some_and(|gate| {
        gate.sources.is_empty() || gate.sources.iter().any(|network| network.contains(&source))
    })
}

fn is_protected(applied: &Applied, session: &Session) -> bool {
    let protocol = if session.tenancy.protocol() == frame::TCP {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    let [_, destination] = session.ends();
    let port = Port {
        number: destination.port(),
        protocol,
    };
    applied
        .gate(session.tenancy.gate())
        .is_some_and(|gate| gate.protect.contains(&port))
}
