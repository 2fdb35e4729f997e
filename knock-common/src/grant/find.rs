//! Looking up the grant that covers a packet.

use super::{Grant, GrantKey, MAX_LENGTHS, filter};
use crate::{Env, Family, HashTable as _};

/// Returns the live grant under which a packet of `source` may reach `gate`: the one with the longest prefix that admits
/// another connection, or else the one with the longest prefix. `port`: the packet's source port.
#[inline(always)]
pub fn live<'e, E: Env, A: Family>(
    env: &'e E,
    source: &A,
    gate: u16,
    port: u16,
) -> Option<&'e mut Grant> {
    if env.grant_lengths::<A>() != 0 {
        return closest(env, source, gate, port);
    }
    look_up(env, &GrantKey::whole(*source, gate), port)
}

/// Returns the live grant with this key, if it admits this source port. A packet of a flood reads one word of the filter,
/// and not even the clock.
#[inline(always)]
fn look_up<'e, E: Env, A: Family>(
    env: &'e E,
    key: &GrantKey<A>,
    port: u16,
) -> Option<&'e mut Grant> {
    if !filter::may_have(env, key) {
        return None;
    }
    let grant = A::grants(env).find(key)?;
    let now = env.now();
    let (until, limit) = (grant.until, grant.port);
    let read = until ^ u64::from(limit);
    (until > now && Grant::admits(limit, port) && is_still_of(env, grant, key, read))
        .then_some(grant)
}

/// As [`live`], if prefixes can have grants.
#[inline(never)]
fn closest<'e, E: Env, A: Family>(
    env: &'e E,
    source: &A,
    gate: u16,
    port: u16,
) -> Option<&'e mut Grant> {
    let limit = env.gate(gate)?.connections;
    let has_room = |grant: &Grant| limit == 0 || grant.connections < limit;
    let mut closest = look_up(env, &GrantKey::whole(*source, gate), port);
    if closest.as_deref().is_some_and(has_room) {
        return closest;
    }
    let mut lengths = env.grant_lengths::<A>();
    for _ in 1..MAX_LENGTHS {
        let length = lengths as u8;
        if length == 0 {
            break;
        }
        let key = GrantKey::new(*source, length, gate);
        if let Some(grant) = look_up(env, &key, port) {
            if has_room(grant) {
                return Some(grant);
            }
            closest = closest.or(Some(grant));
        }
        lengths >>= 8;
    }
    closest
}

/// Returns whether what was read from a grant is that of `key`: the tag is read after it. `read`: a number that is computed from
/// all of it. Every packet that a grant admits asks this, so nothing is written.
#[inline(always)]
pub(super) fn is_still_of<E: Env, A: Family>(
    env: &E,
    grant: &Grant,
    key: &GrantKey<A>,
    read: u64,
) -> bool {
    env.read_after(&grant.tag, read) == key.tag()
}
