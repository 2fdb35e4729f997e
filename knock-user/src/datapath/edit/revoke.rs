//! Ends grants and sessions before their time.

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{
    address::{V4, V6},
    grant::GrantKey,
};

use crate::datapath::open::Datapath;

impl Datapath {
    /// Removes the grants and sessions of every source within `network`, at one gate or at all. Returns how many of
    /// each.
    pub fn revoke(&mut self, network: IpNet, gate: Option<u16>) -> Result<(usize, usize)> {
        self.revoke_any(&[(network, gate)])
    }

    /// As [`Datapath::revoke`], for several networks and gates at once.
    pub fn revoke_any(&mut self, revoked: &[(IpNet, Option<u16>)]) -> Result<(usize, usize)> {
        let mut grants = 0;
        for row in self.grants()? {
            if is_revoked(revoked, row.gate, |network| network.contains(&row.source)) {
                let length = row.source.prefix_len();
                let removed = match row.source.addr() {
                    IpAddr::V4(address) => {
                        self.remove_grant(&GrantKey::<V4>::new(address.into(), length, row.gate))?
                    }
                    IpAddr::V6(address) => {
                        self.remove_grant(&GrantKey::<V6>::new(address.into(), length, row.gate))?
                    }
                };
                grants += usize::from(removed);
            }
        }
        let sessions = self.end_sessions(|session| {
            let [source, _] = session.ends();
            is_revoked(revoked, session.tenancy.gate(), |network| {
                network.contains(&source.ip())
            })
        })?;
        Ok((grants, sessions))
    }
}

fn is_revoked(
    revoked: &[(IpNet, Option<u16>)],
    gate: u16,
    contains: impl Fn(&IpNet) -> bool,
) -> bool {
    let mut revoked = revoked.iter();
    revoked.any(|(network, at)| at.is_none_or(|at| at == gate) && contains(network))
}
