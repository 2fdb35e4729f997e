//! Grants: what one host gives, and what the others make of it.

use super::*;

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

/// A knock may ask for less than its gate allows.
#[test]
fn a_short_grant_opens_hosts_that_allow_less() {
    let mut fleet = joined(2);
    fleet.learn(0);
    fleet.nodes[1].rules.open_for = OPEN_FOR / 3;
    let until = fleet.now + OPEN_FOR / 6;
    give(&mut fleet, 0, place(0, 1), until);
    fleet.settle();
    assert!(fleet.open(1).contains(&place(0, 1)));
}

/// Each holds the other's grant to its own limit.
#[test]
fn hosts_with_other_limits_do_not_write_over_each_other_without_end() {
    let mut fleet = joined(2);
    fleet.learn(0);
    fleet.nodes[0].rules.open_for = OPEN_FOR / 3;
    fleet.knock(1, place(0, 1));
    fleet.settle();
    fleet.now += OPEN_FOR / 6;
    let until = fleet.now + OPEN_FOR / 3;
    give(&mut fleet, 0, place(0, 1), until);
    fleet.settle();
    let published = fleet.nodes.iter().map(|node| node.state.published);
    let published: u64 = published.sum();
    assert!(published <= 4, "{published} times");
}

/// Gives a grant that ends at `until` at a host.
fn give(fleet: &mut Fleet, nth: usize, place: Place, until: u64) {
    let origin = None;
    fleet.nodes[nth]
        .tables
        .insert(place, Kept { until, origin });
    fleet.learn(nth);
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
fn an_answer_that_comes_after_another_hosts_grant_does_not_hide_that_it_was_written_over() {
    let mut fleet = joined(2);
    let at = place(0, 1);
    fleet.knock(0, at);
    // The first step writes it, and hears of it. The answer comes last.
    fleet.step(0, 0, false);
    let over = fleet.grant("alice", 5000);
    fleet.write_grant("ssh", at.1, &over);
    fleet.step(0, 0, false);
    fleet.settle();
    assert_eq!(fleet.origin_of(at), "host-0");
}

/// The answer to one write comes after the grant could have been written again.
#[test]
fn a_slow_engine_is_told_of_a_grant_once() {
    let mut fleet = joined(1);
    let at = place(0, 1);
    fleet.knock(0, at);
    let mut writes = 0;
    let mut unanswered: Vec<u64> = Vec::new();
    for _ in 0..6 {
        let now = fleet.moment(0);
        let Fleet { nodes, store, .. } = &mut fleet;
        let Node {
            state,
            tables,
            rules,
            ..
        } = &mut nodes[0];
        let present = |place| {
            let until = tables[&place].until;
            Some(Local {
                place,
                until,
                user: 7,
            })
        };
        let new = state.writes(now, 4, rules, present);
        let new: Vec<_> = new
            .iter()
            .filter(|write| write.puts[0].key.starts_with(grants()))
            .collect();
        for id in unanswered.drain(..) {
            let outcome = Outcome::Done;
            state.hear(Message::Answered { id, outcome }, now, rules);
        }
        for write in new {
            writes += 1;
            assert_eq!(store.write(write), Outcome::Done);
            unanswered.push(write.id);
        }
        fleet.now += SECOND + SECOND / 10;
        fleet.learn(0);
    }
    assert_eq!(writes, 1);
}

#[test]
fn a_grant_is_written_again_over_one_of_who_may_not_pass_here() {
    let mut fleet = joined(1);
    let at = place(0, 1);
    fleet.knock(0, at);
    fleet.settle();
    let over = fleet.grant("bob", 5000);
    fleet.write_grant("ssh", at.1, &over);
    fleet.settle();
    assert_eq!(fleet.nodes[0].refused, [Refusal::User]);
    assert_eq!(fleet.origin_of(at), "host-0");
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
    fleet.store.sweep(|key| key.starts_with(grants()));
    fleet.nodes[1].link.cut();
    fleet.nodes[1].link.is_cut = false;
    fleet.settle();
    assert_eq!(fleet.open(1), BTreeSet::from([place(0, 1)]));
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
fn what_this_hosts_rules_did_not_allow_is_given_once_they_do() {
    let mut fleet = joined(2);
    fleet.nodes[1].rules.allows_nobody = true;
    fleet.knock(0, place(0, 1));
    fleet.knock(0, place(0, 2));
    fleet.settle();
    assert_eq!(fleet.nodes[1].refused, [Refusal::User; 2]);
    hear_unfit(&mut fleet, 1);
    assert!(fleet.open(1).is_empty());
    // What was revoked meanwhile is not.
    fleet.revoke(0, None, Some(place(0, 2).1));
    fleet.settle();
    fleet.nodes[1].rules.allows_nobody = false;
    hear_unfit(&mut fleet, 1);
    assert_eq!(fleet.open(1), BTreeSet::from([place(0, 1)]));
    assert_eq!(fleet.nodes[1].refused.len(), 2);
}

fn hear_unfit(fleet: &mut Fleet, nth: usize) {
    let now = fleet.moment(nth);
    let node = &mut fleet.nodes[nth];
    for act in node.state.hear_unfit(now, &node.rules) {
        node.act(act, now);
    }
}

#[test]
fn what_was_not_allowed_and_has_ended_keeps_no_room_from_what_has_not() {
    for ends in [true, false] {
        let mut fleet = joined(1);
        fleet.nodes[0].rules.allows_nobody = true;
        let short = fleet.grant("alice", 1000);
        for nth in 0..=4096 {
            let source = IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(
                0x0a00_0000 + nth,
            )));
            fleet.write_grant("dns", source, &short);
            fleet.step(0, 0, true);
        }
        if ends {
            fleet.now += 2 * SECOND;
            fleet.learn(0);
            assert_eq!(fleet.nodes[0].state.unfit.len(), 0);
        }
        let grant = fleet.grant("alice", 10_000);
        fleet.write_grant("ssh", place(0, 1).1, &grant);
        fleet.settle();
        fleet.nodes[0].rules.allows_nobody = false;
        hear_unfit(&mut fleet, 0);
        assert_eq!(fleet.open(0), BTreeSet::from([place(0, 1)]), "{ends}");
    }
}

/// Its host's time is known only then.
#[test]
fn what_is_refused_when_it_is_heard_again_is_said_and_given_once_it_is_allowed() {
    let mut fleet = Fleet::new(2);
    fleet.nodes[1].skew = 3_600_000_000;
    fleet.nodes[1].rules.allows_nobody = true;
    fleet.nodes[1].link.cut();
    fleet.settle();
    fleet.knock(0, place(0, 1));
    fleet.settle();
    fleet.nodes[1].link.is_cut = false;
    fleet.settle();
    fleet.now += 6 * SECOND;
    fleet.settle();
    assert_eq!(fleet.nodes[1].refused, [Refusal::User]);
    fleet.nodes[1].rules.allows_nobody = false;
    hear_unfit(&mut fleet, 1);
    assert_eq!(fleet.open(1).len(), 1);
    assert_eq!(fleet.nodes[1].refused.len(), 1);
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
fn compaction_loses_nothing() {
    let mut fleet = joined(2);
    fleet.knock(0, place(0, 1));
    fleet.step(0, 0, true);
    fleet.store.compact();
    fleet.settle();
    assert_eq!(fleet.open(1).len(), 1);
}

#[test]
fn an_engine_that_takes_no_writes_is_complained_of_once_and_not_pressed() {
    let mut fleet = joined(2);
    fleet.store.is_full = true;
    fleet.knock(0, place(0, 1));
    let before = fleet.nodes[0].state.next_write;
    for _ in 0..20 * 20 {
        fleet.step(0, 0, true);
        fleet.now += SECOND / 20;
    }
    assert_eq!(fleet.nodes[0].cannot_write, 1);
    // Every two seconds in the end, and what it says of itself.
    let writes = fleet.nodes[0].state.next_write - before;
    assert!((10..=25).contains(&writes), "{writes}");
    fleet.store.is_full = false;
    fleet.now += 2 * SECOND;
    fleet.settle();
    assert_eq!(fleet.open(1).len(), 1);
}
