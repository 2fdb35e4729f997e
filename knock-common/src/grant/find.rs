//! Looking up the grant that covers a packet.

use super::{
    Grant, GrantKey, MAX_LENGTHS, filter,
    table::{self, Found},
};
use crate::{Address, Env, set::NO_SLOT};

/// Returns the live grant under which a packet of `source` may reach `gate`: the one with the longest prefix that admits
/// another connection, or else the one with the longest prefix. `port`: the packet's source port.
#[inline(always)]
pub fn live<'e, E: Env, A: Address>(
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
fn look_up<'e, E: Env, A: Address>(
    env: &'e E,
    key: &GrantKey<A>,
    port: u16,
) -> Option<&'e mut Grant> {
    if !filter::may_have(env, table::position_of(key, env.seed())) {
        return None;
    }
    admitting(env, table::find(env, key)?, port)
}

/// As [`look_up`], where several grants are looked up; see [`table::find_except`].
#[inline(always)]
fn look_up_apart<'e, E: Env, A: Address>(
    env: &'e E,
    key: &GrantKey<A>,
    port: u16,
) -> Option<&'e mut Grant> {
    if !filter::may_have(env, table::position_of(key, env.seed())) {
        return None;
    }
    admitting(env, table::find_except(env, key, NO_SLOT)?, port)
}

/// Returns a grant that was found, if it lives and admits this source port.
#[inline(always)]
fn admitting<E: Env>(env: &E, found: Found, port: u16) -> Option<&mut Grant> {
    if found.until > env.now() && Grant::admits(found.earned.port(), port) {
        env.grant(found.slot)
    } else {
        None
    }
}

/// As [`live`], if prefixes can have grants.
#[inline(never)]
fn closest<'e, E: Env, A: Address>(
    env: &'e E,
    source: &A,
    gate: u16,
    port: u16,
) -> Option<&'e mut Grant> {
    let limit = env.gate(gate)?.connections;
    let has_room = |grant: &Grant| limit == 0 || grant.connections < limit;
    let mut closest = look_up_apart(env, &GrantKey::whole(*source, gate), port);
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
        if let Some(grant) = look_up_apart(env, &key, port) {
            if has_room(grant) {
                return Some(grant);
            }
            closest = closest.or(Some(grant));
        }
        lengths >>= 8;
    }
    closest
}
