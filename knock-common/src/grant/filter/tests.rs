use std::{array, net::Ipv4Addr};

use bytemuck::Zeroable as _;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    Address,
    address::{V4, V6},
    grant::{
        BY_HAND, Grant, GrantKey, HELD, give,
        table::{self, Details},
    },
    memory::Memory as _,
    rules::GateRules,
    set::Set,
    testing::TestEnv,
};

const OPEN_FOR: u64 = 10;

/// Something that changes grants.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A knock's grant, given or renewed, where there is room.
    Give {
        v6: bool,
        source: u8,
        gate: u16,
    },
    /// Taken away by hand, where there is one.
    Take {
        v6: bool,
        source: u8,
        gate: u16,
    },
    Wait {
        by: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let key = (any::<bool>(), 0..40_u8, 0..2_u16);
    prop_oneof![
        4 => key.clone().prop_map(|(v6, source, gate)| Step::Give { v6, source, gate }),
        1 => key.prop_map(|(v6, source, gate)| Step::Take { v6, source, gate }),
        1 => (0..OPEN_FOR).prop_map(|by| Step::Wait { by }),
    ]
}

/// Returns an environment with room for this many grants, and two gates, of which the second grants to prefixes.
fn env(grants: usize) -> TestEnv {
    let mut env = TestEnv::new(grants, 1);
    let rules = GateRules {
        open_for: OPEN_FOR,
        ..GateRules::zeroed()
    };
    let to_prefix = GateRules {
        to_prefix: 1,
        ..rules
    };
    env.gates = vec![rules, to_prefix];
    env
}

fn v4(source: u8) -> V4 {
    V4::from(Ipv4Addr::new(198, 51, source, 1))
}

fn v6(source: u8) -> V6 {
    V6::from_words(u64::from(source), 1 << 32)
}

fn give_to<A: Address>(env: &TestEnv, source: A, gate: u16) {
    give::give(env, &source, &give::Terms::of(BY_HAND, gate), env.now.get());
}

fn take<A: Address>(env: &TestEnv, source: A, gate: u16) {
    let length = if gate == 0 { A::BITS } else { A::PREFIX };
    table::remove(env, &GrantKey::new(source, length, gate));
}

fn run(env: &TestEnv, step: Step) {
    match step {
        Step::Give {
            v6: false,
            source,
            gate,
        } => {
            give_to(env, v4(source), gate);
        }
        Step::Give {
            v6: true,
            source,
            gate,
        } => {
            give_to(env, v6(source), gate);
        }
        Step::Take {
            v6: false,
            source,
            gate,
        } => take(env, v4(source), gate),
        Step::Take {
            v6: true,
            source,
            gate,
        } => take(env, v6(source), gate),
        Step::Wait { by } => env.advance(by),
    }
}

fn position<A: Address>(env: &TestEnv, key: &GrantKey<A>) -> Position {
    table::position_of(key, env.seed())
}

/// Returns the grants, live or not.
fn grants(env: &TestEnv) -> impl Iterator<Item = Grant> {
    env.grants().into_iter().filter(|grant| grant.until > HELD)
}

/// Each grant is counted, and its key leads to it.
fn all_are_counted(env: &TestEnv) {
    fn check<A: Address>(env: &TestEnv, grant: &Grant) {
        if let Some(key) = grant.key::<A>() {
            assert!(may_have(env, position(env, &key)), "{key:?}");
            let found = table::find(env, &key).expect("it is there");
            assert_eq!((found.until, found.earned), (grant.until, grant.earned));
        }
    }
    for grant in grants(env) {
        check::<V4>(env, &grant);
        check::<V6>(env, &grant);
    }
}

/// Returns what the filter and the sets hold then.
fn remove_all(env: &mut TestEnv) -> (Vec<u64>, Vec<Set>) {
    for grant in grants(env) {
        grant.key::<V4>().map(|key| table::remove(env, &key));
        grant.key::<V6>().map(|key| table::remove(env, &key));
        all_are_counted(env);
    }
    assert_eq!(grants(env).count(), 0);
    let words = env.grant_filter.iter_mut().map(|word| *word.get_mut());
    let sets = env.grant_sets.iter_mut().map(|set| *set.get_mut());
    (
        words.filter(|word| *word != 0).collect(),
        sets.filter(|set| *set != Set::default()).collect(),
    )
}

/// A key of which only the fingerprint matters.
const fn place(fingerprint: u64) -> Position {
    Position::from_bits(fingerprint << 24)
}

proptest! {
    /// 16 grants at most, so that slots change hands and some find no room.
    #[test]
    fn what_has_a_grant_is_counted_and_nothing_else(steps in vec(step(), 0..300)) {
        let mut env = env(16);
        for step in steps {
            run(&env, step);
            all_are_counted(&env);
        }
        prop_assert_eq!(remove_all(&mut env), Default::default());
    }

    /// The same with one word, which has fewer places.
    #[test]
    fn a_full_word_tells_of_every_key(steps in vec(step(), 0..300)) {
        let mut env = env(16);
        env.grant_filter.truncate(1);
        for step in steps {
            run(&env, step);
            all_are_counted(&env);
        }
        prop_assert_eq!(remove_all(&mut env), Default::default());
    }

    /// Few fingerprints, so that many are alike, with bits that carries would show in.
    #[test]
    fn a_word_is_a_list_of_fingerprints(
        steps in vec((any::<bool>(), 0..5_usize), 0..100),
    ) {
        let places = [1, 2, 127, 128, 255].map(place);
        let mut counts = [0_u64; 5];
        let mut word = 0;
        for (comes, which) in steps {
            if comes {
                word = places[which].count_in(word);
                counts[which] += 1;
            } else if counts[which] != 0 {
                word = places[which].count_out(word);
                counts[which] -= 1;
            }
            let has: [u64; 5] = array::from_fn(|at| {
                let own = |byte: &&u8| u64::from(**byte) == places[at].fingerprint();
                word.to_le_bytes()[..7].iter().filter(own).count() as u64
            });
            let kept: u64 = has.iter().sum();
            prop_assert_eq!(counts.iter().sum::<u64>(), kept + word / PLACELESS);
            for at in 0..5 {
                prop_assert!(has[at] <= counts[at]);
                prop_assert_eq!(places[at].is_counted(word), has[at] != 0 || word >= PLACELESS);
            }
        }
    }
}

#[test]
fn a_grant_that_is_given_twice_is_there_once() {
    let mut env = env(16);
    let key = GrantKey::whole(v4(7), 0);
    let now = env.now.get();
    for (slot, is_first) in [(3, true), (4, false)] {
        assert!(table::take(&env, slot, now));
        let given = table::give(&env, slot, &key, now + 1, Details::new(BY_HAND, 0));
        assert_eq!(given, is_first, "slot {slot}");
    }
    assert_eq!(grants(&env).count(), 1);
    assert_eq!(remove_all(&mut env), Default::default());
}

#[test]
fn what_is_too_many_to_count_is_never_counted_out() {
    let (fits, too_many) = (7 + 254, 7 + 255);
    for count in [fits, too_many] {
        let mut word = 0;
        for _ in 0..count {
            word = place(7).count_in(word);
        }
        // One more than the word can count.
        if count == too_many {
            word = place(7).count_in(word);
            assert_eq!(word & MOST, MOST);
        }
        for _ in 0..count {
            assert!(place(7).is_counted(word));
            word = place(7).count_out(word);
        }
        assert_eq!(place(7).is_counted(word), count == too_many);
    }
}

/// 1 in 15 of those without a grant, in theory, where all grants are given.
#[test]
fn few_are_taken_for_others() {
    let grants = 1 << 16;
    for step in [1, 256, 65_537] {
        let env = TestEnv::new(grants as usize, 1);
        let key = |index: u32| {
            let address = Ipv4Addr::from_bits(index.wrapping_mul(step));
            GrantKey::whole(V4::from(address), 0)
        };
        for index in 0..grants {
            assert!(count_in(&env, position(&env, &key(index))));
        }
        let absent = grants..grants + 10_000;
        let taken = absent
            .filter(|index| may_have(&env, position(&env, &key(*index))))
            .count();
        assert!(taken < 900, "{taken} of 10,000, every {step} addresses");
    }
}
