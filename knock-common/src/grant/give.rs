//! Giving and removing grants.

use bytemuck::Zeroable as _;

use super::{Grant, GrantKey, GrantSlot, filter, find::is_still_of};
use crate::{
    Env, Family, HashTable as _,
    address::{V4, V6},
};

/// How many slots one knock looks at before it gives up. Only valid knocks get here.
const TRIES: usize = 64;

/// The result of a valid knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// A grant was given or renewed, until this time, ns of `CLOCK_MONOTONIC`.
    Until(u64),
    /// The source is not in one of the networks that may knock at the gate.
    Source,
    /// There is no room for a grant.
    TableFull,
}

impl Opening {
    const TABLE_FULL: u64 = 0;
    const SOURCE: u64 = 1;

    #[inline(always)]
    const fn unpack(packed: u64) -> Self {
        match packed {
            Self::TABLE_FULL => Self::TableFull,
            Self::SOURCE => Self::Source,
            until => Self::Until(until),
        }
    }
}

/// What a valid knock of any kind gives to its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long it opens, ns; never longer than the gate's `open_for`.
    pub open_for: u64,
    /// See [`Grant::user`].
    pub user: u32,
    pub gate: u16,
    /// The source port that the grant is limited to; 0: none.
    pub port: u16,
}

impl Terms {
    /// As long as the gate allows, from any port.
    #[inline(always)]
    pub const fn of(user: u32, gate: u16) -> Self {
        Self {
            open_for: u64::MAX,
            user,
            gate,
            port: 0,
        }
    }
}

/// Gives or renews the grant of `source` for a valid knock, from `now` on, ns of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn give<E: Env, A: Family>(env: &E, source: &A, terms: &Terms, now: u64) -> Opening {
    Opening::unpack(given(env, source, terms, now))
}

/// As [`give`], packed, since a BPF function returns one register.
#[inline(never)]
fn given<E: Env, A: Family>(env: &E, source: &A, terms: &Terms, now: u64) -> u64 {
    let gate = terms.gate;
    let Some(rules) = env.gate(gate) else {
        return Opening::TABLE_FULL;
    };
    if rules.restricted != 0 && !env.may_knock(*source, gate) {
        return Opening::SOURCE;
    }
    let key = GrantKey::new(*source, super::length::<A>(rules), gate);
    let until = now.saturating_add(rules.open_for.min(terms.open_for));

    if filter::may_have(env, &key)
        && let Some(until) = renew(env, &key, until, terms, now)
    {
        return until;
    }
    let Some(slot) = claim(env, &key, now) else {
        return Opening::TABLE_FULL;
    };
    let grant = Grant {
        // Set by `publish`.
        until: 0,
        tag: key.tag(),
        connections: 0,
        user: terms.user,
        slot,
        port: terms.port,
        zero: 0,
    };
    if insert(env, &key, &grant) {
        return publish(env, &key, until);
    }
    // Another CPU gave the same grant in between, or the family's table is full.
    renew(env, &key, until, terms, now).unwrap_or(Opening::TABLE_FULL)
}

/// Sets the end of a grant that has just been inserted. Returns it, or 0 if the grant has been revoked meanwhile.
///
/// A grant is inserted as ended, since the kernel may store it where another key's grant was, which another CPU still
/// reads. If that CPU saw the new end before the new tag, it would take the grant for its own. The compare-and-exchange
/// is a full barrier on every architecture: a CPU that has seen the end sees the tag.
#[inline(always)]
fn publish<E: Env, A: Family>(env: &E, key: &GrantKey<A>, until: u64) -> u64 {
    if let Some(grant) = A::grants(env).find(key)
        && is_still_of(env, grant, key, grant.until)
        && env.compare_exchange(&mut grant.until, 0, until)
    {
        until
    } else {
        0
    }
}

/// Restarts time and connection count of an existing grant. Never shortens a grant that was given by hand for longer, nor
/// limits one to a port that is live without such a limit.
#[inline(always)]
fn renew<E: Env, A: Family>(
    env: &E,
    key: &GrantKey<A>,
    until: u64,
    terms: &Terms,
    now: u64,
) -> Option<u64> {
    let grant = A::grants(env).find(key)?;
    let before = grant.until;
    let port = limit(grant.port, terms.port, before, now);
    let until = until.max(before);
    // 0: another CPU is removing it. A failure here costs the client another try; a write to an entry that belongs to
    // another key by now would let that source in.
    if before == 0
        || !is_still_of(env, grant, key, before)
        || !env.compare_exchange(&mut grant.until, before, until)
    {
        return None;
    }
    grant.connections = 0;
    grant.user = terms.user;
    grant.port = port;
    Some(until)
}

/// Returns the port that a grant is limited to when it is renewed to admit `port`; 0: none. A grant for any port stays one
/// while it is live. Without a branch, since the verifier would follow all that comes after for each way.
#[inline(always)]
const fn limit(before: u16, port: u16, until: u64, now: u64) -> u16 {
    // 1 or 0 each: the sign of a difference.
    let is_live = now.wrapping_sub(until) >> 63;
    let admits_any = (before as u64).wrapping_sub(1) >> 63;
    port & ((is_live & admits_any) as u16).wrapping_sub(1)
}

/// Claims a slot for `key`: an unused one, or one whose owner has ended.
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

/// Returns whether the slot is free, after removing its owner if that has ended.
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
        // Its owner has another slot by now.
        return true;
    }
    if until > now || until == 0 {
        return false;
    }
    // A renewal on another CPU and this cannot both succeed.
    if !env.compare_exchange(&mut owner.until, until, 0) {
        return false;
    }
    remove(env, &key);
    true
}

/// Adds a grant. Returns false if the key is there already or there is no room.
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

/// Removes a grant.
#[inline(always)]
pub fn remove<E: Env, A: Family>(env: &E, key: &GrantKey<A>) {
    if A::grants(env).remove(key) {
        filter::count_out(env, key);
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::{address::Address as _, grant::find, rules::GateRules, testing::TestEnv};

    const SOURCE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    const OPEN_FOR: u64 = 1_000_000_000;

    fn env(rules: GateRules) -> TestEnv {
        let mut env = TestEnv::new(1, 1);
        env.gates.push(GateRules {
            open_for: OPEN_FOR,
            ..rules
        });
        env
    }

    fn knock(env: &TestEnv, open_for: u64) -> Opening {
        let terms = Terms {
            open_for,
            ..Terms::of(3, 0)
        };
        give(env, &V4::from(SOURCE), &terms, env.now.get())
    }

    #[test]
    fn a_knock_opens_for_as_long_as_it_asks_and_no_longer_than_the_gate_allows() {
        for (asked, given) in [(7, 7), (OPEN_FOR + 1, OPEN_FOR), (u64::MAX, OPEN_FOR)] {
            let env = env(GateRules::zeroed());
            let until = env.now.get() + given;
            assert_eq!(knock(&env, asked), Opening::Until(until));
            let grant = find::live(&env, &V4::from(SOURCE), 0, 1).expect("it was given");
            assert_eq!((grant.until, grant.user), (until, 3));
        }
    }

    #[test]
    fn a_restricted_gate_opens_for_its_sources_alone() {
        let mut env = env(GateRules {
            restricted: 1,
            ..GateRules::zeroed()
        });
        assert_eq!(knock(&env, OPEN_FOR), Opening::Source);
        assert!(find::live(&env, &V4::from(SOURCE), 0, 1).is_none());
        env.knockers
            .push((0, V4::FAMILY, V4::from(SOURCE).padded(), V4::BITS));
        assert!(matches!(knock(&env, OPEN_FOR), Opening::Until(_)));
    }

    #[test]
    fn a_live_grant_for_any_port_is_not_limited() {
        for (before, until, port) in [
            (0, 101, 0),
            (0, 100, 7),
            (0, 0, 7),
            (5, 101, 7),
            (5, 100, 7),
            (u16::MAX, 101, 7),
        ] {
            assert_eq!(limit(before, 7, until, 100), port, "{before} {until}");
            assert_eq!(limit(before, 0, until, 100), 0);
        }
    }

    #[test]
    fn a_full_table_refuses() {
        let mut env = TestEnv::new(0, 1);
        env.gates.push(GateRules::zeroed());
        assert_eq!(knock(&env, OPEN_FOR), Opening::TableFull);
    }
}
