//! Grants, which only time, `revoke`, their connections and a change of the configuration end.

use anyhow::{Result, bail};
use aya::Pod;
use knock_common::{
    Address,
    address::{V4, V6},
    grant::{Grant, GrantKey, GrantSlot},
};

use crate::{
    datapath::{edit::grants::InGrants, open::Datapath, tables::data},
    sys::bpf::batch,
};

/// Copies the live grants into tables that no program uses yet.
pub fn copy(old: &Datapath, new: &mut Datapath, now: u64) -> Result<()> {
    let (v4, v6) = (live::<V4>(old, now)?, live::<V6>(old, now)?);
    let (count, room) = (v4.len() + v6.len(), new.grant_slots.len());
    if count > room as usize {
        bail!(
            "{count} grants are live, but limits.grants = {room}; revoke some, or raise the limit"
        );
    }
    // From the end: see `take_slot`.
    let mut slots = (0..room).rev();
    copy_family(new, v4, &mut slots)?;
    copy_family(new, v6, &mut slots)
}

fn copy_family<A: InGrants>(
    new: &mut Datapath,
    grants: Vec<(GrantKey<A>, Grant)>,
    slots: &mut impl Iterator<Item = u32>,
) -> Result<()>
where
    GrantKey<A>: Pod,
{
    let (mut taken, mut rows) = (Vec::new(), Vec::new());
    for ((key, grant), slot) in grants.into_iter().zip(slots) {
        new.grant_filter.count_in(&key);
        taken.push((slot, slot_of(&key)));
        rows.push((key, Grant { slot, ..grant }));
    }
    batch::write(data(&new.grant_slots), taken)?;
    batch::write(data(A::table(&new.grants)), rows)
}

/// Carries over the grants that were given or renewed since [`copy`].
pub fn follow(old: &Datapath, new: &mut Datapath, now: u64) -> Result<()> {
    follow_family(new, live::<V4>(old, now)?, now)?;
    follow_family(new, live::<V6>(old, now)?, now)
}

fn follow_family<A: InGrants>(
    new: &mut Datapath,
    grants: Vec<(GrantKey<A>, Grant)>,
    now: u64,
) -> Result<()>
where
    GrantKey<A>: Pod,
{
    for (key, grant) in grants {
        match new.grant(&key)? {
            // As copied, or renewed by the new program.
            Some(present) if present.until >= grant.until => {}
            Some(Grant { slot, .. }) => {
                new.change(&key, Grant { slot, ..grant })?;
            }
            None => {
                let slot = new.take_slot(&key, now)?;
                new.insert(&key, Grant { slot, ..grant })?;
            }
        }
    }
    Ok(())
}

fn live<A: InGrants>(datapath: &Datapath, now: u64) -> Result<Vec<(GrantKey<A>, Grant)>>
where
    GrantKey<A>: Pod,
{
    let mut live = Vec::new();
    let table = A::table(&datapath.grants);
    batch::for_each(data(table), |key: &GrantKey<A>, grant: &Grant| {
        if grant.until > now {
            live.push((*key, *grant));
        }
    })?;
    Ok(live)
}

fn slot_of<A: Address>(key: &GrantKey<A>) -> GrantSlot {
    GrantSlot {
        address: key.address.padded(),
        gate: key.gate,
        length: key.length,
        family: A::FAMILY,
        zero: 0,
    }
}
