//! One behaviour each.

use super::*;
use crate::{
    fwknop::seen::{END, KEPT},
};

fn joined(hosts: usize) -> Fleet {
    let mut fleet = Fleet::new(hosts);
    fleet.settle();
    fleet
}

fn reconnect(fleet: &mut Fleet, nth: usize) {
    fleet.nodes[nth].link.cut();
    fleet.nodes[nth].link.is_cut = false;
}

/// Nobody is cut off, but the engine begins anew with what is in `store`.
fn put_back(fleet: &mut Fleet, store: Store) {
    fleet.store = store;
    for nth in 0..fleet.nodes.len() {
        if !fleet.nodes[nth].link.is_cut {
            reconnect(fleet, nth);
        }
    }
}

fn lose_everything(fleet: &mut Fleet) {
    put_back(fleet, Store::default());
}

#[test]
fn a_knock_at_one_host_opens_the_others_until_it_ends_there() {
    let mut fleet = joined(3);
    fleet.knock(0, place(0, 1));
    let ends = fleet.now + OPEN_FOR;
    fleet.settle();
    for nth in 1..3 {
        let kept = &fleet.nodes[nth].tables[&place(0, 1)];
        assert_eq!(kept.origin.as_deref(), Some("host-0"));
        assert!(kept.until <= ends, "never later than where it was given");
        assert!(kept.until > ends - SECOND);
        // What it was told it does not tell.
        assert_eq!(fleet.nodes[nth].state.published, 0);
        assert_eq!(fleet.nodes[nth].state.received, 1);
    }
    assert_eq!(fleet.nodes[0].state.published, 1);
}

#[test]
fn a_host_opens_for_its_own_time_at_the_most() {
    let mut fleet = joined(2);
    fleet.nodes[1].rules.open_for = 5 * SECOND;
    fleet.knock(0, place(0, 1));
    let knocked = fleet.now;
    fleet.settle();
    let until = fleet.nodes[1].tables[&place(0, 1)].until;
    assert!((knocked..knocked + 6 * SECOND).contains(&until));
}

#[test]
fn a_grant_that_is_heard_again_opens_no_longer_than_this_hosts_own_time() {
    let mut fleet = joined(2);
    fleet.nodes[1].rules.open_for = 5 * SECOND;
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.open(1).len(), 1);
    fleet.now += 10 * SECOND;
    assert!(fleet.open(1).is_empty());
    // Read again, by this service and by the next one.
    reconnect(&mut fleet, 1);
    fleet.settle();
    assert!(fleet.open(1).is_empty());
    interleavings::restart(&mut fleet, 1);
    fleet.settle();
    assert!(fleet.open(1).is_empty());
    // Written again as it was, and published again.
    let grants = fleet.store.copies(crate::fleet::record::grants());
    for (key, value) in grants {
        fleet.write(key, value);
    }
    fleet.settle();
    assert!(fleet.open(1).is_empty());
    lose_everything(&mut fleet);
    fleet.settle();
    assert_eq!(fleet.nodes[0].state.published, 2);
    assert!(fleet.open(1).is_empty());
    // Another knock is another grant.
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.open(1).len(), 1);
}

#[test]
fn who_comes_later_is_told_of_the_grant_that_lasts_longest() {
    let mut fleet = joined(2);
    fleet.nodes[0].link.cut();
    fleet.knock(0, place(0, 1));
    fleet.now += 10 * SECOND;
    fleet.knock(1, place(0, 1));
    fleet.settle();
    let ends = fleet.nodes[1].tables[&place(0, 1)].until;
    // What the first was about to write comes after all.
    let mut late = fleet.grant("alice", 18_000);
    late.origin = "host-0".into();
    fleet.write_grant("ssh", place(0, 1).1, &late);
    fleet.settle();
    fleet.add(2, Memory::default());
    fleet.settle();
    let until = fleet.nodes[2].tables[&place(0, 1)].until;
    assert!(until <= ends && until + SECOND > ends);
}

#[test]
fn renewals_are_published_once_a_second() {
    let mut fleet = joined(2);
    let begun = fleet.now;
    for _ in 0..100 {
        fleet.knock(0, place(0, 1));
        fleet.now += SECOND / 20;
        for nth in 0..2 {
            while fleet.step(nth, 0, true) {}
        }
    }
    assert_eq!(fleet.now, begun + 5 * SECOND);
    let published = fleet.nodes[0].state.published;
    assert!((5..=6).contains(&published), "{published}");
    fleet.settle();
    // The last renewal is published too.
    let until = fleet.nodes[1].tables[&place(0, 1)].until;
    assert!(until + SECOND > fleet.nodes[0].tables[&place(0, 1)].until);
}

#[test]
fn what_is_deleted_in_the_engine_closes_nothing() {
    let mut fleet = joined(2);
    fleet.knock(0, place(0, 1));
    fleet.settle();
    fleet
        .store
        .sweep(|key| key.starts_with(crate::fleet::record::grants()));
    fleet.nodes[1].link.cut();
    fleet.nodes[1].link.is_cut = false;
    fleet.settle();
    assert_eq!(fleet.open(1), BTreeSet::from([place(0, 1)]));
}

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
    assert_eq!(fleet.nodes[0].state.applied().map(|at| at.number), Some(3));
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.open(0).len(), 1);
}

#[test]
fn a_copy_of_the_engine_that_is_put_back_opens_nothing_that_was_revoked_since() {
    for is_restarted in [false, true] {
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
        if is_restarted {
            interleavings::restart(&mut fleet, 1);
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
    let old = fleet.store.copies(crate::fleet::record::revocations());
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
fn what_an_absent_host_has_given_is_not_new_to_the_next_service() {
    let mut fleet = joined(2);
    fleet.knock(0, place(0, 1));
    fleet.settle();
    let old = fleet.store.copies(crate::fleet::record::grants());
    fleet.now += 40 * SECOND;
    fleet.settle();
    // It is taken away for good, with its records.
    fleet.nodes.remove(0);
    fleet.store.sweep(|key| key.starts_with("host/") || key.starts_with("grant/"));
    interleavings::restart_as(&mut fleet, 0, 1);
    // This host's clock says nothing against it.
    fleet.nodes[0].skew = -3_600_000_000;
    fleet.settle();
    for (key, value) in old {
        fleet.write(key, value);
    }
    fleet.settle();
    assert!(fleet.open(0).is_empty());
    assert_eq!(fleet.nodes[0].refused, [Refusal::Stale]);
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
            interleavings::restart(&mut fleet, nth);
            fleet.settle();
            // Also while the other has not taken the step.
            fleet.knock(nth, place(0, 1 + u8::try_from(nth).expect("small")));
            fleet.settle();
            assert!(fleet.open(1 - nth).contains(&place(0, 1 + u8::try_from(nth).expect("small"))));
            assert!(fleet.nodes.iter().all(|node| node.refused.is_empty()));
        }
        fleet.now += 31 * SECOND;
        fleet.settle();
    }
    let applied = fleet.nodes[0].state.applied().expect("it has joined");
    assert_eq!(applied.number, 1);
    let records = fleet.store.copies(crate::fleet::record::revocations());
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
    interleavings::restart(&mut fleet, 0);
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
fn what_another_host_says_is_held_to_this_hosts_rules() {
    let mut fleet = joined(1);
    let good = place(0, 1).1;
    let far = "192.0.2.1/32".parse().expect("a network");
    let grant = fleet.grant("alice", 10_000);
    fleet.write_grant("dns", good, &grant);
    fleet.write_grant("ssh", far, &grant);
    let of_bob = fleet.grant("bob", 10_000);
    fleet.write_grant("ssh", good, &of_bob);
    let ahead = Grant {
        head: Mark {
            number: 1,
            nonce: 1,
        },
        ..grant.clone()
    };
    fleet.write_grant("ssh", good, &ahead);
    let too_long = fleet.grant("alice", 400 * 86_400_000);
    fleet.write_grant("ssh", good, &too_long);
    let (key, mut value) = fleet.codec().grant("ssh", good, &grant);
    value.push(b' ');
    fleet.write(key.clone(), value);
    fleet.write(key, b"2 ".to_vec());
    fleet.settle();
    assert_eq!(
        fleet.nodes[0].refused,
        [
            Refusal::Gate,
            Refusal::Source,
            Refusal::User,
            Refusal::Ahead,
            Refusal::TooLong,
            Refusal::Forged,
            Refusal::Version
        ]
    );
    assert!(fleet.open(0).is_empty());
    fleet.write_grant("ssh", good, &grant);
    fleet.settle();
    assert_eq!(fleet.open(0).len(), 1);
}

#[test]
fn a_record_that_is_written_again_opens_no_longer_than_it_did() {
    let mut fleet = joined(1);
    let first = fleet.grant("alice", 10_000);
    fleet.write_grant("ssh", place(0, 1).1, &first);
    fleet.settle();
    let ends = fleet.nodes[0].tables[&place(0, 1)].until;
    fleet.now += 4 * SECOND;
    fleet.nodes[0].tables.clear();
    fleet.write_grant("ssh", place(0, 1).1, &first);
    fleet.settle();
    let again = fleet.nodes[0].tables[&place(0, 1)].until;
    // By as much as its clock may be slower.
    assert!(again <= ends + SECOND / 20, "{}", again - ends);
    fleet.now += 7 * SECOND;
    fleet.nodes[0].tables.clear();
    fleet.write_grant("ssh", place(0, 1).1, &first);
    fleet.settle();
    assert!(fleet.open(0).is_empty());
    assert_eq!(fleet.nodes[0].refused, [Refusal::Stale]);
}

#[test]
fn clocks_that_are_wrong_change_nothing() {
    for skew in [3_600_000_000, -3_600_000_000] {
        let mut fleet = Fleet::new(2);
        fleet.nodes[1].skew = skew;
        fleet.settle();
        // Each has said that it is there since the other has come.
        fleet.now += 6 * SECOND;
        fleet.settle();
        fleet.knock(0, place(0, 1));
        fleet.knock(1, place(0, 2));
        fleet.settle();
        assert!((0..2).all(|nth| fleet.open(nth).len() == 2), "{skew}");
        // After it was cut off, too.
        fleet.nodes[1].link.cut();
        fleet.knock(0, place(1, 3));
        fleet.now += 20 * SECOND;
        fleet.nodes[1].link.is_cut = false;
        let ends = fleet.nodes[0].tables[&place(1, 3)].until;
        fleet.settle();
        let here = fleet.nodes[1].tables[&place(1, 3)].until;
        assert!(here <= ends && here + SECOND > ends, "{skew}");
    }
}

#[test]
fn a_host_whose_clock_is_set_back_goes_on() {
    let mut fleet = joined(2);
    fleet.now += 6 * SECOND;
    fleet.settle();
    fleet.nodes[0].skew = -3_600_000_000;
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.open(1).len(), 1);
    // Also when its service is started again.
    interleavings::restart(&mut fleet, 0);
    fleet.settle();
    fleet.knock(0, place(0, 2));
    fleet.settle();
    assert_eq!(fleet.open(1).len(), 2);
    assert!(fleet.nodes[1].refused.is_empty());
}

#[test]
fn the_newest_time_of_a_key_is_known_everywhere_and_only_grows() {
    let mut fleet = joined(3);
    fleet.nodes[0].state.accepted("alice/laptop", 700);
    fleet.now += 2 * SECOND;
    fleet.settle();
    fleet.nodes[1].state.accepted("alice/laptop", 600);
    fleet.now += 2 * SECOND;
    fleet.settle();
    for nth in 1..3 {
        assert_eq!(fleet.nodes[nth].newest["alice/laptop"], 700);
    }
    // Who comes later is told.
    fleet.add(3, Memory::default());
    fleet.settle();
    assert_eq!(fleet.nodes[3].newest["alice/laptop"], 700);
}

#[test]
fn two_hosts_of_one_name_are_told_apart() {
    let mut fleet = joined(1);
    fleet.add(0, Memory::default());
    fleet.settle();
    fleet.now += 6 * SECOND;
    fleet.settle();
    assert!(
        fleet
            .nodes
            .iter()
            .all(|node| node.refused.contains(&Refusal::Name))
    );
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

#[test]
fn compaction_loses_nothing() {
    let mut fleet = joined(2);
    fleet.knock(0, place(0, 1));
    fleet.step(0, 0, true);
    fleet.store.compact();
    fleet.settle();
    assert_eq!(fleet.open(1).len(), 1);
}

/// Each host is asked to open by the same packet.
#[test]
fn of_all_hosts_that_have_a_packet_one_is_told_to_open() {
    for first in 0..3 {
        let mut fleet = joined(3);
        for nth in 0..3 {
            assert!(fleet.nodes[nth].state.ask("alice", 100, 1));
        }
        for nth in (first..3).chain(0..first) {
            fleet.step(nth, 4, true);
        }
        fleet.settle();
        for (nth, node) in fleet.nodes.iter().enumerate() {
            let answer = if nth == first {
                Answer::Agreed
            } else {
                Answer::Taken
            };
            assert_eq!(
                node.answers,
                BTreeMap::from([(1, answer)]),
                "{nth} of {first}"
            );
            // And none takes it again.
            assert_eq!(node.newest["alice"], 100);
        }
    }
}

#[test]
fn the_packets_of_a_key_are_asked_about_one_after_another() {
    let mut fleet = joined(2);
    for (ask, time) in [(1, 100), (2, 101), (3, 105)] {
        assert!(fleet.nodes[0].state.ask("alice", time, ask));
    }
    assert!(fleet.nodes[0].state.ask("bob", 7, 4));
    let now = fleet.moment(0);
    let node = &mut fleet.nodes[0];
    let writes = node.state.writes(now, 4, &node.rules, |_| None);
    let asked = writes
        .iter()
        .filter(|write| write.condition == Condition::Grows);
    assert_eq!(asked.count(), 2, "one of each key");
    for write in writes {
        node.state.not_written(write.id, now);
    }
    fleet.settle();
    let agreed = (1..=4).map(|ask| (ask, Answer::Agreed)).collect();
    assert_eq!(fleet.nodes[0].answers, agreed);
    // One that is older than what was heard of since is taken for a copy.
    assert!(fleet.nodes[1].state.ask("alice", 104, 1));
    fleet.settle();
    assert_eq!(fleet.nodes[1].answers, BTreeMap::from([(1, Answer::Taken)]));
}

#[test]
fn who_cannot_ask_is_told_so() {
    let mut fleet = joined(2);
    assert!(fleet.nodes[0].state.ask("alice", 100, 1));
    fleet.nodes[0].link.cut();
    fleet.settle();
    assert_eq!(
        fleet.nodes[0].answers,
        BTreeMap::from([(1, Answer::Nothing)])
    );
    assert!(!fleet.nodes[0].state.ask("alice", 101, 2));
    // The packet that was not answered is no other's either.
    fleet.nodes[0].link.is_cut = false;
    fleet.settle();
    assert!(fleet.nodes[0].state.ask("alice", 102, 3));
    fleet.settle();
    assert_eq!(fleet.nodes[0].answers[&3], Answer::Agreed);
}

fn packet(number: u8, fleet: &Fleet) -> Fingerprint {
    Fingerprint {
        hash: [number; 32],
        end: [b'A' + number; END],
        time: 1_700_000_000 + fleet.now / SECOND,
    }
}

#[test]
fn a_packet_of_fwknops_is_told_of_once_to_all_others() {
    let mut fleet = joined(3);
    let packet = packet(1, &fleet);
    fleet.nodes[0].state.accepted_packet(packet);
    fleet.settle();
    assert_eq!(fleet.nodes[0].packets, []);
    for nth in 1..3 {
        assert_eq!(fleet.nodes[nth].packets, [packet]);
    }
    // Who comes later hears of it, too.
    fleet.add(3, Memory::default());
    fleet.settle();
    assert_eq!(fleet.nodes[3].packets, [packet]);
}

#[test]
fn packets_of_fwknops_that_were_accepted_alone_are_told_of_later_unless_too_old() {
    let mut fleet = joined(2);
    fleet.nodes[0].link.cut();
    let old = packet(1, &fleet);
    fleet.nodes[0].state.accepted_packet(old);
    fleet.now += 2 * KEPT * SECOND;
    let new = packet(2, &fleet);
    fleet.nodes[0].state.accepted_packet(new);
    fleet.nodes[0].link.is_cut = false;
    fleet.settle();
    // What may have been lost is told again.
    fleet.nodes[1].packets.dedup();
    assert_eq!(fleet.nodes[1].packets, [new]);
}
