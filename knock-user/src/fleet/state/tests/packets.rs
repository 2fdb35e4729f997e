//! A packet counts once in the fleet.

use super::{interleavings::restart, *};
use crate::{
    fleet::state::newest::FAR,
    fwknop::seen::{END, KEPT},
};

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
fn the_second_packet_of_a_key_is_told_as_soon_as_the_first() {
    let mut fleet = joined(2);
    let told = |fleet: &mut Fleet| {
        let now = fleet.now;
        assert!(
            fleet.nodes[0]
                .state
                .next_due()
                .is_some_and(|due| due <= now)
        );
        for _ in 0..4 {
            fleet.step(0, 0, true);
            fleet.step(1, 0, true);
        }
        fleet.nodes[1].newest["alice"]
    };
    for time in [700, 701] {
        fleet.nodes[0].state.accepted("alice", time);
        assert_eq!(told(&mut fleet), time);
    }
    // More of them within a second wait until it is over.
    fleet.nodes[0].state.accepted("alice", 702);
    let due = fleet.nodes[0].state.next_due();
    assert_eq!(due, Some(fleet.now + SECOND));
    fleet.now += SECOND;
    assert_eq!(told(&mut fleet), 702);
}

/// Somebody wrote it who has the fleet's key and a wrong clock, or no key of the fleet.
#[test]
fn a_newest_time_that_no_packet_can_have_locks_nobody_out() {
    for is_read in [true, false] {
        let mut fleet = joined(3);
        let now = fleet.wall() * 1000;
        let later = Seen {
            time: now + 2 * MAX_AHEAD + FAR,
        };
        let (key, mut value) = fleet.codec().seen("alice", later);
        if !is_read {
            value.push(b'z');
        }
        fleet.write(key, value);
        fleet.settle();
        assert!(fleet.nodes[0].state.ask("alice", now, 1));
        fleet.settle();
        assert_eq!(fleet.nodes[0].answers[&1], Answer::Agreed);
        // From then on times only grow, as ever.
        assert!(fleet.nodes[1].state.ask("alice", now, 1));
        fleet.settle();
        assert_eq!(fleet.nodes[1].answers[&1], Answer::Taken);
        assert!(fleet.nodes[2].newest["alice"] >= now);
        // It does not stay in the place of what was accepted, and of what is accepted then.
        let (key, value) = fleet.codec().seen("alice", later);
        fleet.write(key, value);
        for time in [now, now + 1] {
            fleet.nodes[1].state.accepted("alice", time);
            fleet.now += 2 * SECOND;
            fleet.settle();
            let newest = fleet.store.copies("seen/alice").remove(0);
            let newest = fleet.codec().read(&newest.0, &newest.1);
            let name = "alice".parse().expect("a name");
            assert_eq!(newest, Ok(Record::Seen(name, Seen { time })));
        }
    }
}

/// Nobody is told of a record that is deleted.
#[test]
fn a_newest_time_that_no_packet_can_have_is_replaced_though_it_was_deleted() {
    let mut fleet = joined(2);
    let now = fleet.wall() * 1000;
    let (key, mut value) = fleet.codec().seen("alice", Seen { time: now });
    value.push(b'z');
    fleet.write(key, value);
    fleet.settle();
    fleet.store.sweep(|key| key.starts_with("seen/"));
    assert!(fleet.nodes[0].state.ask("alice", now, 1));
    fleet.settle();
    assert_eq!(fleet.nodes[0].answers[&1], Answer::Agreed);
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

/// During a rotation, two hosts sign the same time with other keys.
#[test]
fn one_is_told_to_open_whatever_key_it_signs_with() {
    let old = FleetKey::random().expect("a random key");
    let new = FleetKey::random().expect("a random key");
    for [first, second] in [[&old, &new], [&new, &old]] {
        let mut fleet = Fleet::new(0);
        for (nth, keys) in [[first, second], [second, first]].into_iter().enumerate() {
            let keys = keys.map(Clone::clone).to_vec();
            fleet.keyring = Keyring::new(keys).expect("there are two");
            fleet.add(nth, Memory::default());
        }
        fleet.settle();
        for nth in 0..2 {
            assert!(fleet.nodes[nth].state.ask("alice", 100, 1));
        }
        fleet.settle();
        let answers = fleet.nodes.iter().map(|node| node.answers[&1]);
        assert!(answers.eq([Answer::Agreed, Answer::Taken]));
    }
}

/// Its kernel program accepts what all others refuse for its age, and what one of them has accepted looks as if it had not been
/// made yet.
#[test]
fn a_host_whose_clock_is_behind_is_not_told_to_open_by_an_older_packet() {
    for behind in [20, 600] {
        let mut fleet = joined(2);
        fleet.nodes[1].skew = -((MAX_AHEAD / 1000).cast_signed() + behind * 1_000_000);
        let now = fleet.wall() * 1000;
        for (time, answer) in [(now, Answer::Taken), (now - SECOND, Answer::Older)] {
            fleet.nodes[0].state.accepted("alice", now);
            fleet.settle();
            restart(&mut fleet, 1);
            fleet.settle();
            assert!(fleet.nodes[1].state.ask("alice", time, 1));
            fleet.settle();
            assert_eq!(fleet.nodes[1].answers[&1], answer);
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
        .filter(|write| matches!(write.condition, Condition::Grows { .. }));
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
    assert_eq!(fleet.nodes[1].answers, BTreeMap::from([(1, Answer::Older)]));
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

#[test]
fn packets_of_fwknops_that_are_too_old_are_forgotten_while_nobody_can_be_told() {
    let mut fleet = joined(1);
    fleet.nodes[0].link.cut();
    fleet.settle();
    let packet = packet(1, &fleet);
    fleet.nodes[0].state.accepted_packet(packet);
    fleet.learn(0);
    assert_eq!(fleet.nodes[0].state.untold.len(), 1);
    fleet.now += 2 * KEPT * SECOND;
    fleet.learn(0);
    assert!(fleet.nodes[0].state.untold.is_empty());
}
