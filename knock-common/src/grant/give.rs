//! Giving a grant, and taking it away.

use bytemuck::Zeroable as _;

use super::{Grant, GrantKey, GrantSlot, filter, find::is_still_of};
use crate::{
    Env, Family, HashTable as _,
    address::{V4, V6},
};

/// How many slots one knock looks at before it gives up. Only who knows a sequence gets here.
const TRIES: usize = 64;

/// Gives or renews the grant of `source` at `gate` from `now` on, and says when it ends, both in ns
/// of `CLOCK_MONOTONIC`. `None`: there is no room.
#[inline(always)]
pub fn give<E: Env, A: Family>(env: &E, source: &A, gate: u16, user: u32, now: u64) -> Option<u64> {
    match give_until(env, source, gate, user, now) {
        0 => None,
        until => Some(until),
    }
}

/// As [`give`], with 0 for `None`: a BPF function returns one register.
#[inline(never)]
fn give_until<E: Env, A: Family>(env: &E, source: &A, gate: u16, user: u32, now: u64) -> u64 {
    let Some(rules) = env.gate(gate) else {
        return 0;
    };
    let length = if rules.to_prefix != 0 {
        A::PREFIX
    } else {
        A::BITS
    };
    let key = GrantKey::new(*source, length, gate);
    let until = now.saturating_add(rules.open_for);

    if filter::may_have(env, &key)
        && let Some(until) = renew(env, &key, until, user)
    {
        return until;
    }
    let Some(slot) = claim(env, &key, now) else {
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
    if insert(env, &key, &grant) {
        return publish(env, &key, until);
    }
    // Another CPU gave the same grant in between, or the family's table is full.
    renew(env, &key, until, user).unwrap_or(0)
}

/// Lets a grant that has just been inserted live until `until`; 0 where it has been revoked meanwhile.
///
/// It is inserted as one that has ended, since the kernel may put it where another key's grant was, which
/// some CPU still reads: that one would take what it finds for its own, did it see the time before the tag.
/// The compare-and-exchange is a full barrier on every machine: whoever sees the time sees the tag.
#[inline(always)]
fn publish<E: Env, A: Family>(env: &E, key: &GrantKey<A>, until: u64) -> u64 {
    if let Some(grant) = A::grants(env).find(key)
        && is_still_of(env, grant, key)
        && env.compare_exchange(&mut grant.until, 0, until)
    {
        until
    } else {
        0
    }
}

/// Starts window and connection count of an existing grant afresh. Never shortens one that was
/// given by hand for longer.
#[inline(always)]
fn renew<E: Env, A: Family>(env: &E, key: &GrantKey<A>, until: u64, user: u32) -> Option<u64> {
    let grant = A::grants(env).find(key)?;
    let before = grant.until;
    let until = until.max(before);
    // 0: another CPU is taking it away, and its key is about to vanish. Failing here costs the
    // client one more try; writing to a slot that has another owner by now would let that one in.
    if before == 0
        || !is_still_of(env, grant, key)
        || !env.compare_exchange(&mut grant.until, before, until)
    {
        return None;
    }
    grant.connections = 0;
    grant.user = user;
    Some(until)
}

/// Takes a slot for `key`, whose former owner has ended.
#[inline(always)]
fn claim<E: Env, A: Family>(env: &E, key: &GrantKey<A>, now: u64) -> Option<u32> {
    for _ in 0..TRIES {
        let (index, slot) = env.next_grant_slot()?;
        let free = match slot.family {
            4 => vacate::<E, V4>(env, slot, index, now),
            6 => vacate::<E, V6>(env, slot, index, now),
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
fn vacate<E: Env, A: Family>(env: &E, slot: &GrantSlot, index: u32, now: u64) -> bool {
    let key = GrantKey::<A> {
        address: A::unpadded(slot.address),
        gate: slot.gate,
        length: slot.length,
        zero: A::Fill::zeroed(),
    };
    let Some(owner) = A::grants(env).find(&key) else {
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
    if !env.compare_exchange(&mut owner.until, until, 0) {
        return false;
    }
    remove(env, &key);
    true
}

/// Adds a grant; false where the key is there already or there is no room.
#[inline(always)]
pub fn insert<E: Env, A: Family>(env: &E, key: &GrantKey<A>, grant: &Grant) -> bool {
    if !filter::count_in(env, key) {
        return false;
    }
    let inserted = A::grants(env).insert(key, grant);
    if !inserted {
        filter::count_out(env, key);
    }
    inserted
}

/// Takes a grant away.
#[inline(always)]
pub fn remove<E: Env, A: Family>(env: &E, key: &GrantKey<A>) {
    if A::grants(env).remove(key) {
        filter::count_out(env, key);
    }
}
