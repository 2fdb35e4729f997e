//! An entry of a table may be given to another key while a packet still reads it. What was found then belongs to
//! the other key, and must be ignored. A stream of packets on one CPU never causes that, nor can a test wait until
//! the times of knocks wrap.

use core::net::Ipv4Addr;

use bytemuck::Zeroable as _;

use crate::{
    Address, Env as _,
    address::{V4, V6},
    frame::{PortPair, Segment, UDP},
    grant::{
        FREE, Grant, GrantKey, HELD, find,
        give::{self, Opening},
        table::{self, Details},
    },
    knock::{
        Outcome,
        automaton::{Sequence, State},
        progress::{Progress, Step},
        sequence,
    },
    memory::GrantMemory as _,
    rules::GateRules,
    session::{self, Flow, Session, lookup, remember::remember},
    testing::{TestEnv, segment_of},
    time::TICK_SHIFT,
};

/// Two sources. Entries under keys of the first may belong to the second.
const SOURCES: [Ipv4Addr; 2] = [
    Ipv4Addr::new(198, 51, 100, 7),
    Ipv4Addr::new(198, 51, 100, 8),
];
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// ns.
const OPEN_FOR: u64 = 1_000_000_000;

fn env() -> TestEnv {
    let mut env = TestEnv::new(4, 4);
    env.gates.push(GateRules {
        open_for: OPEN_FOR,
        session_idle: 1_000_000_000,
        ..GateRules::zeroed()
    });
    env
}

fn given(env: &TestEnv, source: V4) -> Opening {
    give::give(env, &source, &give::Terms::of(0, 0), env.now.get())
}

/// Returns the slot of the only grant.
fn only(env: &TestEnv) -> &mut Grant {
    let slots = env.grants();
    let mut slots = (0..).zip(slots).filter(|(_, grant)| grant.until != FREE);
    let (slot, _) = slots.next().expect("there is one");
    assert!(slots.next().is_none(), "there is another");
    env.grant(slot).expect("it is one of them")
}

fn passes(env: &TestEnv, source: V4) -> bool {
    find::live(env, &source, 0, 1).is_some()
}

#[test]
fn a_grant_of_another_source_lets_nobody_pass() {
    let env = env();
    let [key, other] = SOURCES.map(|source| GrantKey::<V4>::whole(source.into(), 0));
    let until = env.now.get() + OPEN_FOR;
    assert_eq!(given(&env, key.address), Opening::Until(until));

    let found = only(&env);
    found.tag = other.tag();
    assert!(!passes(&env, key.address));
    // It is not renewed either: that would extend the other source's grant.
    env.advance(1);
    assert_eq!(given(&env, key.address), Opening::Until(until + 1));
    assert_eq!(found.until, until);

    let env = self::env();
    given(&env, key.address);
    assert!(passes(&env, key.address));
}

/// The same for IPv6, where the tag has not all of the address.
#[test]
fn a_grant_of_another_source_with_the_same_tag_lets_nobody_pass() {
    let [one, other] = [(1, 2), (2, 1)].map(|(first, second)| V6::from_words(first, second << 63));
    let env = env();
    let key = GrantKey::whole(one, 0);
    give::give(&env, &one, &give::Terms::of(0, 0), env.now.get());
    assert!(find::live(&env, &one, 0, 1).is_some());
    let grant = only(&env);
    let address: [u64; 2] = other.words().into();
    for (word, theirs) in address.into_iter().enumerate() {
        let ours = std::mem::replace(&mut grant.address[word], theirs);
        assert_eq!(grant.tag, key.tag());
        assert!(find::live(&env, &one, 0, 1).is_none());
        grant.address[word] = ours;
    }
    assert!(find::live(&env, &one, 0, 1).is_some());
}

/// A slot that is being changed, also by a command that was killed before it was done, has nobody's grant.
#[test]
fn a_slot_that_is_held_counts_as_none() {
    let env = env();
    let source = V4::from(SOURCES[0]);
    given(&env, source);
    let held = only(&env);
    held.until = HELD;
    assert!(!passes(&env, source));
    // Whoever holds it does not keep its source out.
    let until = env.now.get() + OPEN_FOR;
    assert_eq!(given(&env, source), Opening::Until(until));
    assert!(passes(&env, source));
    assert_eq!(held.until, HELD, "it was not renewed, nor taken");
    assert!(!table::take(&env, 0, u64::MAX));
}

#[test]
fn a_flow_of_another_source_keeps_nobody_in() {
    let (one, another) = (V4::from(SOURCES[0]), V4::from(SOURCES[1]));
    keeps_nobody_in(one, another, V4::from(HOST));
    let address = |first: u64, second: u64| V6::from_words(first, second << 63);
    for (one, another) in [
        (address(1, 0), address(2, 0)),
        (address(1, 0), address(1, 1)),
    ] {
        keeps_nobody_in(one, another, address(9, 0));
        keeps_nobody_in(one, another, address(9, 1));
    }
}

fn session_of<'e, A: Address>(env: &'e TestEnv, flow: &Flow<A>) -> &'e mut Session {
    let found = session::table::find(env, flow);
    found.expect("it is remembered").session
}

/// The slot of the flow of `one` has another flow, in any part of it.
fn keeps_nobody_in<A: Address>(one: A, another: A, host: A) {
    let env = env();
    let flow = Flow {
        source: one,
        destination: host,
        ports: PortPair::new(4000, 22),
        protocol: 6,
    };
    let is_found = || lookup::find(&env, &flow, 0).is_some();
    assert!(remember(&env, &segment_of(&flow), 0, 0) && is_found());
    let session = session_of(&env, &flow);
    let its = *session;
    for other in [
        Flow {
            source: another,
            ..flow
        },
        Flow {
            destination: another,
            ..flow
        },
        Flow {
            ports: PortPair::new(4001, 22),
            ..flow
        },
        Flow {
            ports: PortPair::new(4000, 23),
            ..flow
        },
        Flow {
            protocol: 17,
            ..flow
        },
    ] {
        let in_another = self::env();
        assert!(remember(&in_another, &segment_of(&other), 0, 0));
        *session = *session_of(&in_another, &other);
        assert!(!is_found(), "{other:?}");
        *session = its;
        assert!(is_found());
    }
    // At another gate, and while somebody holds the slot.
    for tenancy in [its.tenancy.0 ^ 1, its.tenancy.0 & !(0xff << 24) | 1 << 24] {
        session.tenancy.0 = tenancy;
        assert!(!is_found(), "{tenancy:#x}");
    }
    session.tenancy = its.tenancy;
    assert!(is_found());
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
        ports: PortPair::new(4000, destination_port),
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

/// Another CPU may look a grant up as soon as a pair leads to it. It must find all of it, or nothing.
#[test]
fn a_grant_lives_when_all_of_it_is_stored() {
    let key = GrantKey::<V4>::whole(SOURCES[0].into(), 0);
    let mut checked = 0;
    for nth in 0..8 {
        let env = env();
        assert!(table::take(&env, 2, env.now.get()));
        env.at_access.set(Some((nth, |env| {
            let key = GrantKey::<V4>::whole(SOURCES[0].into(), 0);
            let until = env.now.get() + OPEN_FOR;
            let found = table::find(env, &key);
            let grant = env.grant(2).expect("it is one of them");
            if let Some(found) = found {
                let all = (found.until, found.earned.user(), found.earned.port());
                assert_eq!(all, (until, 7, 5));
            } else {
                assert_eq!(grant.until, HELD);
            }
        })));
        let until = env.now.get() + OPEN_FOR;
        assert!(table::give(&env, 2, &key, until, Details::new(7, 5)));
        checked += u32::from(env.at_access.take().is_none());
    }
    assert!(checked > 2, "{checked}");
}

/// The time of a knock wraps after 52 days.
#[test]
fn a_knock_of_52_days_ago_is_forgotten() {
    let env = half_open();
    env.advance(1 << (TICK_SHIFT + u32::BITS));
    assert_eq!(opened_by_second(&env), 0);
    assert_eq!(opened_by_second(&half_open()), 1);
}
