//! Revoked is revoked, whatever becomes of the engine.

use super::{interleavings::restart, *};

#[test]
fn an_isolated_host_publishes_nothing_that_was_revoked_meanwhile() {
    let mut fleet = joined(3);
    fleet.nodes[0].link.cut();
    fleet.knock(0, place(0, 1));
    fleet.knock(0, place(0, 2));
    fleet.settle();
    fleet.revoke(1, Some("ssh"), Some(place(0, 1).1));
    fleet.settle();
    // It has not heard of it.
    assert_eq!(fleet.open(0).len(), 2);
    fleet.nodes[0].link.is_cut = false;
    fleet.settle();
    for nth in 0..3 {
        assert_eq!(fleet.open(nth), BTreeSet::from([place(0, 2)]), "{nth}");
    }
    // And a knock after that counts again.
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.open(2).len(), 2);
}

#[test]
fn a_host_that_cannot_know_what_was_revoked_ends_everything() {
    let mut fleet = joined(2);
    fleet.nodes[0].link.cut();
    fleet.knock(0, place(0, 1));
    fleet.revoke(1, Some("mail"), None);
    fleet.settle();
    fleet.store.sweep(|key| key.starts_with("revoke/"));
    fleet.nodes[0].link.is_cut = false;
    fleet.settle();
    assert!(fleet.open(0).is_empty() && fleet.open(1).is_empty());
}

#[test]
fn an_engine_that_has_lost_everything_is_told_again() {
    let mut fleet = joined(3);
    fleet.revoke(2, None, None);
    fleet.settle();
    fleet.knock(0, place(0, 1));
    fleet.settle();
    lose_everything(&mut fleet);
    fleet.knock(1, place(1, 2));
    fleet.settle();
    for nth in 0..3 {
        assert_eq!(fleet.open(nth).len(), 2, "{nth}");
        let applied = fleet.nodes[nth].state.applied();
        assert_eq!(applied.map(|applied| applied.number), Some(1));
    }
    // The order of revocations goes on.
    fleet.revoke(0, None, None);
    fleet.settle();
    assert!((0..3).all(|nth| fleet.open(nth).is_empty()));
}

#[test]
fn what_was_revoked_stays_revoked_where_the_engine_has_lost_it() {
    let mut fleet = joined(3);
    fleet.knock(0, place(0, 1));
    fleet.settle();
    fleet.nodes[0].link.cut();
    // The grant is among those that this host has missed.
    fleet.revoke(1, Some("ssh"), Some(place(0, 1).1));
    fleet.settle();
    lose_everything(&mut fleet);
    fleet.settle();
    fleet.nodes[0].link.is_cut = false;
    fleet.settle();
    assert!((0..3).all(|nth| fleet.open(nth).is_empty()));
    // Who comes later knows of it, too.
    fleet.add(3, Memory::default());
    fleet.settle();
    let applied = |nth: usize| fleet.nodes[nth].state.applied();
    assert!((0..4).all(|nth| applied(nth) == applied(1)));
}

#[test]
fn who_knows_another_order_of_revocations_ends_everything() {
    let mut fleet = joined(2);
    for _ in 0..2 {
        fleet.revoke(1, Some("mail"), None);
    }
    fleet.settle();
    fleet.knock(0, place(0, 1));
    fleet.settle();
    fleet.nodes[0].link.cut();
    // Nobody is left who could tell the engine of the first two.
    fleet.store = Store::default();
    fleet.nodes.truncate(1);
    fleet.revoke(0, Some("ssh"), Some(place(0, 1).1));
    for _ in 0..2 {
        fleet.revoke(0, Some("mail"), None);
    }
    // As if the command had been given elsewhere.
    fleet.knock(0, place(0, 1));
    fleet.nodes[0].link.is_cut = false;
    fleet.settle();
    assert!(fleet.open(0).is_empty());
    // With a revocation of everything after those.
    assert_eq!(fleet.nodes[0].state.applied().map(|at| at.number), Some(4));
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.open(0).len(), 1);
}

/// It has ended what there was when it first heard of that order.
#[test]
fn who_cannot_say_that_it_knows_another_order_ends_everything_once() {
    for restarted in [false, true] {
        let mut fleet = joined(1);
        fleet.revoke(0, Some("mail"), None);
        fleet.settle();
        fleet.knock(0, place(0, 1));
        fleet.settle();
        fleet.nodes[0].link.cut();
        fleet.store = Store::default();
        fleet.revoke(0, Some("ssh"), Some(place(0, 9).1));
        fleet.store.is_full = true;
        let begin = |fleet: &mut Fleet| {
            reconnect(fleet, 0);
            for _ in 0..40 {
                fleet.step(0, 0, true);
            }
        };
        begin(&mut fleet);
        assert!(fleet.open(0).is_empty());
        let applied = fleet.nodes[0].state.applied();
        assert_eq!(applied.map(|applied| applied.number), Some(2));
        fleet.knock(0, place(0, 1));
        if restarted {
            restart(&mut fleet, 0);
        }
        begin(&mut fleet);
        assert_eq!(fleet.open(0).len(), 1, "{restarted}");
        assert_eq!(fleet.nodes[0].state.applied(), applied);
        fleet.store.is_full = false;
        fleet.now += 2 * SECOND;
        fleet.add(1, Memory::default());
        fleet.settle();
        assert!((0..2).all(|nth| fleet.open(nth).len() == 1));
    }
}

#[test]
fn a_copy_of_the_engine_that_is_put_back_opens_nothing_that_was_revoked_since() {
    for restarted in [&[][..], &[1], &[0, 1, 2]] {
        let mut fleet = joined(3);
        fleet.revoke(2, Some("mail"), None);
        fleet.settle();
        fleet.knock(0, place(0, 1));
        fleet.knock(1, place(0, 2));
        fleet.settle();
        let copy = fleet.store.clone();
        // It hears of nothing before the copy is there.
        fleet.nodes[2].link.cut();
        fleet.revoke(1, None, Some(place(0, 1).1));
        fleet.settle();
        put_back(&mut fleet, copy);
        for nth in restarted {
            restart(&mut fleet, *nth);
        }
        fleet.settle();
        fleet.nodes[2].link.is_cut = false;
        fleet.settle();
        for nth in 0..3 {
            assert!(!fleet.open(nth).contains(&place(0, 1)), "{nth}");
            let applied = fleet.nodes[nth].state.applied();
            assert_eq!(applied.map(|at| at.number), Some(2));
        }
        // And the next one counts.
        fleet.knock(2, place(1, 3));
        fleet.settle();
        assert!((0..3).all(|nth| fleet.open(nth).contains(&place(1, 3))));
        fleet.revoke(0, None, None);
        fleet.settle();
        assert!((0..3).all(|nth| fleet.open(nth).is_empty()));
    }
}

/// Nobody has told the engine what it lacks before somebody revokes something else.
#[test]
fn a_revocation_in_a_copy_that_was_put_back_revives_nothing() {
    for restarted in [&[][..], &[1], &[0, 1, 2]] {
        for later in 1..4 {
            let mut fleet = joined(3);
            fleet.revoke(2, Some("mail"), None);
            fleet.settle();
            fleet.knock(0, place(0, 1));
            fleet.settle();
            let copy = fleet.store.clone();
            fleet.revoke(1, None, Some(place(0, 1).1));
            fleet.settle();
            for nth in 0..3 {
                fleet.nodes[nth].link.cut();
            }
            put_back(&mut fleet, copy);
            for _ in 0..later {
                fleet.revoke(2, Some("mail"), None);
            }
            for nth in restarted {
                restart(&mut fleet, *nth);
            }
            for nth in 0..3 {
                fleet.nodes[nth].link.is_cut = false;
            }
            fleet.settle();
            assert!((0..3).all(|nth| fleet.open(nth).is_empty()));
            // Nor later, by one that begins again.
            restart(&mut fleet, 1);
            fleet.settle();
            assert!(fleet.open(1).is_empty());
            let applied = fleet.nodes[0].state.applied();
            assert!(applied.is_some_and(|applied| applied.number > 2));
            assert!(
                fleet
                    .nodes
                    .iter()
                    .all(|node| node.state.applied() == applied)
            );
            fleet.knock(2, place(1, 3));
            fleet.settle();
            assert!((0..3).all(|nth| fleet.open(nth) == BTreeSet::from([place(1, 3)])));
        }
    }
}

/// More than a host remembers, and each host remembers another end of it.
#[test]
fn a_very_old_copy_that_is_put_back_revives_nothing() {
    let mut fleet = joined(2);
    fleet.revoke(0, Some("mail"), None);
    fleet.settle();
    fleet.knock(0, place(0, 1));
    fleet.settle();
    let copy = fleet.store.clone();
    fleet.revoke(1, None, Some(place(0, 1).1));
    for _ in 0..AT_ONCE {
        fleet.revoke(1, Some("mail"), None);
    }
    fleet.settle();
    put_back(&mut fleet, copy);
    for nth in 0..2 {
        restart(&mut fleet, nth);
    }
    fleet.settle();
    assert!((0..2).all(|nth| fleet.open(nth).is_empty()));
    fleet.knock(1, place(1, 3));
    fleet.settle();
    assert!((0..2).all(|nth| fleet.open(nth).len() == 1));
}

#[test]
fn a_host_publishes_again_though_its_order_of_revocations_was_deleted_while_it_told_it() {
    let mut fleet = joined(1);
    fleet.revoke(0, Some("mail"), None);
    fleet.settle();
    let (key, value) = fleet.codec().head(Mark::default());
    fleet.write(key, value);
    // It is told of this one, and that it is to write the other.
    while fleet.nodes[0].state.order.next_restated().is_none() {
        fleet.step(0, 0, true);
    }
    fleet.store.sweep(|key| key == head_key());
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.nodes[0].state.published, 1);
    assert!(fleet.store.get(head_key()).is_some());
}

#[test]
fn an_answer_that_comes_after_a_revocation_does_not_hide_what_is_given_after_it() {
    let mut fleet = joined(2);
    let at = place(0, 1);
    fleet.knock(0, at);
    // Each step writes what is due, and hears of a change. The answers come last.
    fleet.step(0, 0, false);
    fleet.revoke(1, None, None);
    fleet.step(0, 0, false);
    // It has the same end as the first one.
    fleet.knock(0, at);
    fleet.revoke(1, Some("mail"), None);
    fleet.step(0, 0, false);
    fleet.settle();
    for nth in 0..2 {
        assert_eq!(fleet.open(nth), BTreeSet::from([at]), "{nth}");
    }
}

#[test]
fn an_old_record_of_the_last_revocation_revives_nothing() {
    let mut fleet = joined(2);
    fleet.revoke(1, Some("mail"), None);
    fleet.settle();
    let old = fleet.store.copies(head_key());
    fleet.knock(0, place(0, 1));
    fleet.settle();
    fleet.revoke(1, None, Some(place(0, 1).1));
    fleet.settle();
    for (key, value) in old {
        fleet.write(key, value);
    }
    fleet.settle();
    for nth in 0..2 {
        reconnect(&mut fleet, nth);
    }
    fleet.settle();
    assert!((0..2).all(|nth| fleet.open(nth).is_empty()));
    let head = fleet.store.get(head_key()).expect("it is there");
    let head = fleet.codec().read(&head.key, &head.value);
    let applied = fleet.nodes[0].state.applied().expect("it has joined");
    assert_eq!(head, Ok(Record::Head(applied)));
}

#[test]
fn a_revocation_that_is_written_again_ends_nothing() {
    let mut fleet = joined(2);
    fleet.revoke(1, None, None);
    fleet.settle();
    let old = fleet.store.copies(revocations());
    assert_eq!(old.len(), 2);
    fleet.knock(0, place(0, 1));
    fleet.settle();
    let joined: Vec<u32> = fleet.nodes.iter().map(|node| node.joined).collect();
    for (key, value) in &old {
        fleet.write(key.clone(), value.clone());
    }
    fleet.settle();
    fleet.revoke(1, Some("mail"), None);
    fleet.settle();
    for (key, value) in old.into_iter().filter(|(key, _)| key != head_key()) {
        fleet.write(key, value);
    }
    fleet.settle();
    assert!((0..2).all(|nth| fleet.open(nth).len() == 1));
    assert!(fleet.nodes.iter().map(|node| node.joined).eq(joined));
}

#[test]
fn a_new_key_signs_the_order_of_revocations_anew() {
    let mut fleet = joined(2);
    fleet.revoke(0, Some("mail"), None);
    fleet.settle();
    let old = FleetKey::random().expect("a random key");
    let of = |keys: &[&FleetKey]| {
        Keyring::new(keys.iter().map(|key| (*key).clone()).collect()).expect("there is one")
    };
    let (first, new) = (old.clone(), FleetKey::random().expect("a random key"));
    // As it is once everything has been signed with one key that hosts still have.
    let mut fleet = Fleet {
        keyring: of(&[&first]),
        nodes: Vec::new(),
        store: Store::default(),
        ..fleet
    };
    for nth in 0..2 {
        fleet.add(nth, Memory::default());
    }
    fleet.settle();
    fleet.revoke(0, Some("mail"), None);
    fleet.settle();
    for keys in [&[&old, &new][..], &[&new, &old], &[&new]] {
        fleet.keyring = of(keys);
        for nth in 0..2 {
            restart(&mut fleet, nth);
            fleet.settle();
            // Also while the other has not taken the step.
            fleet.knock(nth, place(0, 1 + u8::try_from(nth).expect("small")));
            fleet.settle();
            assert!(
                fleet
                    .open(1 - nth)
                    .contains(&place(0, 1 + u8::try_from(nth).expect("small")))
            );
            assert!(fleet.nodes.iter().all(|node| node.refused.is_empty()));
        }
        fleet.now += 31 * SECOND;
        fleet.settle();
    }
    let applied = fleet.nodes[0].state.applied().expect("it has joined");
    assert_eq!(applied.number, 1);
    let records = fleet.store.copies(revocations());
    assert_eq!(records.len(), 2);
    for (key, value) in records {
        assert!(fleet.codec().read(&key, &value).is_ok(), "{key}");
    }
}

#[test]
fn a_service_that_is_started_again_does_not_revoke_again() {
    let mut fleet = joined(2);
    fleet.revoke(1, None, None);
    fleet.settle();
    fleet.knock(0, place(0, 1));
    fleet.settle();
    restart(&mut fleet, 0);
    fleet.settle();
    assert!((0..2).all(|nth| fleet.open(nth).len() == 1));
    // It is published already.
    assert_eq!(fleet.nodes[0].state.published, 0);
    // One that does not know ends it.
    fleet.nodes[0].state.order = Order::default();
    fleet.nodes[0].link.cut();
    fleet.nodes[0].link.is_cut = false;
    fleet.settle();
    assert!(fleet.open(0).is_empty());
}

#[test]
fn a_host_that_was_not_told_of_a_revocation_asks_for_everything() {
    let mut fleet = joined(1);
    let (key, value) = fleet.codec().head(Mark::default());
    fleet.write(key, value);
    // As if the engine had said nothing of it.
    fleet.settle();
    fleet.nodes[0].state.told.head = 0;
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.nodes[0].state.published, 1);
    assert_eq!(fleet.nodes[0].joined, 2);
}
