//! Grants that another host has given, put into the tables while the program changes them.

use std::{cell::Cell, net::IpAddr};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{
    Address,
    address::{V4, V6},
    grant::{
        BY_HAND, GrantKey,
        table::{self, Details, Found},
    },
    knock::authenticated::key::NAME,
};

use super::grant_table::GrantTable;
use crate::{
    datapath::{
        keys::{Print, tables},
        open::Datapath,
        tables::data,
        view::grants::GrantRow,
    },
    sys::bpf::batch,
};

/// When a grant of another host ends.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// ns of `CLOCK_MONOTONIC`.
    pub until: u64,
    /// A grant is left alone where it would be renewed by less than this, ns.
    pub doubt: u64,
}

/// What became of a grant of another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    Given,
    /// There is one that lasts as long, or one for one port that lasts longer.
    Lasts,
    /// There is one, and whether it lasts as long is in [doubt](Ends::doubt).
    InDoubt,
}

impl Datapath {
    /// Puts a grant into the tables that another host has given, unless there is one that lasts as long. `user`: with the number
    /// of the host. `now`: ns of `CLOCK_MONOTONIC`.
    pub fn admit_remote(
        &mut self,
        source: IpNet,
        gate: u16,
        user: u32,
        ends: Ends,
        now: u64,
    ) -> Result<Admitted> {
        let length = source.prefix_len();
        match source.addr() {
            IpAddr::V4(address) => {
                let key = GrantKey::<V4>::new(address.into(), length, gate);
                self.admit_key(&key, user, ends, now)
            }
            IpAddr::V6(address) => {
                let key = GrantKey::<V6>::new(address.into(), length, gate);
                self.admit_key(&key, user, ends, now)
            }
        }
    }

    fn admit_key<A: Address>(
        &mut self,
        key: &GrantKey<A>,
        user: u32,
        ends: Ends,
        now: u64,
    ) -> Result<Admitted> {
        self.look_for::<A>(key.length, now)?;
        let admitted = Cell::new(Admitted::Given);
        let decide = |before: Option<Found>, _: &GrantTable| {
            admitted.set(admitted_beside(before, ends, now));
            (admitted.get() == Admitted::Given).then(|| (ends.until, Details::new(user, 0)))
        };
        let mut last = self.spread;
        let take = |grants: &GrantTable| take_spread_slot(grants, &mut last, now);
        let given = self.store(key, decide, take, now);
        self.spread = last;
        given?;
        Ok(admitted.get())
    }

    /// Returns the grant of exactly this network at a gate, live or not.
    pub fn grant_of(&self, source: IpNet, gate: u16) -> Result<Option<GrantRow>> {
        let length = source.prefix_len();
        let grants = self.grant_table()?;
        let found = match source.addr() {
            IpAddr::V4(address) => {
                table::find(grants, &GrantKey::<V4>::new(address.into(), length, gate))
            }
            IpAddr::V6(address) => {
                table::find(grants, &GrantKey::<V6>::new(address.into(), length, gate))
            }
        };
        Ok(found.map(|found| GrantRow {
            gate,
            user: (found.earned.user() != BY_HAND).then_some(found.earned.user()),
            source,
            until: found.until,
            connections: grants.connections(found.slot),
            port: found.earned.port(),
        }))
    }

    /// Ends the grant of exactly this network at a gate if this user has it, whose number is without that of a host.
    pub fn end_grant_of(&mut self, source: IpNet, gate: u16, user: u32) -> Result<()> {
        let row = self.grant_of(source, gate)?;
        if let Some(row) = row.filter(|row| row.user == Some(user)) {
            self.end_grant(&row)?;
        }
        Ok(())
    }

    /// Returns how many grants there is room for.
    pub fn grants_capacity(&self) -> u32 {
        self.grants.len()
    }

    /// Makes packets of the key in a slot count from this time on, Unix ns, if that is later than from when they count now.
    pub fn raise_newest(&self, slot: u16, time: u64) -> Result<()> {
        self.keys()?.raise_newest(slot, time);
        Ok(())
    }

    /// Returns the time of the newest packet of the key in each slot that this host has accepted, Unix ns; 0: it knows of none.
    pub fn accepted_by_slot(&self) -> Result<Vec<u64>> {
        Ok(self.keys()?.accepted_by_slot())
    }

    /// Returns the same of the key in one slot.
    pub fn accepted_in(&self, slot: u16) -> Result<u64> {
        Ok(self.keys()?.accepted_in(slot))
    }

    /// Returns which slots belong to which key.
    pub fn key_slots(&self) -> Result<Vec<(u16, String)>> {
        let mut slots = Vec::new();
        batch::for_each(data(&self.key_names), |slot: &u32, name: &[u8; NAME]| {
            let name = tables::text(name);
            if let (Ok(slot), false) = (u16::try_from(*slot), name.is_empty()) {
                slots.push((slot, name));
            }
        })?;
        Ok(slots)
    }

    /// Returns the print of each key that is not revoked, by its slot.
    pub fn key_prints(&self) -> Result<Vec<(u16, Print)>> {
        Ok(self.keys()?.prints())
    }

    /// Returns what the keys open that are not revoked: the slot of the key, and the id of the gate.
    pub fn opened_by_keys(&self) -> Result<std::collections::HashSet<(u32, u32)>> {
        self.keys()?.opened()
    }
}

/// Returns what becomes of a grant of another host where this one is there.
fn admitted_beside(before: Option<Found>, ends: Ends, now: u64) -> Admitted {
    let Ends { until, doubt } = ends;
    let Some(before) = before.filter(|before| before.until > now) else {
        return Admitted::Given;
    };
    if before.earned.port() != 0 {
        // It admits less and is replaced, but not where its user, who knocked here, would be out sooner.
        return if before.until > until.saturating_add(doubt) {
            Admitted::Lasts
        } else {
            Admitted::Given
        };
    }
    if before.until >= until {
        Admitted::Lasts
    } else if before.until.saturating_add(doubt) >= until {
        Admitted::InDoubt
    } else {
        Admitted::Given
    }
}

/// Takes a slot without a live grant, far from the one that was taken before, `last`, which becomes it. A knock looks at a
/// bounded number of slots in a row: many grants side by side would leave no room for it.
fn take_spread_slot(grants: &GrantTable, last: &mut u64, now: u64) -> Option<u32> {
    let count = grants.indices().end;
    let step = step(count);
    (0..count).find_map(|_| {
        *last = (*last + step) % u64::from(count);
        let slot = u32::try_from(*last).ok()?;
        table::take(grants, slot, now).then_some(slot)
    })
}

/// Returns a step by which all of `count` places are visited once, each far from those before: near the golden section.
fn step(count: u32) -> u64 {
    let count = u64::from(count);
    let near = count * 618 / 1000;
    (near.max(1)..=count)
        .find(|step| divisor(*step, count) == 1)
        .unwrap_or(1)
}

fn divisor(one: u64, other: u64) -> u64 {
    if other == 0 {
        one
    } else {
        divisor(other, one % other)
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::must_cast;

    use super::*;

    #[test]
    fn a_grant_for_one_port_is_replaced_by_what_another_host_gives_unless_it_lasts_longer() {
        let beside = |until, port: u16| {
            let before = Found {
                slot: 0,
                until,
                earned: must_cast(u64::from(port) << 32 | 7),
            };
            let ends = Ends {
                until: 50,
                doubt: 5,
            };
            admitted_beside(Some(before), ends, 20)
        };
        for (until, port, becomes) in [
            (20, 0, Admitted::Given),
            (44, 0, Admitted::Given),
            (45, 0, Admitted::InDoubt),
            (50, 0, Admitted::Lasts),
            (20, 50_000, Admitted::Given),
            (50, 50_000, Admitted::Given),
            (55, 50_000, Admitted::Given),
            (56, 50_000, Admitted::Lasts),
            (100, 50_000, Admitted::Lasts),
        ] {
            assert_eq!(beside(until, port), becomes, "{until}, {port}");
        }
    }

    #[test]
    fn every_place_is_visited_once_and_none_next_to_the_one_before() {
        for count in [1, 2, 3, 10, 1000, 65_536, 99_991] {
            let step = step(count);
            let mut visited = vec![false; count as usize];
            let mut at = 0;
            for _ in 0..count {
                at = (at + step) % u64::from(count);
                let place = usize::try_from(at).expect("small");
                assert!(!std::mem::replace(&mut visited[place], true), "{count}");
            }
        }
    }

    #[test]
    fn with_half_of_the_places_taken_no_run_is_long() {
        let (count, mut at) = (65_536, 0);
        let mut taken = vec![false; count];
        for _ in 0..count * 7 / 8 {
            at = (at + usize::try_from(step(65_536)).expect("small")) % count;
            taken[at] = true;
        }
        let runs = taken.split(|taken| !taken).map(<[bool]>::len);
        let longest = runs.max().expect("some");
        assert!(longest < 16, "{longest}");
    }
}
