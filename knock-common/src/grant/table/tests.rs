use core::net::Ipv4Addr;
use std::{
    collections::HashSet,
    panic::{self, AssertUnwindSafe},
};

use bytemuck::Zeroable as _;

use super::*;
use crate::{
    address::{V4, V6},
    grant::{
        BY_HAND,
        end::by_user,
        find,
        give::{self as giving, Opening, Terms},
    },
    memory::Memory as _,
    rules::GateRules,
    set::{SETS, WAYS},
    testing::TestEnv,
};

const OPEN_FOR: u64 = 1_000_000_000;
/// ns of the clock of [`env`].
const NOW: u64 = 1_000_000_000;
const USERS: [u32; 2] = [3, 5];

/// Has room for this many grants.
fn env(grants: usize) -> TestEnv {
    let mut env = TestEnv::new(grants, 1);
    env.now.set(NOW);
    env.gates = vec![GateRules {
        open_for: OPEN_FOR,
        ..GateRules::zeroed()
    }];
    env
}

fn address(host: u8) -> V4 {
    V4::from(Ipv4Addr::new(198, 51, 100, host))
}

fn key(host: u8) -> GrantKey<V4> {
    GrantKey::whole(address(host), 0)
}

fn passes(env: &TestEnv, host: u8) -> bool {
    find::live(env, &address(host), 0, 1).is_some()
}

fn knock(env: &TestEnv, host: u8, user: u32) -> Opening {
    giving::give(env, &address(host), &Terms::of(user, 0), env.now.get())
}

/// Gives a grant by hand until this time, as commands do: they try again where the program was faster.
fn allow(env: &TestEnv, host: u8, until: u64) {
    let (key, now) = (key(host), env.now.get());
    let details = Details::new(BY_HAND, 0);
    for _ in 0..2 {
        let is_given = match find(env, &key) {
            Some(found) if found.until > now => renew(env, found, until, details),
            Some(found) => retake(env, &key, found) && give(env, found.slot, &key, until, details),
            None => {
                let slot = (0..4).rev().find(|slot| take(env, *slot, now));
                slot.is_some_and(|slot| give(env, slot, &key, until, details))
            }
        };
        if is_given {
            break;
        }
    }
}

/// Something that is done, with its name.
type Operation = (&'static str, fn(&TestEnv));

/// What several CPUs and processes do at once. The source 1 is in every one of them.
const OPERATIONS: &[Operation] = &[
    ("knock", |env| {
        knock(env, 1, USERS[0]);
    }),
    ("knock of another user", |env| {
        knock(env, 1, USERS[1]);
    }),
    ("knock of another source", |env| {
        knock(env, 2, USERS[0]);
    }),
    ("allow", |env| allow(env, 1, NOW + 2 * OPEN_FOR)),
    ("allow another source", |env| {
        allow(env, 2, NOW + 2 * OPEN_FOR);
    }),
    ("revoke", |env| {
        remove(env, &key(1));
    }),
    ("close", |env| {
        by_user(env, &address(1), &Terms::of(USERS[0], 0), env.now.get());
    }),
    ("packet", |env| {
        passes(env, 1);
    }),
    ("free what has ended", |env| {
        for (slot, grant) in (0..).zip(env.grants()) {
            if grant.until > HELD && grant.until <= env.now.get() {
                free_ended(env, slot, grant.until);
            }
        }
    }),
];

/// What there is before.
const BEFORE: &[Operation] = &[
    ("nothing", |_| {}),
    ("a grant", |env| {
        knock(env, 1, USERS[0]);
    }),
    (
        "a grant that has ended, in the last slot that is free",
        |env| {
            for host in [1, 7, 8, 9] {
                knock(env, host, USERS[0]);
            }
            env.advance(OPEN_FOR);
            for host in [7, 8, 9] {
                knock(env, host, USERS[0]);
            }
        },
    ),
];

/// Each grant is found, once, and counted; and removing all leaves nothing behind. `leaks`: how many slots may be held for good.
fn check(mut env: TestEnv, leaks: usize, case: &str) {
    let held = env
        .grants()
        .iter()
        .filter(|grant| grant.until == HELD)
        .count();
    assert!(held <= leaks, "{case}: {held} slots are held");
    let grants = env.grants_of::<V4>();
    let mut keys = HashSet::new();
    for (key, grant) in &grants {
        assert!(keys.insert(*key), "{case}: {key:?} is there twice");
        let found = find(&env, key).unwrap_or_else(|| panic!("{case}: {key:?} is not found"));
        assert_eq!(
            (found.until, found.earned),
            (grant.until, grant.earned),
            "{case}"
        );
        let position = position_of(key, env.seed());
        assert!(
            filter::may_have(&env, position),
            "{case}: {key:?} is hidden"
        );
    }
    for (key, _) in grants {
        assert!(remove(&env, &key), "{case}");
    }
    assert!(!passes(&env, 1) && !passes(&env, 2), "{case}");
    // Of a slot that is held, a pair and a count may be left.
    let words = env.grant_filter.iter_mut().map(|word| *word.get_mut());
    let words = words.filter(|word| *word != 0).count();
    let sets = env.grant_sets.iter_mut().map(|set| *set.get_mut());
    let sets = sets.filter(|set| *set != Set::default()).count();
    assert!(
        words <= leaks && sets <= leaks,
        "{case}: {words} words, {sets} sets"
    );
}

/// Every operation, with every other one before each of its exchanges and ordered reads.
#[test]
fn operations_that_overlap_leave_each_key_at_most_one_grant() {
    let mut interrupted = 0;
    for (state, before) in BEFORE {
        for (one, operation) in OPERATIONS {
            for (other, meanwhile) in OPERATIONS {
                for nth in 0.. {
                    let env = env(4);
                    before(&env);
                    env.at_access.set(Some((nth, *meanwhile)));
                    operation(&env);
                    let is_done = env.at_access.take().is_some();
                    // Unless the other source has taken the last slot.
                    let opens = ["knock", "knock of another user", "allow"].contains(one);
                    let is_full = state.contains("last slot") && other.contains("another source");
                    if opens && !is_full && !["revoke", "close"].contains(other) {
                        assert!(passes(&env, 1), "{state}; {one}, {other} at {nth}");
                    }
                    check(env, 0, &format!("{state}; {one}, {other} at {nth}"));
                    if is_done {
                        break;
                    }
                    interrupted += 1;
                }
            }
        }
    }
    assert!(interrupted > 500, "{interrupted}");
}

/// What has been revoked stays so, whatever a knock that was judged before that does; and what another source has been
/// given stays.
#[test]
fn a_grant_is_only_changed_as_it_was_found() {
    let env = env(1);
    knock(&env, 1, USERS[0]);
    let found = find(&env, &key(1)).expect("it was given");
    remove(&env, &key(1));
    let details = Details::new(BY_HAND, 0);
    assert!(!renew(&env, found, NOW + 9 * OPEN_FOR, details));
    assert!(!retake(&env, &key(1), found));
    assert!(!passes(&env, 1));

    // The same slot, and the same end.
    assert_eq!(knock(&env, 2, USERS[1]), Opening::Until(found.until));
    assert_eq!(
        find(&env, &key(2)).map(|other| other.slot),
        Some(found.slot)
    );
    assert!(!renew(&env, found, NOW + 9 * OPEN_FOR, details));
    assert!(!retake(&env, &key(1), found));
    end(&env, found, NOW);
    let other = find(&env, &key(2)).expect("it is still there");
    assert_eq!((other.until, other.earned.user()), (found.until, USERS[1]));
    assert!(passes(&env, 2) && !passes(&env, 1));
}

/// A command may be killed at any exchange or ordered read. The owner's next knock opens nevertheless.
#[test]
fn a_command_that_is_killed_keeps_nobody_out() {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut killed = 0;
    for (state, before) in BEFORE {
        for (name, operation) in OPERATIONS {
            for nth in 0.. {
                let env = env(8);
                before(&env);
                env.at_access.set(Some((nth, |_| panic!("killed"))));
                let ended = panic::catch_unwind(AssertUnwindSafe(|| operation(&env)));
                env.at_access.set(None);
                if ended.is_ok() {
                    break;
                }
                killed += 1;
                let opening = panic::catch_unwind(AssertUnwindSafe(|| knock(&env, 1, USERS[0])));
                let case = format!("{state}; {name}, killed at {nth}");
                let is_open = matches!(opening, Ok(Opening::Until(_))) && passes(&env, 1);
                if !is_open {
                    panic::set_hook(hook);
                    panic!("{case}: {opening:?}");
                }
                check(env, 2, &case);
            }
        }
    }
    panic::set_hook(hook);
    assert!(killed > 50, "{killed}");
}

/// The end is read first and once more last. In between, the slot is given to another key.
#[test]
fn an_end_and_a_key_that_do_not_belong_together_are_not_found() {
    let mut mixed = 0;
    for nth in 0..8 {
        let env = env(1);
        knock(&env, 1, USERS[0]);
        env.at_access.set(Some((nth, |env| {
            remove(env, &key(1));
            env.advance(7);
            knock(env, 2, USERS[1]);
        })));
        let found = find(&env, &key(1));
        if env.at_access.take().is_none() {
            assert_eq!(found, None, "at {nth}");
            mixed += 1;
        }
    }
    assert!(mixed > 2, "{mixed}");
}

/// A command was stopped while it gave the grant, and its source has knocked twice since. Whoever closes wants it closed.
#[test]
fn a_close_ends_the_grant_in_each_slot() {
    let env = env(4);
    knock(&env, 1, USERS[0]);
    let found = find(&env, &key(1)).expect("it was given");
    assert!(take(&env, 2, NOW));
    let grant = *env.grant(found.slot).expect("it is one of them");
    *env.grant(2).expect("it is one of them") = grant;
    assert!(link(&env, position_of(&key(1), env.seed()), 2));
    by_user(&env, &address(1), &Terms::of(USERS[0], 0), NOW);
    assert!(!passes(&env, 1));
    let ended = env
        .grants()
        .iter()
        .filter(|grant| grant.until == NOW)
        .count();
    assert_eq!(ended, 2);
}

#[test]
fn a_slot_is_freed_as_it_was_seen() {
    let mut env = env(2);
    knock(&env, 1, USERS[0]);
    let Found { slot, until, .. } = find(&env, &key(1)).expect("it was given");
    env.advance(OPEN_FOR);
    // Its source has knocked again since it was seen to have ended.
    knock(&env, 1, USERS[0]);
    free_ended(&env, slot, until);
    assert!(passes(&env, 1));

    env.advance(OPEN_FOR);
    let Found { slot, until, .. } = find(&env, &key(1)).expect("it is still there");
    free_ended(&env, slot, until);
    assert_eq!(env.grants()[slot as usize].until, FREE);
    assert_eq!(find(&env, &key(1)), None);
    let mut words = env.grant_filter.iter_mut().map(|word| *word.get_mut());
    assert!(words.all(|word| word == 0));
    let mut sets = env.grant_sets.iter_mut().map(|set| *set.get_mut());
    assert!(sets.all(|set| set == Set::default()));

    // Another command holds it by now.
    assert!(take(&env, slot, NOW));
    free_ended(&env, slot, until);
    assert_eq!(env.grants()[slot as usize].until, HELD);
}

/// As many keys of one set as fill it and those behind it.
#[test]
fn keys_of_a_full_set_are_in_the_next_ones() {
    let mut env = env(99);
    let index = |key: &GrantKey<V4>| position_of(key, env.seed()).index() % 16;
    let keys: Vec<_> = (0..)
        .map(|number| GrantKey::whole(V4::from(Ipv4Addr::from_bits(number)), 0))
        .filter(|key| index(key) == 15)
        .take(SETS as usize * WAYS + 1)
        .collect();
    env.grant_sets.truncate(16);
    let details = Details::new(BY_HAND, 0);
    let (last, keys) = keys.split_last().expect("some");
    for (slot, key) in (0..).zip(keys) {
        assert!(take(&env, slot, NOW) && give(&env, slot, key, NOW + 1, details));
    }
    assert!(take(&env, 90, NOW));
    assert!(!give(&env, 90, last, NOW + 1, details), "all sets are full");
    assert_eq!(env.grants()[90].until, FREE);
    // The first ones are in the set of all: those that are left are still found.
    for (removed, key) in keys.iter().enumerate() {
        assert!(keys[removed..].iter().all(|key| find(&env, key).is_some()));
        assert!(remove(&env, key) && find(&env, key).is_none());
    }
    let mut sets = env.grant_sets.iter_mut().map(|set| *set.get_mut());
    assert!(sets.all(|set| set == Set::default()));
}

#[test]
fn no_two_keys_of_ipv4_have_the_same_tag() {
    let tags = |key: GrantKey<V4>| key.tag();
    let mut seen = HashSet::new();
    for (host, length, gate) in [(1, 32, 0), (2, 32, 0), (1, 32, 1), (1, 24, 0), (0, 24, 0)] {
        let masked = GrantKey::new(address(host), length, gate);
        let is_new = seen.insert(tags(masked));
        // The network of both hosts is one key.
        assert_eq!(is_new, (host, length) != (0, 24));
    }
    let v6 = GrantKey::whole(
        V6::from_words(u64::from(u32::from_ne_bytes([198, 51, 100, 1])), 0),
        0,
    );
    assert!(seen.insert(v6.tag()));
}
