//! Grants by hand and by the service, given and taken away while the program changes the same tables.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use knock_common::{
    Address,
    address::{V4, V6},
    grant::{
        BY_HAND, GrantKey, MAX_LENGTHS,
        give::Terms,
        table::{self, Details, Found},
    },
};

use super::{grant_table::GrantTable, sessions};
use crate::{
    config::{Config, Gate, GrantTo},
    datapath::{carry::Room, open::Datapath},
};

/// There is no room for another grant.
#[derive(Debug)]
pub struct GrantsFull(
    /// `limits.grants`.
    pub(in crate::datapath) u32,
);

impl fmt::Display for GrantsFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the table of grants is full ({} entries, limits.grants); revoke some, or wait until some have ended",
            self.0
        )
    }
}

impl std::error::Error for GrantsFull {}

/// Grants of as many prefix lengths are live as the kernel program looks for.
#[derive(Debug)]
pub struct TooManyLengths(BTreeSet<u8>);

impl fmt::Display for TooManyLengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(|length| format!("/{length}")).collect();
        write!(
            f,
            "grants of {} different prefix lengths are live already, and the kernel program looks for no more; use one of {}",
            self.0.len(),
            names.join(", ")
        )
    }
}

impl std::error::Error for TooManyLengths {}

impl Datapath {
    /// Gives the grant of a network at a gate by hand, in place of one that there was. `now` and `until`: ns of
    /// `CLOCK_MONOTONIC`.
    pub fn allow(
        &mut self,
        address: IpAddr,
        length: u8,
        gate: u16,
        until: u64,
        now: u64,
    ) -> Result<()> {
        let network = IpNet::new(address, length)?;
        let details = Details::new(BY_HAND, 0);
        self.give(network, gate, |_, _| Some((until, details)), now)?;
        Ok(())
    }

    /// Gives or renews the grant for a knock that the service has verified, as the program does for those that it counts: to
    /// whom the gate says, for its `open_for` or `most`, whichever is shorter, unless the grant that is there
    /// [stays](Found::stays). Returns its end, ns of `CLOCK_MONOTONIC`, as `now` is.
    pub fn admit(
        &mut self,
        address: IpAddr,
        gate: &str,
        user: &str,
        most: Duration,
        now: u64,
    ) -> Result<u64> {
        let gate = self.require_gate(gate)?;
        let name = self.applied.gate_name(gate).unwrap_or_default();
        let user = self.applied.ids.user(name, user);
        let terms = Terms {
            open_for: u64::try_from(most.as_nanos()).unwrap_or(u64::MAX),
            user: user.context("the gate has no such user")?,
            gate,
            port: 0,
        };
        self.admit_on(address, &terms, now)
    }

    /// As [`Datapath::admit`], for these terms.
    pub fn admit_on(&mut self, address: IpAddr, terms: &Terms, now: u64) -> Result<u64> {
        let Terms {
            open_for,
            user,
            gate: id,
            port,
        } = *terms;
        let rules = self.applied.gate(id).context("there is no such gate")?;
        let network = rules.grant_to.network(address);
        let longest = u64::try_from(rules.open_for.as_nanos()).unwrap_or(u64::MAX);
        let until = now.saturating_add(longest.min(open_for));
        let limit = rules.connections;
        let stays = Cell::new(until);
        let decide = |before: Option<Found>, grants: &GrantTable| {
            if let Some(before) = before.filter(|before| before.until > now) {
                let admits_more = limit == 0 || grants.connections(before.slot) < limit;
                if before.stays(until, port, admits_more) {
                    stays.set(before.until);
                    return None;
                }
            }
            Some((until, Details::new(user, port)))
        };
        let given = self.give(network, id, decide, now)?;
        Ok(given.unwrap_or(stays.get()))
    }

    /// Gives or changes the grant of a network, as `decide` says; see [`Datapath::store`].
    fn give(
        &mut self,
        network: IpNet,
        gate: u16,
        decide: impl Fn(Option<Found>, &GrantTable) -> Option<(u64, Details)>,
        now: u64,
    ) -> Result<Option<u64>> {
        let length = network.prefix_len();
        let take = |table: &GrantTable| take_slot(table, now);
        match network.addr() {
            IpAddr::V4(address) => {
                let key = GrantKey::<V4>::new(address.into(), length, gate);
                self.look_for::<V4>(length, now)?;
                let given = self.store(&key, decide, take, now)?;
                sessions::look_up_again(self.session_table()?, network, gate);
                Ok(given)
            }
            IpAddr::V6(address) => {
                let key = GrantKey::<V6>::new(address.into(), length, gate);
                self.look_for::<V6>(length, now)?;
                let given = self.store(&key, decide, take, now)?;
                sessions::look_up_again(self.session_table()?, network, gate);
                Ok(given)
            }
        }
    }

    /// Makes the kernel look for grants of this prefix length too.
    pub(super) fn look_for<A: Address>(&mut self, length: u8, now: u64) -> Result<()> {
        if self.looks_for::<A>(length)? {
            return Ok(());
        }
        let to_prefix = gives_to_prefixes(self.config());
        let mut wanted = self.lengths_in_use::<A>(to_prefix, now)?;
        wanted.entry(length).or_insert(u64::MAX);
        if wanted.len() >= MAX_LENGTHS {
            wanted.remove(&length);
            return Err(TooManyLengths(wanted.into_keys().collect()).into());
        }
        self.set_lengths::<A>(wanted.into_keys().collect())
    }

    fn looks_for<A: Address>(&self, length: u8) -> Result<bool> {
        if length == A::BITS {
            return Ok(true);
        }
        let packed = self.lengths.get(&u32::from(A::FAMILY != 4), 0)?;
        Ok(packed.to_le_bytes().contains(&length))
    }

    /// Returns whether the kernel looks for grants of a network's prefix length.
    pub(in crate::datapath) fn looks_for_network(&self, network: IpNet) -> Result<bool> {
        match network {
            IpNet::V4(network) => self.looks_for::<V4>(network.prefix_len()),
            IpNet::V6(network) => self.looks_for::<V6>(network.prefix_len()),
        }
    }

    /// Gives a grant, or changes the one that is there. `decide`: returns its end, ns of `CLOCK_MONOTONIC`, and the rest of it,
    /// by what is there; `None`: it stays as it is, and `None` is returned. `take`: takes a slot for it and returns its index. `now`: ns of the same clock.
    /// Returns the end that it has been given.
    pub(in crate::datapath) fn store<A: Address>(
        &self,
        key: &GrantKey<A>,
        decide: impl Fn(Option<Found>, &GrantTable) -> Option<(u64, Details)>,
        mut take: impl FnMut(&GrantTable) -> Option<u32>,
        now: u64,
    ) -> Result<Option<u64>> {
        /// How often it is tried. Nearly always, the program has given, renewed or ended the same grant in between.
        const TRIES: usize = 100;
        let grants = self.grant_table()?;
        for _ in 0..TRIES {
            let found = table::find(grants, key);
            let Some((until, details)) = decide(found, grants) else {
                return Ok(None);
            };
            let is_stored = match found {
                Some(found) if found.until > now => table::renew(grants, found, until, details),
                Some(found) => {
                    table::retake(grants, key, found)
                        && table::give(grants, found.slot, key, until, details)
                }
                None => {
                    let slot = take(grants).ok_or(GrantsFull(self.grants.len()))?;
                    table::give(grants, slot, key, until, details)
                }
            };
            if is_stored {
                return Ok(Some(until));
            }
        }
        // The table is full, or the sets in which this key may be are full.
        Err(GrantsFull(self.grants.len()).into())
    }

    /// Removes a grant. Returns `false` where there is none.
    pub(super) fn remove_grant<A: Address>(&self, key: &GrantKey<A>) -> Result<bool> {
        Ok(table::remove(self.grant_table()?, key))
    }

    /// Frees slots whose grants have ended: each with the end that its grant had, ns of `CLOCK_MONOTONIC`. These grants no longer
    /// appear in [`Datapath::ended_grants`].
    pub fn free_ended(&self, ended: &[(u32, u64)]) -> Result<()> {
        let grants = self.grant_table()?;
        for (slot, until) in ended {
            table::free_ended(grants, *slot, *until);
        }
        Ok(())
    }

    /// Makes the kernel look for grants of the prefix lengths of live grants, and of those that knocks make under `next`:
    /// the configuration in force or the one that is about to be. `room`: whether those that last longest are enough.
    pub(in crate::datapath) fn look_for_lengths(
        &mut self,
        next: &Config,
        room: Room,
        now: u64,
    ) -> Result<()> {
        // While both are in use, knocks may make what either says.
        let to_prefix = gives_to_prefixes(self.config()) || gives_to_prefixes(next);
        let v4 = fitting(self.lengths_in_use::<V4>(to_prefix, now)?, room)?;
        let v6 = fitting(self.lengths_in_use::<V6>(to_prefix, now)?, room)?;
        self.set_lengths::<V4>(v4)?;
        self.set_lengths::<V6>(v6)
    }

    fn set_lengths<A: Address>(&mut self, lengths: BTreeSet<u8>) -> Result<()> {
        // Longest first, so that the closest grant is the one that counts connections.
        let mut packed = [0; 8];
        for (place, length) in packed.iter_mut().zip(lengths.into_iter().rev()) {
            *place = length;
        }
        let index = u32::from(A::FAMILY != 4);
        self.lengths.set(index, u64::from_le_bytes(packed), 0)?;
        Ok(())
    }

    /// Returns the prefix lengths of live grants, each with the last end of one, and with `to_prefix` the one that knocks make.
    fn lengths_in_use<A: Address>(&self, to_prefix: bool, now: u64) -> Result<BTreeMap<u8, u64>> {
        let mut lengths = BTreeMap::new();
        if to_prefix {
            lengths.insert(A::PREFIX, u64::MAX);
        }
        self.each_slot(|_, grant| {
            if grant.until > now
                && let Some(key) = grant.key::<A>()
                && key.length != A::BITS
            {
                let last = lengths.entry(key.length).or_insert(grant.until);
                *last = grant.until.max(*last);
            }
        })?;
        Ok(lengths)
    }
}

/// Returns those of these prefix lengths, each with the last end of a grant, that the kernel can look for at once. Fails where these
/// have to be all.
fn fitting(lengths: BTreeMap<u8, u64>, room: Room) -> Result<BTreeSet<u8>> {
    if lengths.len() < MAX_LENGTHS {
        return Ok(lengths.into_keys().collect());
    }
    if room == Room::ForAll {
        return Err(TooManyLengths(lengths.into_keys().collect()).into());
    }
    let mut by_end: Vec<(u8, u64)> = lengths.into_iter().collect();
    by_end.sort_by_key(|(_, until)| Reverse(*until));
    let left_out = by_end.split_off(MAX_LENGTHS - 1).into_iter();
    let left_out: Vec<String> = left_out.map(|(length, _)| format!("/{length}")).collect();
    tracing::warn!(
        "grants of too many different prefix lengths are live, so those of {} end",
        left_out.join(", ")
    );
    Ok(by_end.into_iter().map(|(length, _)| length).collect())
}

/// Takes a slot without a live grant. Returns its index.
pub(in crate::datapath) fn take_slot(grants: &GrantTable, now: u64) -> Option<u32> {
    // From the end, since knocks begin at the front and look at a bounded number of slots in a row: grants by hand
    // last long, and many may be given at once.
    grants
        .indices()
        .rev()
        .find(|slot| table::take(grants, *slot, now))
}

fn gives_to_prefixes(config: &Config) -> bool {
    let to_prefix = |gate: &Gate| gate.grant_to == GrantTo::Prefix;
    config.gates.iter().any(to_prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_lengths_those_stay_that_last_longest() {
        let lengths: BTreeMap<u8, u64> =
            (0..8).map(|place| (20 + place, u64::from(place))).collect();
        fitting(lengths.clone(), Room::ForAll).expect_err("one is too many");
        let some = fitting(lengths.clone(), Room::ForSome).expect("seven are enough");
        assert_eq!(some, (21..28).collect());
        let mut knocks_make = lengths;
        knocks_make.insert(20, u64::MAX);
        let some = fitting(knocks_make, Room::ForSome).expect("seven are enough");
        assert_eq!(some, [20, 22, 23, 24, 25, 26, 27].into());
    }
}
