//! Grants: given by a completed sequence, ended by the clock, never pushed out.
//!
//! Both families' grants share one ring of slots, whose size is the limit. A new grant takes the
//! next slot whose owner has ended and takes that owner out of its table, so ended grants make room
//! with no process running.

use bytemuck::Zeroable as _;

use crate::{
    Address, Kernel, Table,
    address::{V4, V6},
    presence,
    table::{Grant, GrantKey, GrantSlot},
};

/// How many slots one knock looks at before it gives up. Only who knows a sequence gets here.
const TRIES: usize = 64;

/// Gives or renews the grant of `source` at `gate` from `now` on, and says when it ends, both in ns
/// of `CLOCK_MONOTONIC`. `None`: there is no room.
#[inline(always)]
pub fn give<K: Kernel, A: Address>(
    kernel: &K,
    source: &A,
    gate: u16,
    user: u32,
    now: u64,
) -> Option<u64> {
    match give_until(kernel, source, gate, user, now) {
        0 => None,
        until => Some(until),
    }
}

/// As [`give`], with 0 for `None`: a BPF function returns one register.
#[inline(never)]
fn give_until<K: Kernel, A: Address>(
    kernel: &K,
    source: &A,
    gate: u16,
    user: u32,
    now: u64,
) -> u64 {
    let Some(rules) = kernel.gate(gate) else {
        return 0;
    };
    let length = if rules.to_prefix != 0 {
        A::PREFIX
    } else {
        A::BITS
    };
    let key = GrantKey::new(*source, length, gate);
    let until = now.saturating_add(rules.open_for);

    if presence::may_have(kernel, &key)
        && let Some(until) = renew(kernel, &key, until, user)
    {
        return until;
    }
    let Some(slot) = claim(kernel, &key, now) else {
        return 0;
    };
    let grant = Grant {
        // Until it has been published, below.
        until: 0,
        tag: key.tag(),
        connections: 0,
        user,
        slot,
        zero: 0,
    };
    if insert(kernel, &key, &grant) {
        return publish(kernel, &key, until);
    }
    // Another CPU gave the same grant in between, or the family's table is full.
    renew(kernel, &key, until, user).unwrap_or(0)
}

/// Lets a grant that has just been inserted live until `until`; 0 where it has been revoked meanwhile.
///
/// It is inserted as one that has ended, since the kernel may put it where another key's grant was, which
/// some CPU still reads: that one would take what it finds for its own, did it see the time before the tag.
/// The compare-and-exchange is a full barrier on every machine: whoever sees the time sees the tag.
#[inline(always)]
fn publish<K: Kernel, A: Address>(kernel: &K, key: &GrantKey<A>, until: u64) -> u64 {
    if let Some(grant) = A::grants(kernel).find(key)
        && is_still_of(kernel, grant, key)
        && kernel.compare_exchange(&mut grant.until, 0, until)
    {
        until
    } else {
        0
    }
}

/// Is what was read of a grant that of `key`? Compares the tag behind what was read before: a
/// compare-and-exchange that succeeds is a full barrier on every machine.
#[inline(always)]
fn is_still_of<K: Kernel, A: Address>(kernel: &K, grant: &mut Grant, key: &GrantKey<A>) -> bool {
    let tag = key.tag();
    kernel.compare_exchange(&mut grant.tag, tag, tag)
}

/// The grant under which a packet of `source` may reach `gate`, if there is one: the closest that has
/// room for another connection, else the closest of all.
#[inline(always)]
pub fn live<'k, K: Kernel, A: Address>(
    kernel: &'k K,
    source: &A,
    gate: u16,
) -> Option<&'k mut Grant> {
    if kernel.grant_lengths::<A>() != 0 {
        return closest(kernel, source, gate);
    }
    look_up(kernel, &GrantKey::whole(*source, gate))
}

/// The live grant with this key. What a flood gets: one word of memory, and not even the price of the
/// clock.
#[inline(always)]
fn look_up<'k, K: Kernel, A: Address>(kernel: &'k K, key: &GrantKey<A>) -> Option<&'k mut Grant> {
    if !presence::may_have(kernel, key) {
        return None;
    }
    let grant = A::grants(kernel).find(key)?;
    let now = kernel.now();
    (grant.until > now && is_still_of(kernel, grant, key)).then_some(grant)
}

/// As [`live`], where prefixes have grants too.
#[inline(never)]
fn closest<'k, K: Kernel, A: Address>(
    kernel: &'k K,
    source: &A,
    gate: u16,
) -> Option<&'k mut Grant> {
    let limit = kernel.gate(gate)?.connections;
    let has_room = |grant: &Grant| limit == 0 || grant.connections < limit;
    let mut closest = look_up(kernel, &GrantKey::whole(*source, gate));
    if closest.as_deref().is_some_and(has_room) {
        return closest;
    }
    let mut lengths = kernel.grant_lengths::<A>();
    for _ in 1..crate::table::MAX_LENGTHS {
        let length = lengths as u8;
        if length == 0 {
            break;
        }
        let key = GrantKey::new(*source, length, gate);
        if let Some(grant) = look_up(kernel, &key) {
            if has_room(grant) {
                return Some(grant);
            }
            closest = closest.or(Some(grant));
        }
        lengths >>= 8;
    }
    closest
}

/// Starts window and connection count of an existing grant afresh. Never shortens one that was
/// given by hand for longer.
#[inline(always)]
fn renew<K: Kernel, A: Address>(
    kernel: &K,
    key: &GrantKey<A>,
    until: u64,
    user: u32,
) -> Option<u64> {
    let grant = A::grants(kernel).find(key)?;
    let before = grant.until;
    let until = until.max(before);
    // 0: another CPU is taking it away, and its key is about to vanish. Failing here costs the
    // client one more try; writing to a slot that has another owner by now would let that one in.
    if before == 0
        || !is_still_of(kernel, grant, key)
        || !kernel.compare_exchange(&mut grant.until, before, until)
    {
        return None;
    }
    grant.connections = 0;
    grant.user = user;
    Some(until)
}

/// Takes a slot for `key`, whose former owner has ended.
#[inline(always)]
fn claim<K: Kernel, A: Address>(kernel: &K, key: &GrantKey<A>, now: u64) -> Option<u32> {
    for _ in 0..TRIES {
        let (index, slot) = kernel.next_grant_slot()?;
        let free = match slot.family {
            4 => vacate::<K, V4>(kernel, slot, index, now),
            6 => vacate::<K, V6>(kernel, slot, index, now),
            _ => true,
        };
        if free {
            *slot = GrantSlot {
                address: key.address.padded(),
                gate: key.gate,
                length: key.length,
                family: A::FAMILY,
                zero: 0,
            };
            return Some(index);
        }
    }
    None
}

/// Is the slot free, or could it be freed?
#[inline(always)]
fn vacate<K: Kernel, A: Address>(kernel: &K, slot: &GrantSlot, index: u32, now: u64) -> bool {
    let key = GrantKey::<A> {
        address: A::unpadded(slot.address),
        gate: slot.gate,
        length: slot.length,
        zero: A::Fill::zeroed(),
    };
    let Some(owner) = A::grants(kernel).find(&key) else {
        return true;
    };
    let until = owner.until;
    if owner.slot != index || owner.tag != key.tag() {
        // Its owner has moved to another slot.
        return true;
    }
    if until > now || until == 0 {
        return false;
    }
    // A renewal on another CPU and this can't both succeed.
    if !kernel.compare_exchange(&mut owner.until, until, 0) {
        return false;
    }
    remove(kernel, &key);
    true
}

/// Adds a grant; false where the key is there already or there is no room.
#[inline(always)]
pub fn insert<K: Kernel, A: Address>(kernel: &K, key: &GrantKey<A>, grant: &Grant) -> bool {
    if !presence::count_in(kernel, key) {
        return false;
    }
    let inserted = A::grants(kernel).insert(key, grant);
    if !inserted {
        presence::count_out(kernel, key);
    }
    inserted
}

/// Takes a grant away.
#[inline(always)]
pub fn remove<K: Kernel, A: Address>(kernel: &K, key: &GrantKey<A>) {
    if A::grants(kernel).remove(key) {
        presence::count_out(kernel, key);
    }
}
