use std::collections::VecDeque;

use bytemuck::Zeroable as _;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    Memory as _,
    address::{V4, V6},
    knock::MAX_SEQUENCE,
    testing::TestEnv,
    time::TICK_SHIFT,
};

fn env(places: u32) -> TestEnv {
    let mut env = TestEnv::new(1, 1);
    env.progress_slots = places;
    env
}

fn v4(number: u32) -> V4 {
    V4::from_word(number.to_be())
}

fn knock_at(time: u64) -> Step {
    Step {
        time: (time >> TICK_SHIFT) as u32,
        source_port: 4000,
        symbol: 1,
    }
}

fn new<'e, A: Address>(env: &'e TestEnv, source: &A) -> Newcomer<'e> {
    match entry(env, source) {
        Some(Entry::New(newcomer)) => newcomer,
        _ => panic!("it is known already"),
    }
}

fn begin<A: Address>(env: &TestEnv, source: &A, state: u32) -> bool {
    let now = env.now.get();
    new(env, source).begin(env, source, state, knock_at(now), now)
}

/// Sees it, as a probe does.
fn state_of<A: Address>(env: &TestEnv, source: &A) -> Option<u32> {
    match entry(env, source)? {
        Entry::Known(progress) => progress.hold(env, source).map(|held| held.state),
        Entry::New(_) => None,
    }
}

/// Does it without being seen.
fn remembers<A: Address>(env: &TestEnv, source: &A) -> bool {
    let Location { set, fingerprint } = Location::of(source, env.seed());
    let mut pairs = env.progress_set(set).unwrap().pairs.into_iter().map(Pair);
    let pair = pairs.find(|pair| pair.fingerprint() == fingerprint);
    pair.is_some_and(|pair| env.progress(pair.ticket()).unwrap().is_of(source))
}

/// How many pairs lead to places of this source.
fn pairs_of<A: Address>(env: &TestEnv, source: &A) -> usize {
    let fingerprint = Location::of(source, env.seed()).fingerprint;
    let sets = env.progress_sets.rows();
    let pairs = sets.iter().flat_map(|(_, set)| set.pairs.map(Pair));
    pairs
        .filter(|pair| pair.fingerprint() == fingerprint)
        .count()
}

proptest! {
    /// Where sets are no matter: the sources that took the latest places are known, each with its own
    /// progress, and nobody else.
    #[test]
    fn it_is_a_ring_that_moves_to_the_front(probes in vec(0..60_u32, 1..400)) {
        const PLACES: u32 = 32;
        let env = env(PLACES);
        // Sources with a set each, or with few in theirs.
        let mut sets = [0; (PLACES / 2) as usize];
        let sources: Vec<u32> = (0..)
            .filter(|number| {
                let set = Location::of(&v4(*number), env.seed()).set % (PLACES / 2);
                sets[set as usize] += 1;
                sets[set as usize] <= WAYS
            })
            .take(60)
            .collect();
        let mut ring: VecDeque<u32> = VecDeque::new();
        for probe in probes {
            let source = sources[probe as usize];
            let age = ring.iter().rev().position(|other| *other == source);
            // A place that somebody has moved from counts, though nobody is there.
            let found = state_of(&env, &v4(source));
            prop_assert_eq!(found.is_some(), age.is_some());
            if let (Some(state), Some(age)) = (found, age) {
                prop_assert_eq!(state, source + 1);
                // The latest has an age of one.
                if age as u32 + 1 > old(PLACES) {
                    let at = ring.len() - 1 - age;
                    ring[at] = u32::MAX;
                    ring.push_back(source);
                }
            } else {
                prop_assert!(begin(&env, &v4(source), source + 1));
                ring.push_back(source);
            }
            if ring.len() > PLACES as usize {
                ring.pop_front();
            }
        }
        for source in sources {
            prop_assert_eq!(remembers(&env, &v4(source)), ring.contains(&source));
            prop_assert!(pairs_of(&env, &v4(source)) <= 1);
        }
    }

    /// Whatever the cursor stands at, also where tickets come round.
    #[test]
    fn the_oldest_pair_of_a_set_makes_room(first in FIRST.., count in WAYS as u32..40) {
        let env = env(2);
        // Of a ring that is much longer than what one set has.
        let sources: Vec<V4> = (0..count).map(v4).collect();
        let mut set = ProgressSet::default();
        for (turn, source) in (0..).zip(&sources) {
            let ticket = first.wrapping_add(turn);
            let fingerprint = Location::of(source, env.seed()).fingerprint;
            let (way, _) = oldest(&set, fingerprint, ticket).expect("it is new");
            set.pairs[way] = Pair::new(fingerprint, ticket).0;
            prop_assert_eq!(oldest(&set, fingerprint, ticket.wrapping_add(1)), None);
        }
        let latest = &sources[sources.len() - WAYS..];
        for source in latest {
            let fingerprint = Location::of(source, env.seed()).fingerprint;
            let mut pairs = set.pairs.into_iter().map(Pair);
            prop_assert!(pairs.any(|pair| pair.fingerprint() == fingerprint));
        }
    }

    /// The ring of knocks remembers as many as the longest sequence has.
    #[test]
    fn knocks_are_remembered_in_order(count in 1..40_u16) {
        let mut progress = Progress::zeroed();
        let step = |symbol| Step { symbol, ..knock_at(0) };
        progress.begin(&v4(1), 1, step(0), 0);
        for symbol in 1..count {
            progress.push(1, MAX_SEQUENCE as u8, step(symbol), 0);
        }
        let remembered = count.min(MAX_SEQUENCE as u16);
        prop_assert_eq!(u16::from(progress.counted), remembered);
        for back in 0..remembered {
            prop_assert_eq!(progress.step(back as u8).symbol, count - 1 - back);
        }
    }

    #[test]
    fn the_time_of_the_latest_knock_can_be_read_back(time in 0..1_u64 << 60) {
        let mut progress = Progress::zeroed();
        progress.begin(&v4(1), 1, knock_at(time), time);
        let grain = 1 << TICK_SHIFT;
        prop_assert_eq!(progress.last(), time / grain * grain);
        prop_assert!(!progress.is_forgotten(time));
        // Another CPU may read an earlier time.
        prop_assert!(!progress.is_forgotten(time.saturating_sub(1 << 40)));
        // 26 days.
        prop_assert!(!progress.is_forgotten(time + (1 << 50)));
        prop_assert!(progress.is_forgotten(time + (1 << 51)));
    }
}

#[test]
fn two_sources_with_one_fingerprint_never_share_progress() {
    let env = env(64);
    let (one, other) = (v4(1), v4(2));
    assert!(begin(&env, &one, 7));
    // Nobody can find two such, so the pair of the one is made to look like the other's.
    let place = Location::of(&one, env.seed());
    let found = Location::of(&other, env.seed());
    let set = env.progress_set(place.set).unwrap();
    let [pair] = set
        .pairs
        .iter()
        .filter(|pair| **pair != 0)
        .collect::<Vec<_>>()[..]
    else {
        panic!("there is one pair");
    };
    let alike = Pair::new(found.fingerprint, Pair(*pair).ticket());
    env.progress_set(found.set).unwrap().pairs[3] = alike.0;
    assert_eq!(state_of(&env, &other), None);
    assert!(begin(&env, &other, 1));
    // It took that pair, which would hide its own otherwise.
    assert_eq!(state_of(&env, &other), Some(1));
    assert_eq!(pairs_of(&env, &other), 1);
}

#[test]
fn families_are_kept_apart() {
    let env = env(64);
    let v4 = V4::from_word(0x0201_00c0);
    let v6 = v4.padded();
    assert!(begin(&env, &v4, 3));
    assert_eq!(state_of::<V6>(&env, &v6), None);
    assert!(begin(&env, &v6, 5));
    assert_eq!(state_of(&env, &v4), Some(3));
    assert_eq!(state_of(&env, &v6), Some(5));
    let mut families = env.progress.rows();
    families.sort_by_key(|(index, _)| *index);
    let families: Vec<u8> = families.iter().map(|(_, row)| row.family()).collect();
    assert_eq!(families, [4, 6]);
}

/// Addresses that the tag does not tell apart, of two families and of one.
#[test]
fn a_whole_address_is_compared() {
    fn differ<A: Address, B: Address>(one: A, other: B) {
        let mut progress = Progress::zeroed();
        assert_eq!(Progress::tag_of(&one), Progress::tag_of(&other));
        progress.begin(&one, 1, knock_at(0), 0);
        progress.tag = Progress::tag_of(&one);
        assert!(progress.is_of(&one));
        assert!(!progress.is_of(&other));
    }
    differ(V6::from_words(2, 0), V6::from_words(0, 1));
    let v4 = v4(7);
    // The bit by which 4 and 6 differ.
    differ(v4, V6::from_words(v4.fold() ^ 2 << 56, 0));
    differ(V6::from_words(v4.fold() ^ 2 << 56, 0), v4);
}

/// Another CPU may add the same source, or others, between the look and the change.
#[test]
fn a_source_is_added_to_a_set_once() {
    let source = v4(1);
    let env = env(64);
    let (one, other) = (new(&env, &source), new(&env, &source));
    assert!(one.begin(&env, &source, 1, knock_at(0), 0));
    assert!(!other.begin(&env, &source, 2, knock_at(0), 0));
    assert_eq!(state_of(&env, &source), Some(1));
    assert_eq!(pairs_of(&env, &source), 1);
}

/// A CPU reads the cursor first, and then the pairs of the set.
#[test]
fn what_another_cpu_has_just_added_is_not_the_oldest() {
    // All sources are in one set.
    let env = env(2);
    for source in 0..WAYS as u32 {
        assert!(begin(&env, &v4(source), 1));
    }
    env.at_cursor.set(Some(|env| {
        assert!(begin(env, &v4(101), 1));
        assert!(begin(env, &v4(102), 1));
    }));
    assert!(begin(&env, &v4(100), 1));
    let pairs = |source| pairs_of(&env, &v4(source));
    assert_eq!([100, 101, 102].map(pairs), [1, 1, 1]);
    assert_eq!([0, 1, 2, 3].map(pairs), [0, 0, 0, 1]);
}

/// However an address is chosen, it is not taken for a place that is nobody's or held.
#[test]
fn no_source_has_a_tag_with_a_meaning() {
    let env = env(2);
    let mut progress = Progress::zeroed();
    let held = progress.take(&env).expect("it is nobody's");
    let (zero, meant) = (0, held.progress_tag());
    drop(held);
    for tag in [zero, meant] {
        let source = V6::from_words(tag ^ 6 << 56, 0);
        assert!(![zero, meant].contains(&Progress::tag_of(&source)));
    }
}

/// What one CPU changes, no other does, and nobody waits.
#[test]
fn a_place_is_held_by_one_cpu() {
    let env = env(64);
    let (one, other) = (v4(1), v4(2));
    assert!(begin(&env, &one, 7));
    let [(index, _)] = env.progress.rows()[..] else {
        panic!("one source has knocked");
    };
    let place = || env.progress(index).unwrap();
    let held = place().hold(&env, &one).expect("it is its own");
    assert!(place().hold(&env, &one).is_none(), "not twice");
    assert!(place().take(&env).is_none(), "nor can it be taken");
    assert!(entry(&env, &one).is_none(), "a knock is lost meanwhile");
    drop(held);
    assert_eq!(state_of(&env, &one), Some(7));
    let mut taken = place().take(&env).expect("nobody holds it");
    taken.begin(&other, 1, knock_at(0), 0);
    assert!(place().hold(&env, &one).is_none());
    taken.give_to(Progress::tag_of(&other));
    drop(taken);
    assert!(place().hold(&env, &one).is_none());
    assert!(place().hold(&env, &other).is_some());
    // Given back to nobody.
    drop(place().take(&env));
    assert!(place().hold(&env, &other).is_none());
}

/// Of two addresses with the same tag, the one whose place it is holds it.
#[test]
fn a_place_is_held_for_a_whole_address() {
    let env = env(64);
    let [one, other] = [V6::from_words(2, 0), V6::from_words(0, 1)];
    assert_eq!(Progress::tag_of(&one), Progress::tag_of(&other));
    assert!(begin(&env, &one, 3));
    let [(index, _)] = env.progress.rows()[..] else {
        panic!("one source has knocked");
    };
    assert!(env.progress(index).unwrap().hold(&env, &other).is_none());
    assert!(env.progress(index).unwrap().hold(&env, &one).is_some());
}

/// A source that moves to the front takes all that is known of it along, and leaves nothing behind that
/// could be found.
#[test]
fn a_source_that_moves_takes_its_progress_along() {
    let env = env(64);
    let source = v4(1);
    assert!(begin(&env, &source, 1));
    match entry(&env, &source) {
        Some(Entry::Known(progress)) => progress.push(9, 2, knock_at(1 << 30), 1 << 30),
        _ => panic!("it is known"),
    }
    for other in 0..old(64) {
        assert!(begin(&env, &v4(1000 + other), 1));
    }
    let before = env.progress.rows().len();
    let Some(Entry::Known(progress)) = entry(&env, &source) else {
        panic!("it is known");
    };
    assert_eq!((progress.state, progress.counted), (9, 2));
    assert_eq!(progress.step(0), knock_at(1 << 30));
    assert_eq!(progress.step(1), knock_at(env.now.get()));
    assert_eq!(env.progress.rows().len(), before + 1, "it has moved");
    assert_eq!(pairs_of(&env, &source), 1);
}

/// Returns how many of 500 sources are left after this many others, in a ring of 16,384 places.
fn left_after(others: u32) -> usize {
    const REAL: u32 = 500;
    let env = env(16_384);
    for number in 0..REAL {
        assert!(begin(&env, &v4(0x0a00_0000 + number), 1));
    }
    for number in 0..others {
        assert!(begin(&env, &v4(0x3000_0000 + number), 1));
    }
    let left = (0..REAL).filter(|number| remembers(&env, &v4(0x0a00_0000 + number)));
    left.count()
}

#[test]
fn a_source_outlives_as_many_others_as_there_are_places() {
    assert!(left_after(8_192) >= 499);
    assert!(left_after(16_384 - 500) >= 496);
    assert_eq!(left_after(16_384), 0);
}

/// The guarantee: a source that is seen again in time is kept.
#[test]
fn a_source_that_is_seen_again_outlives_nearly_a_ring_of_others() {
    const PLACES: u32 = 1024;
    let env = env(PLACES);
    let real = v4(0xffff_ffff);
    assert!(begin(&env, &real, 1));
    let mut newcomers = (0..).map(v4);
    let mut lost = 0;
    for _ in 0..100 {
        for newcomer in newcomers.by_ref().take(kept(PLACES) as usize - 1) {
            assert!(begin(&env, &newcomer, 1));
        }
        if state_of(&env, &real).is_none() {
            lost += 1;
            begin(&env, &real, 1);
        }
    }
    // As chance has it.
    assert!(lost <= 1, "lost {lost} times of 100");
}
