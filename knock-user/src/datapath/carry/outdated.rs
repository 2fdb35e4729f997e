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
        let mut ended = Vec::new();
        let by_keys = self.keys()?.opened()?;
        for row in self.grants()? {
            if self.is_outdated(&row, &by_keys) {
                let removed = match row.source.addr() {
                    IpAddr::V4(address) => self.end_grant::<V4>(address.into(), &row)?,
                    IpAddr::V6(address) => self.end_grant::<V6>(address.into(), &row)?,
                };
                if removed {
                    ended.push((row.gate, row.source));
                }
            }
        }
        let sessions = self.end_sessions(|session| {
            let gate = session.tenancy.gate();
            let [source, _] = session.ends().map(|end| end.ip());
            let lost_grant =
                |(of, network): &(u16, IpNet)| *of == gate && network.contains(&source);
            // A grant by hand may have admitted a source that never was allowed to knock.
            let could_knock = before.is_some_and(|before| may_knock(before, source, gate));
            !is_protected(&self.applied, session)
                || (could_knock && !may_knock(&self.applied, source, gate))
                || ended.iter().any(lost_grant)
        })?;
        self.retire_counters()?;
        Ok((ended.len(), sessions))
    }

    /// `by_keys`: which gates the keys open, by their slots.
    fn is_outdated(&self, row: &GrantRow, by_keys: &HashSet<(u32, u32)>) -> bool {
        let Some(gate) = self.applied.gate(row.gate) else {
            return true;
        };
        // A grant by hand is for any source.
        let user = row.user.map_or(BY_HAND, |number| Holder::of(number).user);
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
