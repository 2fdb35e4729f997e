//! Ends grants and sessions before their time.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{
    address::{V4, V6},
    grant::GrantKey,
};

use crate::{
    datapath::{open::Datapath, origin::Holder, view::grants::GrantRow},
    sys::grace,
};

/// What a revocation ends.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Every source within it.
    pub network: IpNet,
    /// `None`: every gate.
    pub gate: Option<u16>,
    /// What this host has given goes on: it was ended before, as far as it was there then.
    pub spares_own: bool,
}

impl Scope {
    /// Whoever has given it.
    pub const fn of(network: IpNet, gate: Option<u16>) -> Self {
        Self {
            network,
            gate,
            spares_own: false,
        }
    }
}

/// What a revocation has ended, and what it has left.
#[derive(Debug, Default)]
pub struct Ended {
    pub grants: usize,
    pub sessions: usize,
    /// Grants of wider networks, with the ids of their gates: what was revoked may still pass by them.
    pub wider: Vec<(IpNet, u16)>,
}

impl Datapath {
    /// Removes the grants of these scopes, and the sessions of their sources. When this returns, no packet passes by one of them any
    /// more.
    pub fn revoke(&mut self, scopes: &[Scope]) -> Result<Ended> {
        let mut ended = Ended::default();
        let mut spared = Spared::default();
        for row in self.grants()? {
            let is_own = row.user.is_none_or(|user| Holder::of(user).host == 0);
            let within = |network: &IpNet| network.contains(&row.source);
            let around = |network: &IpNet| row.source.contains(network);
            if is_revoked(scopes, row.gate, is_own, within) {
                ended.grants += usize::from(self.end_grant(&row)?);
            } else if is_revoked(scopes, row.gate, false, within) {
                spared.add(&row);
            } else if is_revoked(scopes, row.gate, is_own, around) {
                ended.wider.push((row.source, row.gate));
            }
        }
        // A packet that is being judged may have found a grant, be it one that has just ended by itself, and begin a session.
        grace::wait();
        ended.sessions = self.end_sessions(|session| {
            let [source, _] = session.ends();
            let (gate, source) = (session.tenancy.gate(), source.ip());
            is_revoked(scopes, gate, spared.has(gate, source), |network| {
                network.contains(&source)
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

/// Grants that go on, with which sessions do.
#[derive(Default)]
struct Spared {
    places: BTreeSet<(u16, IpNet)>,
    lengths: BTreeSet<u8>,
}

impl Spared {
    fn add(&mut self, row: &GrantRow) {
        self.places.insert((row.gate, row.source));
        self.lengths.insert(row.source.prefix_len());
    }

    fn has(&self, gate: u16, source: IpAddr) -> bool {
        let networks = self.lengths.iter();
        let mut networks = networks.filter_map(|length| IpNet::new(source, *length).ok());
        networks.any(|network| self.places.contains(&(gate, network.trunc())))
    }
}

/// `is_own`: this host has given it.
fn is_revoked(
    scopes: &[Scope],
    gate: u16,
    is_own: bool,
    contains: impl Fn(&IpNet) -> bool,
) -> bool {
    scopes.iter().any(|scope| {
        scope.gate.is_none_or(|at| at == gate)
            && !(is_own && scope.spares_own)
            && contains(&scope.network)
    })
}
