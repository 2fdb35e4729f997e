//! Giving grants.

use super::{
    GrantKey, filter,
    table::{self, Details},
};
use crate::{
    Address, Env,
    set::{NO_SLOT, Position},
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

/// What a valid knock of any kind gives to its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long it opens, ns; never longer than the gate's `open_for`.
    pub open_for: u64,
    /// See [`Earned::user`](super::Earned::user).
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

/// The grant that a valid knock gives, worked out once for all the steps of giving it.
struct Due<A> {
    key: GrantKey<A>,
    position: Position,
    /// ns of `CLOCK_MONOTONIC`.
    until: u64,
    user: u32,
    port: u16,
}

impl<A> Due<A> {
    #[inline(always)]
    const fn details(&self) -> Details {
        Details::new(self.user, self.port)
    }
}

/// Gives or renews the grant of `source` for a valid knock, from `now` on, ns of `CLOCK_MONOTONIC`.
///
/// Functions are called one after the other, since nested calls share 512 bytes of stack. Each returns one number, since a
/// BPF function returns one register.
#[inline(always)]
pub fn give<E: Env, A: Address>(env: &E, source: &A, terms: &Terms, now: u64) -> Opening {
    let Some(rules) = env.gate(terms.gate) else {
        return Opening::TableFull;
    };
    if rules.restricted != 0 && !may_knock(env, source, terms.gate) {
        return Opening::Source;
    }
    let key = GrantKey::new(*source, super::length::<A>(rules), terms.gate);
    let due = Due {
        position: table::position_of(&key, env.seed()),
        key,
        until: now.saturating_add(rules.open_for.min(terms.open_for)),
        user: terms.user,
        port: terms.port,
    };
    let mut until = NONE;
    table::expect(env, due.position);
    // Most knocks give a new grant, and the filter says so.
    if filter::may_have(env, due.position) {
        until = renewed(env, &due, now);
    }
    if until == NONE || until == ENDED {
        let mut slot = NO_SLOT;
        if until == ENDED {
            slot = retaken(env, &due, now);
        }
        if slot == NO_SLOT {
            slot = env.claim_grant(now);
        }
        until = NONE;
        if slot != NO_SLOT && given(env, &due, slot) {
            until = due.until;
        }
        if until == NONE {
            // Another CPU has given or renewed the same grant in between, or there is no room.
            until = renewed(env, &due, now);
        }
    }
    match until {
        NONE | ENDED => Opening::TableFull,
        until => Opening::Until(until),
    }
}

/// In place of the end of a grant: there is none.
const NONE: u64 = 0;
/// In place of the end of a grant: it has ended.
const ENDED: u64 = 1;

/// Returns whether `source` is in one of the networks that may knock at `gate`.
#[inline(never)]
fn may_knock<E: Env, A: Address>(env: &E, source: &A, gate: u16) -> bool {
    env.may_knock(*source, gate)
}

/// Renews the grant that is due, if it is there and live.
#[inline(never)]
fn renewed<E: Env, A: Address>(env: &E, due: &Due<A>, now: u64) -> u64 {
    if let Some(found) = table::find_at(env, &due.key, due.position, NO_SLOT) {
        if found.until <= now {
            return ENDED;
        }
        if found.stays(due.until, due.port, admits_more(env, due, found.slot)) {
            return found.until;
        }
        if table::renew(env, found, due.until, due.details()) {
            return due.until;
        }
    }
    NONE
}

/// Returns whether the grant in a slot, at the gate of the one that is due, admits another connection.
#[inline(always)]
fn admits_more<E: Env, A: Address>(env: &E, due: &Due<A>, slot: u32) -> bool {
    let limit = env.gate(due.key.gate).map_or(0, |rules| rules.connections);
    limit == 0
        || env
            .grant(slot)
            .is_some_and(|grant| grant.connections < limit)
}

/// Takes the slot of the grant that is due, if it has ended. Returns its index, or [`NO_SLOT`].
#[inline(never)]
fn retaken<E: Env, A: Address>(env: &E, due: &Due<A>, now: u64) -> u32 {
    if let Some(found) = table::find_at(env, &due.key, due.position, NO_SLOT)
        && found.until <= now
        && table::retake(env, &due.key, found)
    {
        return found.slot;
    }
    NO_SLOT
}

/// Takes a slot without a grant, or whose grant has ended. Returns its index, or [`NO_SLOT`].
#[inline(always)]
pub fn claim<E: Env>(env: &E, now: u64) -> u32 {
    for _ in 0..TRIES {
        let Some(slot) = env.next_grant_slot() else {
            break;
        };
        if table::take(env, slot, now) {
            return slot;
        }
    }
    NO_SLOT
}

/// Gives a claimed slot. Returns whether it was given.
#[inline(always)]
fn given<E: Env, A: Address>(env: &E, due: &Due<A>, slot: u32) -> bool {
    table::give_at(env, slot, &due.key, due.position, due.until, due.details())
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use bytemuck::Zeroable as _;

    use super::*;
    use crate::{
        address::V4,
        grant::{BY_HAND, find},
        rules::GateRules,
        testing::TestEnv,
    };

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
            assert_eq!((grant.until, grant.earned.user()), (until, 3));
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
        for (before, has_ended, asked, port) in [
            (0, false, 7, 0),
            (0, true, 7, 7),
            (5, false, 7, 7),
            (5, true, 7, 7),
            (5, false, 0, 0),
            (u16::MAX, false, 7, 7),
        ] {
            let env = env(GateRules::zeroed());
            let give = |port| {
                let terms = Terms {
                    port,
                    ..Terms::of(3, 0)
                };
                give(&env, &V4::from(SOURCE), &terms, env.now.get());
            };
            give(before);
            if has_ended {
                env.advance(OPEN_FOR);
            }
            give(asked);
            let [(_, grant)] = env.grants_of::<V4>()[..] else {
                panic!("there is one");
            };
            assert_eq!(grant.earned.port(), port, "{before} {has_ended} {asked}");
        }
    }

    /// Nobody has asked for every port until then.
    #[test]
    fn a_knock_for_one_port_does_not_prolong_a_grant_for_any() {
        let env = env(GateRules::zeroed());
        knock(&env, OPEN_FOR / 2);
        let terms = Terms {
            port: 7,
            ..Terms::of(4, 0)
        };
        let end = env.now.get() + OPEN_FOR / 2;
        let given = give(&env, &V4::from(SOURCE), &terms, env.now.get());
        assert_eq!(given, Opening::Until(end));
        env.advance(OPEN_FOR / 2);
        for port in [1, 7] {
            assert!(find::live(&env, &V4::from(SOURCE), 0, port).is_none());
        }
    }

    #[test]
    fn a_shorter_knock_does_not_make_connections_of_a_longer_grant() {
        const LIMIT: u32 = 2;
        for (used, until, user, left) in [
            // It still admits one, and stays as it is.
            (LIMIT - 1, OPEN_FOR, 3, 1),
            // It admits none. The knock's own is in its place, and ends before.
            (LIMIT, 7, 4, LIMIT),
        ] {
            let env = env(GateRules {
                connections: LIMIT,
                ..GateRules::zeroed()
            });
            knock(&env, OPEN_FOR);
            let grant = find::live(&env, &V4::from(SOURCE), 0, 1).expect("it was given");
            grant.connections = used;
            let terms = Terms {
                open_for: 7,
                ..Terms::of(4, 0)
            };
            let until = env.now.get() + until;
            let given = give(&env, &V4::from(SOURCE), &terms, env.now.get());
            assert_eq!(given, Opening::Until(until));
            let grant = find::live(&env, &V4::from(SOURCE), 0, 1).expect("it lives");
            assert_eq!((grant.until, grant.earned.user()), (until, user));
            assert_eq!(LIMIT - grant.connections, left, "{used}");
        }
    }

    /// It ends with the user that it is given to: with the knock's, all who pass by it would be shut out.
    #[test]
    fn a_grant_that_lasts_longer_stays_that_of_whom_it_was_given_to() {
        for (asked, user) in [(OPEN_FOR - 1, BY_HAND), (OPEN_FOR, 3)] {
            let env = env(GateRules::zeroed());
            give(
                &env,
                &V4::from(SOURCE),
                &Terms::of(BY_HAND, 0),
                env.now.get(),
            );
            knock(&env, asked);
            let grant = find::live(&env, &V4::from(SOURCE), 0, 1).expect("it was given");
            let until = env.now.get() + OPEN_FOR;
            assert_eq!((grant.until, grant.earned.user()), (until, user));
        }
    }

    #[test]
    fn a_full_table_refuses() {
        let mut env = TestEnv::new(0, 1);
        env.gates.push(GateRules::zeroed());
        assert_eq!(knock(&env, OPEN_FOR), Opening::TableFull);
    }
}
