use core::{net::Ipv4Addr, ops::Range};
use std::{
    collections::HashSet,
    panic::{self, AssertUnwindSafe},
};

use bytemuck::Zeroable as _;

use super::*;
use crate::{
    HashTable as _, Memory as _,
    address::{V4, V6},
    frame::{PortPair, TCP, flag},
    rules::GateRules,
    session::{
        lookup::{self, goes_on},
        remember::remember,
        socket,
    },
    set::{SETS, WAYS},
    testing::{TestEnv, segment_of, socket_of},
};

/// ns.
const IDLE: u64 = 1_000_000_000;
/// A row, and one slot of the next.
const SLOTS: u32 = row::SLOTS + 1;
/// Flows that fill the table, with the first one.
const OTHERS: Range<u16> = 3..10;

/// Every connection is established.
fn env() -> TestEnv {
    let mut env = TestEnv::new(1, SLOTS as usize);
    env.gates = vec![
        GateRules {
            session_idle: IDLE,
            ..GateRules::zeroed()
        };
        2
    ];
    for number in 0..10 {
        let socket = (socket_of(&flow(number)), socket::ESTABLISHED);
        env.sockets.borrow_mut().extend([socket]);
    }
    env
}

/// Returns one of several flows. Numbers 1 and 2 are at home in the row with one slot, which is their first choice, and the others
/// in the other row.
fn flow(number: u16) -> Flow<V4> {
    let env = TestEnv::new(1, SLOTS as usize);
    let at_home = |flow: &Flow<V4>| {
        let choice = row::first_choice(flow.position(env.seed()), env.session_rows());
        if number == 1 || number == 2 {
            choice == row::SLOTS
        } else {
            choice < row::SLOTS
        }
    };
    let mut flows = (0..).map(flow_from).filter(at_home);
    flows.nth(number.into()).expect("there are many ports")
}

fn flow_from(source_port: u16) -> Flow<V4> {
    Flow {
        source: Ipv4Addr::new(198, 51, 100, 7).into(),
        destination: Ipv4Addr::new(192, 0, 2, 1).into(),
        ports: PortPair::new(source_port, 22),
        protocol: u32::from(TCP),
    }
}

fn syn(env: &TestEnv, port: u16, gate: u16) -> bool {
    remember(env, &segment_of(&flow(port)), gate, 0)
}

/// Returns whether a packet with these flags belongs to a session at the first gate.
fn packet(env: &TestEnv, port: u16, flags: u8) -> bool {
    let flow = flow(port);
    let found = lookup::find(env, &flow, 0);
    found.is_some_and(|(session, now)| goes_on(env, &segment_of(&flow), session, flags, now))
}

/// The host has closed the connection of a flow, and a packet of it arrives.
fn close(env: &TestEnv, port: u16) {
    packet(env, port, flag::FIN | flag::ACK);
    let key = socket_of(&flow(port));
    let before = env.sockets.borrow_mut().remove(&key);
    packet(env, port, flag::ACK);
    env.sockets
        .borrow_mut()
        .extend(before.map(|state| (key, state)));
}

/// This flow and others fill the table.
fn fill(env: &TestEnv, first: u16) {
    for number in [first].into_iter().chain(OTHERS) {
        assert!(syn(env, number, 0), "{number}");
    }
}

/// As `revoke` does.
fn end_all(env: &TestEnv) {
    for slot in 0..SLOTS {
        if let Some(session) = env.session(slot) {
            end(env, slot, read(&session.tenancy));
        }
    }
}

/// As a command adopts a connection that is open.
fn adopt(env: &TestEnv, port: u16) {
    let beginning = Beginning {
        gate: 0,
        initial: 0,
        last: env.now.get(),
        granted: 0,
        ending: 0,
    };
    let flow = flow(port);
    if find(env, &flow).is_some() {
        return;
    }
    let choice = row::first_choice(flow.position(env.seed()), env.session_rows());
    let at_home = take_free(env, choice);
    let mut all = [at_home].into_iter().chain((0..SLOTS).rev());
    if let Some(slot) =
        all.find(|slot| *slot == at_home && at_home != NO_SLOT || take_ended(env, *slot))
    {
        begin(env, slot, &flow, 7, &beginning);
    }
}

/// Something that is done, with its name.
type Operation = (&'static str, fn(&TestEnv));

/// What several CPUs and processes do at once. The flow 1 is in every one of them.
const OPERATIONS: &[Operation] = &[
    ("SYN", |env| {
        syn(env, 1, 0);
    }),
    ("SYN at the other gate", |env| {
        syn(env, 1, 1);
    }),
    ("SYN of another flow", |env| {
        syn(env, 2, 0);
    }),
    ("packet", |env| {
        packet(env, 1, flag::ACK);
    }),
    ("close", |env| close(env, 1)),
    ("revoke", end_all),
    ("adopt", |env| adopt(env, 1)),
    ("adopt another", |env| adopt(env, 2)),
];

/// What there is before.
const BEFORE: &[Operation] = &[
    ("nothing", |_| {}),
    ("a session", |env| {
        syn(env, 1, 0);
    }),
    ("a session that has ended", |env| {
        syn(env, 1, 0);
        close(env, 1);
    }),
    ("no room at home", |env| {
        syn(env, 2, 0);
    }),
    ("a session elsewhere", |env| {
        syn(env, 2, 0);
        syn(env, 1, 0);
    }),
    ("a session that is idle, in a full table", |env| {
        fill(env, 1);
        env.advance(IDLE);
    }),
    ("a full table", |env| fill(env, 1)),
];

/// Each session is found, once, and counted; and ending all leaves nothing behind. `leaks`: how many slots may be held for good.
fn check(mut env: TestEnv, leaks: u32, case: &str) {
    let states: Vec<u8> = (0..SLOTS)
        .filter_map(|slot| Some(env.session(slot)?.tenancy.state()))
        .collect();
    let held = states.iter().filter(|state| **state == state::HELD);
    assert!(held.count() as u32 <= leaks, "{case}: {states:?}");
    let counting = states.iter().filter(|state| **state > state::HELD).count() as u32;
    let counted = |env: &TestEnv| -> u32 {
        let counts = env.session_counts.rows();
        counts.iter().map(|(_, count)| *count).sum()
    };
    let sum = counted(&env);
    assert!(
        (counting..=counting + leaks).contains(&sum),
        "{case}: {sum} slots are counted of {states:?}"
    );
    let mut flows = HashSet::new();
    for (_, session) in env.sessions() {
        let flow = session.flow::<V4>();
        assert!(flows.insert(flow), "{case}: {flow:?} is there twice");
        let found = find(&env, &flow).unwrap_or_else(|| panic!("{case}: {flow:?} is not found"));
        assert_eq!(*found.session, session, "{case}");
    }
    end_all(&env);
    assert!(!packet(&env, 1, flag::ACK), "{case}");
    assert_eq!(
        counted(&env),
        sum,
        "{case}: they count until they are taken"
    );
    // Of a slot that is held, a fingerprint may be left, or a pair and what its home counts.
    let sets = env.session_sets.iter_mut().map(|set| *set.get_mut());
    let sets = sets.filter(|set| *set != Set::default()).count() as u32;
    assert!(sets <= leaks, "{case}: {sets} sets");
    let words = env.session_rows.iter_mut().map(|word| *word.get_mut());
    let words = words.filter(|word| *word != 0).count() as u32;
    assert!(words <= 2 * leaks, "{case}: {words} rows");
}

/// Every operation, with every other one before each of its exchanges and ordered reads.
#[test]
fn operations_that_overlap_leave_each_flow_at_most_one_session() {
    let mut interrupted = 0;
    for (state, before) in BEFORE {
        for (one, operation) in OPERATIONS {
            for (other, meanwhile) in OPERATIONS {
                for nth in 0.. {
                    let env = env();
                    before(&env);
                    env.at_access.set(Some((nth, *meanwhile)));
                    operation(&env);
                    let is_done = env.at_access.take().is_some();
                    let case = format!("{state}; {one}, {other} at {nth}");
                    let is_there = ["a session", "a session elsewhere"].contains(state)
                        || ["SYN", "adopt"].contains(one);
                    let goes = ["close", "revoke"];
                    if is_there && !goes.contains(one) && !goes.contains(other) {
                        let at = |gate: u16| lookup::find(&env, &flow(1), gate).is_some();
                        let is_full = state.contains("full table") && *one == "adopt";
                        assert!(at(0) || at(1) || is_full, "{case}");
                    }
                    check(env, 0, &case);
                    if is_done {
                        break;
                    }
                    interrupted += 1;
                }
            }
        }
    }
    assert!(interrupted > 1000, "{interrupted}");
}

/// A command may be killed at any exchange or ordered read. The flow's next SYN begins a session nevertheless.
#[test]
fn a_command_that_is_killed_keeps_nobody_out() {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut killed = 0;
    for (state, before) in BEFORE {
        for (name, operation) in [
            ("revoke", end_all as fn(&TestEnv)),
            ("adopt", |env| adopt(env, 1)),
            ("adopt another", |env| adopt(env, 2)),
        ] {
            for nth in 0.. {
                let env = env();
                before(&env);
                env.at_access.set(Some((nth, |_| panic!("killed"))));
                let ended = panic::catch_unwind(AssertUnwindSafe(|| operation(&env)));
                env.at_access.set(None);
                if ended.is_ok() {
                    break;
                }
                killed += 1;
                let begun = panic::catch_unwind(AssertUnwindSafe(|| syn(&env, 1, 0)));
                let is_full = *state == "a full table";
                if !(matches!(begun, Ok(true)) && packet(&env, 1, flag::ACK) || is_full) {
                    panic::set_hook(hook);
                    panic!("{state}; {name}, killed at {nth}: {begun:?}");
                }
                check(env, 1, &format!("{state}; {name}, killed at {nth}"));
            }
        }
    }
    panic::set_hook(hook);
    assert!(killed > 50, "{killed}");
}

/// The tenancy is read first and once more last. In between, the slot is given to another flow.
#[test]
fn a_tenancy_and_a_flow_that_do_not_belong_together_are_not_found() {
    let mut mixed = 0;
    for nth in 0..8 {
        let env = env();
        assert!(syn(&env, 1, 0));
        env.at_access.set(Some((nth, |env| {
            end_all(env);
            fill(env, 2);
        })));
        let found = find(&env, &flow(1)).is_some();
        if env.at_access.take().is_none() {
            assert!(!found, "at {nth}");
            mixed += 1;
        }
    }
    assert!(mixed > 3, "{mixed}");
}

/// What another flow's packet notes in the slot meanwhile keeps no flow in that has been idle for too long.
#[test]
fn a_flow_that_was_idle_is_judged_by_its_own_time() {
    let env = env();
    assert!(syn(&env, 1, 0));
    let begun = env.now.get();
    env.advance(IDLE);
    let Found { slot, last, .. } = find(&env, &flow(1)).expect("it is in the table");
    end_all(&env);
    fill(&env, 2);
    let session = env.session(slot).expect("it is one of them");
    assert_eq!((last, session.last), (begun, begun + IDLE));
}

/// What was judged by a session that has gone since ends no other, and takes no other's slot.
#[test]
fn a_session_is_only_ended_as_it_was_found() {
    let env = env();
    assert!(syn(&env, 1, 0));
    let Found { slot, tenancy, .. } = find(&env, &flow(1)).expect("it has begun");
    end_all(&env);
    assert!(!end(&env, slot, tenancy) && !take(&env, slot, tenancy));
    fill(&env, 2);
    let other = env.session(slot).expect("it is one of them").tenancy;
    assert!(other.is_live() && other != tenancy);
    assert!(!end(&env, slot, tenancy) && !take(&env, slot, tenancy));
    assert_eq!(env.sessions().len() as u32, SLOTS);
}

/// As many flows of one set as fill it and those behind it.
#[test]
fn flows_of_a_full_set_are_in_the_next_ones() {
    let mut env = TestEnv::new(1, 99);
    let index = |flow: &Flow<V4>| flow.position(env.seed()).index() % 16;
    // Its slots are none of those that are taken.
    let last = env.session_rows() - 1;
    let home = |flow: &Flow<V4>| row::home(flow.position(env.seed()), last + 1);
    let flows: Vec<_> = (0..)
        .map(flow_from)
        .filter(|flow| index(flow) == 15 && home(flow) == last)
        .take(SETS as usize * WAYS + 1)
        .collect();
    env.session_sets.truncate(16);
    let beginning = Beginning {
        gate: 0,
        initial: 0,
        last: 0,
        granted: 0,
        ending: 0,
    };
    let unused = Tenancy::zeroed();
    let (last, flows) = flows.split_last().expect("some");
    for (slot, flow) in (0..).zip(flows) {
        assert!(take(&env, slot, unused) && begin(&env, slot, flow, 7, &beginning));
    }
    assert!(take(&env, 90, unused));
    assert!(!begin(&env, 90, last, 7, &beginning), "all sets are full");
    let left = env.session(90).expect("there are 99").tenancy;
    assert_eq!(left.state(), state::UNUSED);
    assert_eq!(
        env.session_counts.find(&7).copied(),
        Some(SETS * WAYS as u32)
    );
    // The first ones are in the set of all: those that are left are still found.
    for (removed, flow) in flows.iter().enumerate() {
        assert!(
            flows[removed..]
                .iter()
                .all(|flow| find(&env, flow).is_some())
        );
        assert!(remove(&env, flow) && find(&env, flow).is_none());
    }
    let mut sets = env.session_sets.iter_mut().map(|set| *set.get_mut());
    assert!(sets.all(|set| set == Set::default()));
    let mut words = env.session_rows.iter_mut().map(|word| *word.get_mut());
    assert!(words.all(|word| word == 0));
}

/// Other CPUs change the words of rows whenever a flow is to be linked, at home or elsewhere.
#[test]
fn a_flow_that_cannot_be_linked_does_not_begin() {
    for number in [1, 2] {
        let env = env();
        for earlier in 1..number {
            assert!(syn(&env, earlier, 0));
        }
        env.rows_are_busy.set(true);
        assert!(!syn(&env, number, 0));
        env.rows_are_busy.set(false);
        assert_eq!(env.sessions().len(), usize::from(number) - 1);
        assert!(syn(&env, number, 0) && packet(&env, number, flag::ACK));
        check(env, 0, &format!("{number}"));
    }
}

/// As above, when they end. What is left behind leads nobody astray, and their slots are used again.
#[test]
fn what_leads_to_an_ended_flow_is_not_followed() {
    let env = env();
    assert!(syn(&env, 1, 0) && syn(&env, 2, 0));
    env.rows_are_busy.set(true);
    end_all(&env);
    env.rows_are_busy.set(false);
    assert!(find(&env, &flow(1)).is_none() && find(&env, &flow(2)).is_none());
    fill(&env, 2);
    for number in OTHERS.chain([2]) {
        assert!(packet(&env, number, flag::ACK), "{number}");
    }
    assert!(find(&env, &flow(1)).is_none());
}

#[test]
fn flows_with_the_same_fingerprint_are_told_apart() {
    let env = env();
    let fingerprint = |flow: &Flow<V4>| row::fingerprint(flow.position(env.seed()));
    let other = flow(3);
    let same = |number: &u16| fingerprint(&flow(*number)) == fingerprint(&other);
    let twin = (4..5_000).find(same).expect("there are many ports");
    for (one, two) in [(3, twin), (twin, 3)] {
        assert!(syn(&env, one, 0) && syn(&env, two, 0));
        assert!(packet(&env, one, flag::ACK) && packet(&env, two, flag::ACK));
        remove(&env, &flow(one));
        assert!(!packet(&env, one, flag::ACK) && packet(&env, two, flag::ACK));
        end_all(&env);
    }
}

/// Where it can, since its packets look there first: also the slot of a flow that is idle.
#[test]
fn a_flow_gets_its_first_choice_or_another_slot_at_home() {
    const ROWS: u32 = 16;
    let mut env = TestEnv::new(1, (ROWS * row::SLOTS) as usize);
    env.gates = self::env().gates;
    let choice = |flow: &Flow<V4>| row::first_choice(flow.position(env.seed()), ROWS);
    let slot = |flow: &Flow<V4>| {
        assert!(remember(&env, &segment_of(flow), 0, 0));
        find(&env, flow).expect("it is remembered").slot
    };
    let wanted = row::SLOTS + 4;
    let mut alike = (0..).map(flow_from).filter(|flow| choice(flow) == wanted);
    assert_eq!(slot(&alike.next().expect("there are many")), wanted);
    for taken in 1..row::SLOTS {
        let other = slot(&alike.next().expect("as above"));
        assert!(
            other != wanted && other / row::SLOTS == 1,
            "{taken}: {other}"
        );
    }
    // Now no slot of the row is free.
    env.advance(IDLE - 1);
    let elsewhere = slot(&alike.next().expect("as above"));
    assert!(elsewhere / row::SLOTS != 1, "{elsewhere}");
    env.advance(1);
    assert_eq!(slot(&alike.next().expect("as above")), wanted);
}

/// Its home row has one slot.
#[test]
fn a_flow_gets_a_slot_at_home_from_one_that_has_ended() {
    let env = env();
    let slot = |number| find(&env, &flow(number)).map(|found| found.slot);
    assert!(syn(&env, 2, 0));
    assert_eq!(slot(2), Some(row::SLOTS));
    assert!(syn(&env, 1, 0));
    let elsewhere = slot(1).expect("there is room elsewhere");
    assert!(elsewhere < row::SLOTS);
    let word = row::word(&SessionRows(&env), 0).expect("there are two");
    assert!(!row::is_free(word, elsewhere), "it is taken");
    remove(&env, &flow(1));
    env.advance(IDLE);
    assert!(syn(&env, 1, 0), "the other one is idle");
    assert_eq!(slot(1), Some(row::SLOTS));
}

/// Whatever part of a flow differs, its position does, and with it the row and the set.
#[test]
fn flows_that_differ_are_in_other_places() {
    let env = env();
    let mut positions = HashSet::new();
    let mut is_new = |position: Position| positions.insert(position.to_bits());
    let of = flow_from(1);
    for (source, destination) in [
        (of.source, of.destination),
        (of.destination, of.source),
        (of.source, of.source),
    ] {
        for (source_port, destination_port) in [(1, 22), (22, 1), (1, 1)] {
            for protocol in [6, 17] {
                let flow = Flow {
                    source,
                    destination,
                    ports: PortPair::new(source_port, destination_port),
                    protocol,
                };
                assert!(is_new(flow.position(env.seed())), "{flow:?}");
                let long = |address: V4| V6::from_words(address.fold(), 1);
                let flow = Flow {
                    source: long(source),
                    destination: long(destination),
                    ports: PortPair::new(source_port, destination_port),
                    protocol,
                };
                assert!(is_new(flow.position(env.seed())), "{flow:?}");
            }
        }
    }
}

/// Wherever it is asked: for each packet, and where a connection is counted.
#[test]
fn a_flow_is_known_at_its_own_gate_alone() {
    let env = env();
    assert!(syn(&env, 1, 1));
    for (gate, is_known) in [(0, false), (1, true)] {
        let flow = flow(1);
        assert_eq!(lookup::find(&env, &flow, gate).is_some(), is_known);
        assert_eq!(lookup::find_again(&env, &flow, gate).is_some(), is_known);
    }
}
