//! What a knock that is accepted opens and closes.

use super::{
    ALICE, ALICE_V6, EVE, PORT, SECOND, SLOT, SSH, datagram_v6, for_both, host, key, knock,
    may_pass, may_pass_v6, send, send_frame, with_room_for,
};
use crate::{
    Address as _,
    address::V4,
    event::Kind,
    grant::{BY_HAND, HOST_SHIFT, find},
    knock::authenticated::{
        key::KEY_USER,
        message::{action, flag},
        outcome::Outcome,
    },
    testing::{TestEnv, knock::Knock},
};

#[test]
fn a_listed_address_is_the_only_one_that_may_send_it() {
    let env = host();
    let wall = env.wall.get();
    let listed = |later: u64| Knock {
        flags: flag::IPV4,
        v4: ALICE,
        ..knock(wall + later)
    };
    assert_eq!(send(&env, EVE, &listed(0)), Outcome::Address);
    assert!(!may_pass(&env, EVE, 1) && !may_pass(&env, ALICE, 1));
    assert_eq!(send(&env, ALICE, &listed(1)), Outcome::Opened);
    let none = Knock {
        flags: 0,
        ..knock(wall + 2)
    };
    assert_eq!(send(&env, ALICE, &none), Outcome::Address);
    let other_family = Knock {
        flags: flag::IPV6,
        v6: ALICE_V6,
        ..knock(wall + 3)
    };
    assert_eq!(send(&env, ALICE, &other_family), Outcome::Address);
    key(&env).bound = 1;
    assert_eq!(send(&env, ALICE, &knock(wall + 4)), Outcome::Address);
    assert_eq!(send(&env, ALICE, &listed(5)), Outcome::Opened);
}

#[test]
fn one_knock_opens_both_families() {
    let env = host();
    let both = for_both(env.wall.get());
    assert_eq!(send(&env, ALICE, &both), Outcome::Opened);
    assert!(may_pass(&env, ALICE, 1) && may_pass_v6(&env, ALICE_V6));
    let env = host();
    let frame = datagram_v6(ALICE_V6, &both.sealed());
    assert_eq!(send_frame(&env, &frame), Outcome::Opened);
    assert!(may_pass(&env, ALICE, 1) && may_pass_v6(&env, ALICE_V6));
    let env = host();
    let observed = datagram_v6(ALICE_V6, &knock(env.wall.get()).sealed());
    assert_eq!(send_frame(&env, &observed), Outcome::Opened);
    assert!(may_pass_v6(&env, ALICE_V6));
}

#[test]
fn sources_of_a_gate_hold_for_each_address() {
    let mut env = host();
    env.gates[0].restricted = 1;
    let v4 = V4::from(ALICE);
    env.knockers.push((0, V4::FAMILY, v4.padded(), V4::BITS));
    let wall = env.wall.get();
    let both = for_both(wall);
    assert_eq!(send(&env, ALICE, &both), Outcome::Source);
    assert!(!may_pass(&env, ALICE, 1));
    assert_eq!(send(&env, EVE, &knock(wall + 1)), Outcome::Source);
    assert_eq!(send(&env, ALICE, &knock(wall + 2)), Outcome::Opened);
}

#[test]
fn a_knock_can_only_ask_for_less() {
    let env = host();
    let wall = env.wall.get();
    let until = |env: &TestEnv, source| {
        find::live(env, &V4::from(source), 0, 1)
            .expect("it was given")
            .until
            - env.now.get()
    };
    let short = Knock {
        seconds: 5,
        ..knock(wall)
    };
    assert_eq!(send(&env, ALICE, &short), Outcome::Opened);
    assert_eq!(until(&env, ALICE), 5 * SECOND);
    let long = Knock {
        seconds: u16::MAX,
        ..knock(wall + 1)
    };
    assert_eq!(send(&env, EVE, &long), Outcome::Opened);
    assert_eq!(until(&env, EVE), 30 * SECOND);
    let named = Knock {
        gate: SSH,
        ..knock(wall + 2)
    };
    assert_eq!(send(&env, ALICE, &named), Outcome::Opened);
    let other = Knock {
        gate: SSH + 1,
        ..knock(wall + 3)
    };
    assert_eq!(send(&env, ALICE, &other), Outcome::Gate);
}

#[test]
fn a_listed_port_is_the_only_one_that_is_admitted() {
    let env = host();
    let wall = env.wall.get();
    let exact = |port, later: u64| Knock {
        flags: flag::OBSERVED | flag::PORT,
        port,
        ..knock(wall + later)
    };
    assert_eq!(send(&env, ALICE, &exact(50_000, 0)), Outcome::Opened);
    assert!(may_pass(&env, ALICE, 50_000) && !may_pass(&env, ALICE, 50_001));
    // The latest knock from behind one address counts.
    assert_eq!(send(&env, ALICE, &exact(50_001, 1)), Outcome::Opened);
    assert!(may_pass(&env, ALICE, 50_001) && !may_pass(&env, ALICE, 50_000));
    // Without the flag, the field says nothing.
    let any = Knock {
        port: 50_002,
        ..knock(wall + 2)
    };
    assert_eq!(send(&env, ALICE, &any), Outcome::Opened);
    assert!(may_pass(&env, ALICE, 1));
    // A grant for every port is not narrowed while it is live.
    assert_eq!(send(&env, ALICE, &exact(50_000, 3)), Outcome::Opened);
    assert!(may_pass(&env, ALICE, 1));
    env.advance(31 * SECOND);
    assert_eq!(send(&env, ALICE, &exact(50_000, 4)), Outcome::Opened);
    assert!(may_pass(&env, ALICE, 50_000) && !may_pass(&env, ALICE, 1));
}

#[test]
fn a_user_closes_the_own_grant_alone() {
    let env = host();
    let wall = env.wall.get();
    let close = |later: u64| Knock {
        action: action::CLOSE,
        ..knock(wall + later)
    };
    assert_eq!(send(&env, ALICE, &knock(wall)), Outcome::Opened);
    assert_eq!(send(&env, ALICE, &close(1)), Outcome::Closed);
    assert!(!may_pass(&env, ALICE, 1));
    // Nothing is left to close; it is still a knock that was accepted.
    assert_eq!(send(&env, ALICE, &close(2)), Outcome::Closed);
    assert_eq!(send(&env, ALICE, &knock(wall + 3)), Outcome::Opened);
    let given_to = |user: u32| {
        let grant = find::live(&env, &V4::from(ALICE), 0, 1).expect("it was given");
        grant.earned.0 = user.into();
    };
    for other in [5, BY_HAND] {
        given_to(other);
        assert_eq!(
            send(&env, ALICE, &close(4 + u64::from(other))),
            Outcome::Closed
        );
        assert!(may_pass(&env, ALICE, 1), "it was another user's");
    }
    // By another host of the fleet.
    given_to(KEY_USER | 7 << HOST_SHIFT | u32::from(SLOT));
    assert_eq!(
        send(&env, ALICE, &close(2 * u64::from(BY_HAND))),
        Outcome::Closed
    );
    assert!(!may_pass(&env, ALICE, 1));
    let events = env.events.borrow();
    let closed = events
        .iter()
        .filter(|event| event.kind == Kind::Closed as u8);
    assert_eq!(closed.count(), 2, "of those that have ended");
}

/// The service finds out about the other address.
#[test]
fn a_close_is_reported_of_the_address_that_it_comes_from() {
    let env = host();
    let wall = env.wall.get();
    let close = |later: u64| Knock {
        action: action::CLOSE,
        ..for_both(wall + later)
    };
    let by_v6 = datagram_v6(ALICE_V6, &knock(wall).sealed());
    assert_eq!(send_frame(&env, &by_v6), Outcome::Opened);
    assert_eq!(send(&env, ALICE, &close(1)), Outcome::Closed);
    assert!(!may_pass_v6(&env, ALICE_V6));
    assert_eq!(send(&env, ALICE, &for_both(wall + 2)), Outcome::Opened);
    assert_eq!(send(&env, ALICE, &close(3)), Outcome::Closed);
    assert!(!may_pass(&env, ALICE, 1) && !may_pass_v6(&env, ALICE_V6));
    let events = env.events.borrow();
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [Kind::Opened, Kind::Opened, Kind::Closed].map(|kind| kind as u8)
    );
}

/// Neither lasts longer than its user has asked for.
#[test]
fn grants_for_other_ports_are_not_merged() {
    for port in [0, 50_001] {
        let env = host();
        let wall = env.wall.get();
        let exact = Knock {
            flags: flag::OBSERVED | flag::PORT,
            port: 50_000,
            ..knock(wall)
        };
        assert_eq!(send(&env, ALICE, &exact), Outcome::Opened);
        let short = Knock {
            flags: flag::OBSERVED | if port == 0 { 0 } else { flag::PORT },
            port,
            seconds: 5,
            ..knock(wall + 1)
        };
        assert_eq!(send(&env, ALICE, &short), Outcome::Opened);
        assert!(may_pass(&env, ALICE, 50_001));
        env.advance(6 * SECOND);
        assert!(!may_pass(&env, ALICE, 50_001) && !may_pass(&env, ALICE, 50_000));
    }
}

#[test]
fn one_that_is_held_opens_nothing_and_is_handed_to_user_space() {
    let mut env = host();
    env.holds = true;
    env.room_for_held = 1;
    let time = env.wall.get();
    let one = knock(time);
    assert_eq!(send(&env, ALICE, &one), Outcome::Held);
    assert!(!may_pass(&env, ALICE, 1024));
    assert!(
        env.events.borrow().is_empty(),
        "user space says what becomes of it"
    );
    let held = env.held.borrow()[0];
    assert_eq!((held.time, held.slot, held.gate), (time, SLOT, 0));
    assert_eq!((held.families, held.v4), (flag::IPV4, V4::from(ALICE)));
    assert_eq!((held.open_for, held.port), (u64::MAX, 0));
    assert_eq!(
        (held.source, held.destination_port),
        (V4::from(ALICE).padded(), PORT)
    );
    // It has been accepted: a copy is one here, too.
    assert_eq!(send(&env, ALICE, &one), Outcome::Duplicate);
    assert_eq!(send(&env, EVE, &one), Outcome::Replay);
    // Where nobody reads them, there is no room, and nothing opens either.
    assert_eq!(send(&env, ALICE, &knock(time + 1)), Outcome::TableFull);
    assert!(!may_pass(&env, ALICE, 1024));
    // What closes waits for nobody, whether or not there is room; user space is told of it.
    for room in [1, 2] {
        env.holds = false;
        let time = env.wall.get() + 10 * room as u64;
        assert_eq!(send(&env, ALICE, &knock(time + 2)), Outcome::Opened);
        env.holds = true;
        env.room_for_held = room;
        let mut close = knock(time + 3);
        close.action = action::CLOSE;
        assert_eq!(send(&env, ALICE, &close), Outcome::Closed);
        assert!(!may_pass(&env, ALICE, 1024));
        assert_eq!(env.held.borrow().len(), room);
    }
    let held = env.held.borrow();
    assert_eq!(
        [held[0].action, held[1].action],
        [action::OPEN, action::CLOSE]
    );
}

#[test]
fn a_full_table_refuses() {
    let env = with_room_for(0);
    let knock = knock(env.wall.get());
    assert_eq!(send(&env, ALICE, &knock), Outcome::TableFull);
    assert_eq!(env.events.borrow()[0].kind, Kind::Refused as u8);
}

#[test]
fn with_room_for_one_of_two_addresses_it_opens() {
    let env = with_room_for(1);
    let wall = env.wall.get();
    let both = for_both(wall);
    assert_eq!(send(&env, ALICE, &both), Outcome::Opened);
    assert!(may_pass(&env, ALICE, 1) && !may_pass_v6(&env, ALICE_V6));
    let opened = env.events.borrow()[0];
    assert_eq!(opened.kind, Kind::Opened as u8);
    assert_eq!(opened.until, env.now.get() + 30 * SECOND);
}
