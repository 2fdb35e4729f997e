//! Ends what does not apply under the configuration in force.

use std::{collections::HashSet, net::IpAddr};

use anyhow::Result;
use aya::Pod;
use ipnet::IpNet;
use knock_common::{
    Address,
    address::{V4, V6},
    frame,
    grant::{BY_HAND, GrantKey},
    knock::authenticated::key::KEY_USER,
    session::{Flow, Session},
};

use crate::{
    datapath::{
        compile::applied::Applied, edit::sessions::InSessions, open::Datapath, origin::Holder,
        tables::data, view::grants::GrantRow,
    },
    sys::bpf::batch,
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
        let sessions =
            self.end_sessions::<V4>(&ended, before)? + self.end_sessions::<V6>(&ended, before)?;
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

    fn end_sessions<A: InSessions>(
        &mut self,
        ended: &[(u16, IpNet)],
        before: Option<&Applied>,
    ) -> Result<usize>
    where
        Flow<A>: Pod,
    {
        let mut flows = Vec::new();
        let applied = &self.applied;
        batch::for_each(
            data(A::table(&self.sessions)),
            |flow: &Flow<A>, session: &Session| {
                let source: IpAddr = flow.source.into();
                let lost_grant = |(gate, network): &(u16, IpNet)| {
                    *gate == session.gate && network.contains(&source)
                };
                // A grant by hand may have admitted a source that never was allowed to knock.
                let could_knock =
                    before.is_some_and(|before| may_knock(before, source, session.gate));
                if !is_protected(applied, flow, session.gate)
                    || (could_knock && !may_knock(applied, source, session.gate))
                    || ended.iter().any(lost_grant)
                {
                    flows.push((*flow, *session));
                }
            },
        )?;
        self.remove_sessions(&flows)
    }
}

fn may_knock(applied: &Applied, source: IpAddr, gate: u16) -> bool {
    applied.gate(gate).is_some_and(|gate| {
        gate.sources.is_empty() || gate.sources.iter().any(|network| network.contains(&source))
    })
}

fn is_protected<A: Address>(applied: &Applied, flow: &Flow<A>, gate: u16) -> bool {
    let protocol = if flow.protocol == u32::from(frame::TCP) {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    let port = Port {
        number: flow.destination_port,
        protocol,
    };
    applied
        .gate(gate)
        .is_some_and(|gate| gate.protect.contains(&port))
}
