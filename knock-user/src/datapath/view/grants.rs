//! Live grants.

use anyhow::Result;
use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use ipnet::IpNet;
use knock_common::{
    Address,
    grant::{BY_HAND, Grant, GrantKey},
};

use crate::{
    datapath::{open::Datapath, tables::data},
    sys::{bpf::batch, clock::monotonic_now},
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
        count(&self.grants.v4, now, &mut counts)?;
        count(&self.grants.v6, now, &mut counts)?;
        Ok(counts)
    }

    /// Returns the live grants, those that end first in front.
    pub fn grants(&self) -> Result<Vec<GrantRow>> {
        let now = monotonic_now();
        self.sorted_grants(|grant| grant.until > now)
    }

    /// Calls `each` with every live grant, in no order: for who looks again and again, and needs no list of them.
    pub fn each_grant(&self, each: impl FnMut(GrantRow)) -> Result<()> {
        let now = monotonic_now();
        self.grants_with(|grant| grant.until > now, each)
    }

    /// Returns the grants that have ended after the time `since` and are still in their tables, those that ended first in
    /// front. A new grant may take the place of one that has ended. `since`: ns of `CLOCK_MONOTONIC`.
    pub fn ended_grants(&self, since: u64) -> Result<Vec<GrantRow>> {
        let now = monotonic_now();
        self.sorted_grants(|grant| (since + 1..=now).contains(&grant.until))
    }

    fn sorted_grants(&self, wanted: impl Fn(&Grant) -> bool) -> Result<Vec<GrantRow>> {
        let mut rows = Vec::new();
        self.grants_with(wanted, |row| rows.push(row))?;
        rows.sort_by_key(|row| (row.until, row.source));
        Ok(rows)
    }

    fn grants_with(
        &self,
        wanted: impl Fn(&Grant) -> bool,
        mut each: impl FnMut(GrantRow),
    ) -> Result<()> {
        read(&self.grants.v4, &wanted, &mut each)?;
        read(&self.grants.v6, &wanted, &mut each)
    }
}

fn count<A: Address>(
    table: &HashMap<MapData, GrantKey<A>, Grant>,
    now: u64,
    counts: &mut GrantCounts,
) -> Result<()>
where
    GrantKey<A>: Pod,
{
    batch::for_each(data(table), |key: &GrantKey<A>, grant: &Grant| {
        if grant.until > now {
            counts.add(key.gate);
        }
    })
}

fn read<A: Address>(
    table: &HashMap<MapData, GrantKey<A>, Grant>,
    wanted: impl Fn(&Grant) -> bool,
    mut each: impl FnMut(GrantRow),
) -> Result<()>
where
    GrantKey<A>: Pod,
{
    batch::for_each(data(table), |key: &GrantKey<A>, grant: &Grant| {
        let source = IpNet::new(key.address.into(), key.length);
        if let Ok(source) = source
            && wanted(grant)
        {
            each(GrantRow {
                gate: key.gate,
                user: (grant.user != BY_HAND).then_some(grant.user),
                source,
                until: grant.until,
                connections: grant.connections,
                port: grant.port,
            });
        }
    })
}
