//! Live grants.

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{
    Address,
    address::{V4, V6},
    grant::{BY_HAND, Grant, HELD},
};

use crate::{
    datapath::open::Datapath,
    sys::{bpf::mapping::Mapping, clock::monotonic_now},
};

/// A grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRow {
    /// Id of the gate.
    pub gate: u16,
    /// Number of who knocked, with that of the host where; `None`: given by hand at this host.
    pub user: Option<u32>,
    pub source: IpNet,
    /// ns of `CLOCK_MONOTONIC`.
    pub until: u64,
    /// New connections admitted so far.
    pub connections: u32,
    /// The source port that it is limited to; 0: none.
    pub port: u16,
}

/// How many grants are live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantCounts {
    /// By the id of the gate.
    by_gate: Vec<u64>,
}

impl GrantCounts {
    /// Returns how many are live at a gate.
    pub fn at(&self, gate: u16) -> u64 {
        let count = self.by_gate.get(usize::from(gate));
        count.copied().unwrap_or_default()
    }

    /// Returns how many are live at all gates together.
    pub fn all(&self) -> u64 {
        self.by_gate.iter().sum()
    }

    fn add(&mut self, gate: u16) {
        let gate = usize::from(gate);
        if self.by_gate.len() <= gate {
            self.by_gate.resize(gate + 1, 0);
        }
        self.by_gate[gate] += 1;
    }
}

impl Datapath {
    /// Counts the live grants, in a fraction of the time that [`Datapath::grants`] takes.
    pub fn count_grants(&self) -> Result<GrantCounts> {
        let now = monotonic_now();
        let mut counts = GrantCounts::default();
        self.each_slot(|_, grant| {
            if grant.until > now {
                counts.add(grant.gate());
            }
        })?;
        Ok(counts)
    }

    /// Returns the live grants, those that end first in front.
    pub fn grants(&self) -> Result<Vec<GrantRow>> {
        let now = monotonic_now();
        self.sorted_grants(|until| until > now)
    }

    /// Calls `each` with every live grant, in no order: for callers that look again and again, and need no list of them.
    pub fn each_grant(&self, mut each: impl FnMut(GrantRow)) -> Result<()> {
        let now = monotonic_now();
        self.every_grant(|_, row| {
            if row.until > now {
                each(row);
            }
        })
    }

    /// As [`Datapath::each_grant`], with the grants that have ended and are still in their slots, and with the slot of each.
    pub fn every_grant(&self, mut each: impl FnMut(u32, GrantRow)) -> Result<()> {
        self.each_slot(|slot, grant| {
            if let Some(row) = GrantRow::of::<V4>(grant).or_else(|| GrantRow::of::<V6>(grant)) {
                each(slot, row);
            }
        })
    }

    /// Returns the grants that have ended after the time `since` and are still in their slots, those that ended first in
    /// front. A new grant may have taken the slot of one that has ended, or the service may have freed it. `since`: ns of
    /// `CLOCK_MONOTONIC`.
    pub fn ended_grants(&self, since: u64) -> Result<Vec<GrantRow>> {
        let now = monotonic_now();
        self.sorted_grants(|until| (since + 1..=now).contains(&until))
    }

    fn sorted_grants(&self, wanted: impl Fn(u64) -> bool) -> Result<Vec<GrantRow>> {
        let mut rows = Vec::new();
        self.every_grant(|_, row| {
            if wanted(row.until) {
                rows.push(row);
            }
        })?;
        rows.sort_by_key(|row| (row.until, row.source));
        Ok(rows)
    }

    /// Calls `each` with every grant, live or not, and its slot.
    pub(in crate::datapath) fn each_slot(&self, mut each: impl FnMut(u32, &Grant)) -> Result<()> {
        if self.is_writable() {
            let grants = self.grant_table()?.grants();
            grants.for_each(|(slot, grant)| each(slot, &grant));
        } else {
            let copy = Mapping::of(&self.grants)?;
            let grants = (0..).zip(copy.iter());
            let grants = grants.filter(|(_, grant)| grant.until > HELD);
            grants.for_each(|(slot, grant)| each(slot, &grant));
        }
        Ok(())
    }
}

impl GrantRow {
    /// Returns the row of a grant, if its address is of this family.
    fn of<A: Address>(grant: &Grant) -> Option<Self> {
        let key = grant.key::<A>()?;
        Some(Self {
            gate: key.gate,
            user: (grant.earned.user() != BY_HAND).then_some(grant.earned.user()),
            source: IpNet::new(key.address.into(), key.length).ok()?,
            until: grant.until,
            connections: grant.connections,
            port: grant.earned.port(),
        })
    }
}
