//! A kernel table may give an entry to another key while a packet still reads it. What was found then has
//! the other key's tag, and must be ignored. A stream of packets on one CPU never causes that, nor can a test wait until
//! the times of knocks wrap.

use core::net::Ipv4Addr;

use bytemuck::Zeroable as _;

use crate::{
    Env as _, HashTable as _,
    address::V4,
    frame::{Segment, UDP},
    grant::{
        Grant, GrantKey, find,
        give::{self, Opening},
    },
    knock::{
        Outcome,
        automaton::{Sequence, State},
        progress::{Progress, Step},
        sequence,
    },
    rules::GateRules,
    session::{Flow, Session, lookup},
    testing::TestEnv,
    time::TICK_SHIFT,
};

/// Two sources. Entries under keys of the first may belong to the second.
const SOURCES: [Ipv4Addr; 2] = [
    Ipv4Addr::new(198, 51, 100, 7),
    Ipv4Addr::new(198, 51, 100, 8),
];
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn env() -> TestEnv {
    let mut env = TestEnv::new(4, 4);
    env.gates.push(GateRules {
        open_for: 1_000_000_000,
        session_idle: 1_000_000_000,
        ..GateRules::zeroed()
    });
    env
}

fn given(env: &TestEnv, source: V4) -> Opening {
    give::give(env, &source, &give::Terms::of(0, 0), env.now.get())
}

#[test]
fn a_grant_of_another_source_lets_nobody_pass() {
    let env = env();
    let [key, other] = SOURCES.map(|source| GrantKey::<V4>::whole(source.into(), 0));
    let found = Grant {
        until: u64::MAX,
        tag: other.tag(),
        ..Grant::zeroed()
    };
    assert!(give::insert(&env, &key, &found));
    assert!(find::live(&env, &key.address, 0, 1).is_none());
    // It is not renewed either: that would extend the other source's grant.
    assert_eq!(given(&env, key.address), Opening::TableFull);

    env.grants_v4.find(&key).unwrap().tag = key.tag();
    assert!(find::live(&env, &key.address, 0, 1).is_some());
    assert_eq!(given(&env, key.address), Opening::Until(u64::MAX));
}

#[test]
fn a_flow_of_another_source_keeps_nobody_in() {
    let env = env();
    let [flow, other] = SOURCES.map(|source| Flow::<V4> {
        source: source.into(),
        destination: HOST.into(),
        source_port: 4000,
        destination_port: 22,
        protocol: 6,
    });
    let found = Session {
        last: env.now.get(),
        tag: other.tag(),
        ..Session::zeroed()
    };
    assert!(env.sessions_v4.insert(&flow, &found));
    assert!(lookup::find(&env, &flow, 0, &env.gates[0]).is_none());

    env.sessions_v4.find(&flow).unwrap().tag = flow.tag();
    assert!(lookup::find(&env, &flow, 0, &env.gates[0]).is_some());
}

/// A gate whose sequence is two knocks, of which the first source has made the first.
fn half_open() -> TestEnv {
    let mut env = env();
    // State 1 follows the first knock.
    let state = |depth, completes| State {
        within: 1000,
        of: 2,
        depth,
        completes,
        ..State::zeroed()
    };
    let first = State {
        symbol: 1,
        next: 2,
        ..state(1, 0)
    };
    env.states = vec![state(0, 0), first, state(2, 1)];
    env.sequences.push(Sequence {
        within: 1000,
        length: 2,
        gate: 0,
    });
    sequence::knock(&env, &probe(9000), 0, true);
    assert_eq!(env.counted(0, Outcome::Step), 1);
    env
}

fn probe(destination_port: u16) -> Segment<V4> {
    Segment {
        source: SOURCES[0].into(),
        destination: HOST.into(),
        source_port: 4000,
        destination_port,
        protocol: UDP,
        transport: 34,
    }
}

/// Returns how often the second knock has opened the gate.
fn opened_by_second(env: &TestEnv) -> u64 {
    sequence::knock(env, &probe(9001), 1, false);
    env.counted(0, Outcome::Opened)
}

#[test]
fn progress_of_another_source_takes_nobody_further() {
    let env = half_open();
    let [(index, _)] = env.progress.rows()[..] else {
        panic!("one source has knocked");
    };
    let belongs_to = |source: Ipv4Addr| {
        let progress = env.progress(index).unwrap();
        progress.tag = Progress::tag_of(&V4::from(source));
    };
    let [source, other] = SOURCES;
    belongs_to(other);
    assert_eq!(opened_by_second(&env), 0);

    belongs_to(source);
    assert_eq!(opened_by_second(&env), 1);
}

/// The slot is about to be given to another source while this one's knock is judged.
#[test]
fn a_place_changes_hands_before_a_knock_or_behind_it() {
    fn to_another(env: &TestEnv) {
        let [(index, _)] = env.progress.rows()[..] else {
            panic!("one source has knocked");
        };
        let taken = env.progress(index).unwrap().take(env);
        assert!(taken.is_none(), "it cannot be taken while it is held");
    }
    let env = half_open();
    env.meanwhile.set(Some(to_another));
    assert_eq!(opened_by_second(&env), 1);

    let env = half_open();
    let [(index, _)] = env.progress.rows()[..] else {
        panic!("one source has knocked");
    };
    let other = V4::from(SOURCES[1]);
    let mut taken = env.progress(index).unwrap().take(&env).unwrap();
    taken.begin(&other, 1, Step::zeroed(), env.now.get());
    assert_eq!(opened_by_second(&env), 0, "it is not known whose it is");
    taken.give_to(Progress::tag_of(&other));
    drop(taken);
    assert_eq!(opened_by_second(&env), 0, "it is another's");
}

/// The kernel may store a grant where another one was that a packet still reads. It counts as ended until its tag is
/// visible.
#[test]
fn a_grant_is_inserted_as_one_that_has_ended() {
    let env = env();
    let key = GrantKey::<V4>::whole(SOURCES[0].into(), 0);
    let opening = given(&env, key.address);
    assert_eq!(
        env.grants_v4.inserted.get().map(|grant| grant.until),
        Some(0)
    );
    assert_eq!(opening, Opening::Until(env.now.get() + 1_000_000_000));
    assert!(find::live(&env, &key.address, 0, 1).is_some());
}

/// The time of a knock wraps after 52 days.
#[test]
fn a_knock_of_52_days_ago_is_forgotten() {
    let env = half_open();
    env.advance(1 << (TICK_SHIFT + u32::BITS));
    assert_eq!(opened_by_second(&env), 0);
    assert_eq!(opened_by_second(&half_open()), 1);
}
