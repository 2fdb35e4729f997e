//! Ends grants and sessions before their time.

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{
    address::{V4, V6},
    grant::GrantKey,
};

use crate::{
    datapath::{open::Datapath, view::grants::GrantRow},
    sys::grace,
};

/// What a revocation has ended, and what it has left.
#[derive(Debug, Default)]
pub struct Ended {
    pub grants: usize,
    pub sessions: usize,
    /// Grants of wider networks, with the ids of their gates: what was revoked may still pass by them.
    pub wider: Vec<(IpNet, u16)>,
}

impl Datapath {
    /// Removes the grants and sessions of every source within these networks, each at one gate or, with `None`, at all.
    pub fn revoke(&mut self, revoked: &[(IpNet, Option<u16>)]) -> Result<Ended> {
        let mut ended = Ended::default();
        for row in self.grants()? {
            if is_revoked(revoked, row.gate, |network| network.contains(&row.source)) {
                ended.grants += usize::from(self.end_grant(&row)?);
            } else if is_revoked(revoked, row.gate, |network| row.source.contains(network)) {
                ended.wider.push((row.source, row.gate));
            }
        }
        // A packet that is being judged may have found a grant, be it one that has just ended by itself, and begin a session.
        grace::wait();
        ended.sessions = self.end_sessions(|session| {
            let [source, _] = session.ends();
            is_revoked(revoked, session.tenancy.gate(), |network| {
                network.contains(&source.ip())
            })
        })?;
        Ok(ended)
    }

    /// Removes a grant. Returns `false` where it is gone.
    pub(in crate::datapath) fn end_grant(&self, row: &GrantRow) -> Result<bool> {
        let length = row.source.prefix_len();
        match row.source.addr() {
            IpAddr::V4(address) => {
                self.remove_grant(&GrantKey::<V4>::new(address.into(), length, row.gate))
            }
            IpAddr::V6(address) => {
                self.remove_grant(&GrantKey::<V6>::new(address.into(), length, row.gate))
            }
        }
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
