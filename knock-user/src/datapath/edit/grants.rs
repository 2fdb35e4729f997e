//! Grants by hand and by the service, given and taken away while the program changes the same tables.

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use bytemuck::Zeroable as _;
use ipnet::IpNet;
use knock_common::{
    Address,
    address::{V4, V6},
    grant::{BY_HAND, Grant, GrantKey, GrantSlot, MAX_LENGTHS, give::Terms},
};

use super::sessions;
use crate::{
    config::{Config, Gate, GrantTo},
    datapath::{
        open::{Datapath, Grants},
        tables::{absent_as_none, data, is},
    },
    sys::bpf::batch,
};

/// `BPF_NOEXIST` and `BPF_EXIST` of `linux/bpf.h`: make an entry, change one.
const NO_EXIST: u64 = 1;
const EXIST: u64 = 2;

/// There is no room for another grant.
#[derive(Debug)]
pub struct GrantsFull(u32);

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

impl GrantsFull {
    /// `limit`: how many there may be.
    pub(super) const fn of(limit: u32) -> Self {
        Self(limit)
    }
}

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
        self.give(IpNet::new(address, length)?, gate, (BY_HAND, 0), until, now)
    }

    /// Gives or renews the grant for a knock that the service has verified, as the program does for those that it counts: to
    /// whom the gate says, for its `open_for` or `most`, whichever is shorter, and never for less than the grant lasts
    /// already. Returns its end, ns of `CLOCK_MONOTONIC`, as `now` is.
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
        let length = network.prefix_len();
        let longest = u64::try_from(rules.open_for.as_nanos()).unwrap_or(u64::MAX);
        let until = now.saturating_add(longest.min(open_for));
        let before = match address {
            IpAddr::V4(address) => self.grant(&GrantKey::<V4>::new(address.into(), length, id))?,
            IpAddr::V6(address) => self.grant(&GrantKey::<V6>::new(address.into(), length, id))?,
        };
        let until = before.map_or(until, |before| before.until.max(until));
        // One for any port stays one.
        let admits_any = before.is_some_and(|before| before.until > now && before.port == 0);
        let port = if admits_any { 0 } else { port };
        self.give(network, id, (user, port), until, now)?;
        Ok(until)
    }

    fn give(
        &mut self,
        network: IpNet,
        gate: u16,
        holder: (u32, u16),
        until: u64,
        now: u64,
    ) -> Result<()> {
        let length = network.prefix_len();
        match network.addr() {
            IpAddr::V4(address) => {
                let key = GrantKey::<V4>::new(address.into(), length, gate);
                self.give_key(&key, holder, until, now)?;
                sessions::look_up_again(&mut self.sessions.v4, network, gate)
            }
            IpAddr::V6(address) => {
                let key = GrantKey::<V6>::new(address.into(), length, gate);
                self.give_key(&key, holder, until, now)?;
                sessions::look_up_again(&mut self.sessions.v6, network, gate)
            }
        }
    }

    fn give_key<A: InGrants>(
        &mut self,
        key: &GrantKey<A>,
        (user, port): (u32, u16),
        until: u64,
        now: u64,
    ) -> Result<()>
    where
        GrantKey<A>: Pod,
    {
        if key.length != A::BITS {
            self.add_length::<A>(key.length, now)?;
        }
        let slot = match absent_as_none(A::of(&mut self.grants).get(key, 0))? {
            Some(grant) => grant.slot,
            None => self.take_slot(key, now)?,
        };
        let grant = Grant {
            until,
            tag: key.tag(),
            connections: 0,
            user,
            slot,
            port,
            zero: 0,
        };
        // Repeated each time that the program has removed or added the same grant in between.
        loop {
            if self.insert(key, grant)? || self.change(key, grant)? {
                return Ok(());
            }
        }
    }

    pub(in crate::datapath) fn grant<A: InGrants>(&self, key: &GrantKey<A>) -> Result<Option<Grant>>
    where
        GrantKey<A>: Pod,
    {
        absent_as_none(A::table(&self.grants).get(key, 0))
    }

    /// Adds a grant. Returns `false` where there is one.
    pub(in crate::datapath) fn insert<A: InGrants>(
        &mut self,
        key: &GrantKey<A>,
        grant: Grant,
    ) -> Result<bool>
    where
        GrantKey<A>: Pod,
    {
        self.grant_filter.count_in(key);
        let inserted = A::of(&mut self.grants).insert(key, grant, NO_EXIST);
        if inserted.is_err() {
            self.grant_filter.count_out(key);
        }
        match inserted {
            Err(error) if is(&error, libc::EEXIST) => Ok(false),
            inserted => inserted
                .map(|()| true)
                .context("cannot write the grant; the table of grants may be full"),
        }
    }

    /// Changes a grant. Returns `false` where there is none.
    pub(in crate::datapath) fn change<A: InGrants>(
        &mut self,
        key: &GrantKey<A>,
        grant: Grant,
    ) -> Result<bool>
    where
        GrantKey<A>: Pod,
    {
        let replaced = A::of(&mut self.grants).insert(key, grant, EXIST);
        Ok(absent_as_none(replaced)?.is_some())
    }

    /// Removes a grant. Returns `false` where there is none.
    pub(in crate::datapath) fn remove_grant<A: InGrants>(
        &mut self,
        key: &GrantKey<A>,
    ) -> Result<bool>
    where
        GrantKey<A>: Pod,
    {
        let removed = absent_as_none(A::of(&mut self.grants).remove(key))?.is_some();
        if removed {
            self.grant_filter.count_out(key);
        }
        Ok(removed)
    }

    /// Takes a slot whose grant has ended for `key`, and returns its index.
    pub(in crate::datapath) fn take_slot<A: Address>(
        &mut self,
        key: &GrantKey<A>,
        now: u64,
    ) -> Result<u32> {
        // From the end, since knocks begin at the front and look at a bounded number of slots in a row: grants by hand
        // last long, and many may be given at once.
        for index in (0..self.grant_slots.len()).rev() {
            if self.occupy(index, key, now)? {
                return Ok(index);
            }
        }
        Err(GrantsFull(self.grant_slots.len()).into())
    }

    /// Takes one slot for `key`, if its grant has ended. Returns whether it did.
    pub(super) fn occupy<A: Address>(
        &mut self,
        index: u32,
        key: &GrantKey<A>,
        now: u64,
    ) -> Result<bool> {
        let slot = self.grant_slots.get(&index, 0)?;
        let is_free = self.slot_is_free(slot, index, now)?;
        if is_free {
            let taken = GrantSlot {
                address: key.address.padded(),
                gate: key.gate,
                length: key.length,
                family: A::FAMILY,
                zero: 0,
            };
            self.grant_slots.set(index, taken, 0)?;
        }
        Ok(is_free)
    }

    fn slot_is_free(&mut self, slot: GrantSlot, index: u32, now: u64) -> Result<bool> {
        match slot.family {
            4 => self.vacate::<V4>(slot, index, now),
            6 => self.vacate::<V6>(slot, index, now),
            _ => Ok(true),
        }
    }

    fn vacate<A: InGrants>(&mut self, slot: GrantSlot, index: u32, now: u64) -> Result<bool>
    where
        GrantKey<A>: Pod,
    {
        let key = GrantKey {
            address: A::unpadded(slot.address),
            gate: slot.gate,
            length: slot.length,
            zero: A::Fill::zeroed(),
        };
        match absent_as_none(A::of(&mut self.grants).get(&key, 0))? {
            Some(grant) if grant.slot == index && grant.until > now => Ok(false),
            Some(grant) if grant.slot == index => {
                self.remove_grant(&key)?;
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    /// Makes the kernel look for grants of this prefix length too.
    pub(super) fn add_length<A: InGrants>(&mut self, length: u8, now: u64) -> Result<()>
    where
        GrantKey<A>: Pod,
    {
        let to_prefix = gives_to_prefixes(self.config());
        let mut wanted = self.lengths_in_use::<A>(to_prefix, now)?;
        wanted.insert(length);
        if wanted.len() >= MAX_LENGTHS {
            wanted.remove(&length);
            bail!("{}", too_many(&wanted));
        }
        self.set_lengths::<A>(wanted)
    }

    /// Makes the kernel look for grants of the prefix lengths of live grants, and of those that knocks make under `next`:
    /// the configuration in force or the one that is about to be.
    pub(in crate::datapath) fn look_for_lengths(&mut self, next: &Config, now: u64) -> Result<()> {
        // While both are in use, knocks may make what either says.
        let to_prefix = gives_to_prefixes(self.config()) || gives_to_prefixes(next);
        let v4 = self.lengths_in_use::<V4>(to_prefix, now)?;
        let v6 = self.lengths_in_use::<V6>(to_prefix, now)?;
        for lengths in [&v4, &v6] {
            if lengths.len() >= MAX_LENGTHS {
                bail!("{}", too_many(lengths));
            }
        }
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

    /// Returns the prefix lengths of live grants, and with `to_prefix` the one that knocks make.
    fn lengths_in_use<A: InGrants>(&self, to_prefix: bool, now: u64) -> Result<BTreeSet<u8>>
    where
        GrantKey<A>: Pod,
    {
        let mut lengths = BTreeSet::new();
        if to_prefix {
            lengths.insert(A::PREFIX);
        }
        let grants = A::table(&self.grants);
        batch::for_each(data(grants), |key: &GrantKey<A>, grant: &Grant| {
            if grant.until > now && key.length != A::BITS {
                lengths.insert(key.length);
            }
        })?;
        Ok(lengths)
    }
}

fn gives_to_prefixes(config: &Config) -> bool {
    let to_prefix = |gate: &Gate| gate.grant_to == GrantTo::Prefix;
    config.gates.iter().any(to_prefix)
}

fn too_many(lengths: &BTreeSet<u8>) -> String {
    let names: Vec<String> = lengths.iter().map(|length| format!("/{length}")).collect();
    format!(
        "grants of {} different prefix lengths are live already, and the kernel program looks for no more; use one \
         of {}",
        lengths.len(),
        names.join(", ")
    )
}

/// An address whose family has a table of grants.
pub(in crate::datapath) trait InGrants: Address
where
    GrantKey<Self>: Pod,
{
    fn table(grants: &Grants) -> &HashMap<MapData, GrantKey<Self>, Grant>;
    fn of(grants: &mut Grants) -> &mut HashMap<MapData, GrantKey<Self>, Grant>;
}

impl InGrants for V4 {
    fn table(grants: &Grants) -> &HashMap<MapData, GrantKey<Self>, Grant> {
        &grants.v4
    }

    fn of(grants: &mut Grants) -> &mut HashMap<MapData, GrantKey<Self>, Grant> {
        &mut grants.v4
    }
}

impl InGrants for V6 {
    fn table(grants: &Grants) -> &HashMap<MapData, GrantKey<Self>, Grant> {
        &grants.v6
    }

    fn of(grants: &mut Grants) -> &mut HashMap<MapData, GrantKey<Self>, Grant> {
        &mut grants.v6
    }
}
