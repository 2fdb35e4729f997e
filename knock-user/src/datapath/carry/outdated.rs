//! Ends what does not apply under the configuration in force.

use std::{collections::HashSet, net::IpAddr};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{
    Address,
    address::{V4, V6},
    frame,
    grant::{BY_HAND, GrantKey},
    knock::authenticated::key::KEY_USER,
    session::Session,
};

use crate::{
    datapath::{compile::applied::Applied, open::Datapath, origin::Holder, view::grants::GrantRow},
    values::{Port, Protocol},
};

impl Datapath {
    /// Ends grants of gates and users that are gone or of sources that may not knock any more, with the sessions of these,
    /// and sessions at ports that their gate does not protect. `before`: the configuration that this one has replaced.
    /// Returns how many of each.
    pub fn end_outdated(&mut self, before: Option<&Applied>) -> Result<(usize, usize)> {
        let by_keys = self.keys()?.opened()?;
        let ended = self.end_grants(|row| self.is_outdated(row, &by_keys))?;
        let sessions = self.end_sessions(|session| {
            let gate = session.tenancy.gate();
            let source = source_of(session);
            // A grant by hand may have admitted a source that never was allowed to knock.
            let could_knock = before.is_some_and(|before| may_knock(before, source, gate));
            !is_protected(&self.applied, session)
                || (could_knock && !may_knock(&self.applied, source, gate))
                || has_lost_its_grant(session, &ended)
        })?;
        self.retire_counters()?;
        Ok((ended.len(), sessions))
    }

    /// Ends what the keys have opened that are, or were, in these slots, with the sessions of these grants. Returns how many
    /// grants.
    pub fn end_grants_of_keys(&mut self, slots: &HashSet<u32>) -> Result<usize> {
        if slots.is_empty() {
            return Ok(0);
        }
        let ended = self.end_grants(|row| {
            let user = user_of(row);
            user != BY_HAND && user & KEY_USER != 0 && slots.contains(&(user & !KEY_USER))
        })?;
        self.end_sessions(|session| has_lost_its_grant(session, &ended))?;
        Ok(ended.len())
    }

    /// Ends these grants. Returns the gate and the source of each.
    fn end_grants(&self, is_over: impl Fn(&GrantRow) -> bool) -> Result<Vec<(u16, IpNet)>> {
        let mut ended = Vec::new();
        for row in self.grants()?.into_iter().filter(is_over) {
            let removed = match row.source.addr() {
                IpAddr::V4(address) => self.end_grant::<V4>(address.into(), &row)?,
                IpAddr::V6(address) => self.end_grant::<V6>(address.into(), &row)?,
            };
            if removed {
                ended.push((row.gate, row.source));
            }
        }
        Ok(ended)
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
        let allowed = |network: &IpNet| network.contains(&row.source);
        !may_open || !(gate.sources.is_empty() || gate.sources.iter().any(allowed))
    }

    fn end_grant<A: Address>(&self, address: A, row: &GrantRow) -> Result<bool> {
        self.remove_grant(&GrantKey::<A>::new(
            address,
            row.source.prefix_len(),
            row.gate,
        ))
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

/// `ended`: the gates and the sources of grants.
fn has_lost_its_grant(session: &Session, ended: &[(u16, IpNet)]) -> bool {
    let (gate, source) = (session.tenancy.gate(), source_of(session));
    let is_of = |(of, network): &(u16, IpNet)| *of == gate && network.contains(&source);
    ended.iter().any(is_of)
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
