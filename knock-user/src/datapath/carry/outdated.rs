//! Ends what does not apply under the configuration in force.

use std::{collections::HashSet, net::IpAddr};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{frame, grant::BY_HAND, knock::authenticated::key::KEY_USER, session::Session};

use crate::{
    config::{Config, Gate},
    datapath::{compile::applied::Applied, open::Datapath, origin::Holder, view::grants::GrantRow},
    keys::KeyName,
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
                let could_knock = before.is_some_and(|before| may_knock(before.gate(gate), source));
                !is_protected(&self.applied, session)
                    || (could_knock && !may_knock(self.applied.gate(gate), source))
            },
        )?;
        self.retire_counters()?;
        Ok(ended)
    }

    /// Returns whether a source's sessions at `gate` of `next` go on when `next` replaces this configuration: the source may knock
    /// as before, and no grant of it ends. Where this cannot be known without the files of the keys, they do not.
    pub fn leaves_sessions(&self, next: &Config, gate: &Gate, source: IpAddr) -> Result<bool> {
        let Some((id, before)) = self.applied.gates().find(|(_, of)| of.name == gate.name) else {
            return Ok(true);
        };
        if may_knock(Some(before), source) && !may_knock(Some(gate), source) {
            return Ok(false);
        }
        let grants = self.grants()?;
        let mut its = grants
            .iter()
            .filter(|row| row.gate == id && row.source.contains(&source));
        Ok(its.all(|row| self.leaves_grant(row, next, gate)))
    }

    fn leaves_grant(&self, row: &GrantRow, next: &Config, gate: &Gate) -> bool {
        let user = user_of(row);
        if user == BY_HAND {
            return true;
        }
        let may_open = if user & KEY_USER != 0 {
            self.leaves_key(row, next, gate)
        } else {
            self.is_user(user, gate)
        };
        may_open && may_be_opened_from(gate, &row.source)
    }

    /// Returns whether the key that has given a grant goes on to open its gate.
    fn leaves_key(&self, row: &GrantRow, next: &Config, gate: &Gate) -> bool {
        let (before, after) = (&self.config().knock, &next.knock);
        let has_room = (user_of(row) & !KEY_USER) < next.limits.keys;
        let name: Option<KeyName> = row
            .user
            .and_then(|number| self.who(number).key?.parse().ok());
        let is_named = |of: &Gate| name.as_ref().is_some_and(|name| of.keys.contains(name));
        let was_named = self.applied.gate(row.gate).is_some_and(is_named);
        before.keys == after.keys
            && !after.ports.is_empty()
            && has_room
            && (is_named(gate) || !was_named)
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
            self.is_user(user, gate)
        };
        !may_open || !may_be_opened_from(gate, &row.source)
    }

    /// Returns whether who has this number opens a gate by a sequence, or as a client of fwknop's.
    fn is_user(&self, user: u32, gate: &Gate) -> bool {
        let is_it = |name: &str| self.applied.ids.user(&gate.name, name) == Some(user);
        gate.users().any(is_it)
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

fn may_knock(gate: Option<&Gate>, source: IpAddr) -> bool {
    gate.is_some_and(|gate| {
        gate.sources.is_empty() || gate.sources.iter().any(|network| network.contains(&source))
    })
}

/// Returns whether somebody who may knock at a gate may have got a grant for a network there: the knock came from one source, and
/// the grant may be for more.
fn may_be_opened_from(gate: &Gate, granted: &IpNet) -> bool {
    let allowed = |network: &IpNet| network.contains(granted) || granted.contains(network);
    gate.sources.is_empty() || gate.sources.iter().any(allowed)
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
