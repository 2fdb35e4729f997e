//! An engine that loses members, revisions or everything.

use std::collections::HashMap;

use knockgate_tests::{
    fleet::{Fleet, engine::port_of_member},
    gate_config::ALICE,
    lab::Source::{A, B, C},
    run::wait_until,
};

use super::{SSH, alice_knocks, told_everything};

/// Has sources of their own knock at a host. Returns their addresses.
fn knocks(fleet: &Fleet, from: usize, group: u8) -> Vec<String> {
    let scenario = fleet.hosts[from].scenario.with_sources_of_its_own(group);
    let knock = |who| {
        scenario.knock(who, ALICE);
        format!("{}/32", scenario.address(who))
    };
    [A, B, C].map(knock).to_vec()
}

#[test]
fn a_leader_that_is_killed_loses_and_doubles_nothing() {
    Fleet::run(3, |fleet| {
        fleet.start();
        let mut given: Vec<(String, usize)> = Vec::new();
        for round in 0..3 {
            let leader = fleet.engine.leader();
            for nth in 0..6 {
                if nth == 3 {
                    fleet.engine.kill(leader);
                }
                let from = usize::from(nth % 3);
                let sources = knocks(fleet, from, 1 + round * 6 + nth);
                given.extend(sources.into_iter().map(|source| (source, from)));
            }
            for host in &fleet.hosts {
                host.has_grants(given.iter().map(|(source, _)| &**source), "ssh");
            }
            fleet.engine.restart(leader);
            fleet.engine.all_answer();
        }
        for (nth, host) in fleet.hosts.iter().enumerate() {
            let told = || {
                let mut told: HashMap<String, u32> = HashMap::new();
                for event in host.events("gate.opened") {
                    if event["origin"].is_string() {
                        let source = event["source"].as_str().expect("a source");
                        let source = source.trim_end_matches("/32");
                        *told.entry(source.to_owned()).or_default() += 1;
                    }
                }
                told
            };
            let others = || given.iter().filter(|(_, from)| *from != nth);
            // An event comes a little later than its grant.
            wait_until("every event is there", || {
                let told = told();
                others().all(|(source, _)| told.contains_key(source.trim_end_matches("/32")))
            });
            let expected: HashMap<String, u32> = others()
                .map(|(source, _)| (source.trim_end_matches("/32").to_owned(), 1))
                .collect();
            assert_eq!(told(), expected, "at {}", host.name);
        }
    });
}

#[test]
fn a_member_that_stands_still_or_is_cut_off_is_left() {
    Fleet::run(2, |fleet| {
        fleet.start();
        for (number, group) in fleet.engine.numbers().zip(1..) {
            fleet.engine.signal(number, libc::SIGSTOP);
            let sources = knocks(fleet, 0, 2 * group);
            fleet.hosts[1].has_grants(sources.iter().map(|source| &**source), "ssh");
            fleet.engine.signal(number, libc::SIGCONT);
            fleet.engine.all_answer();
            fleet.engine.cut(&port_of_member(number));
            let sources = knocks(fleet, 1, 2 * group + 1);
            fleet.hosts[0].has_grants(sources.iter().map(|source| &**source), "ssh");
            fleet.engine.heal(&port_of_member(number));
            fleet.engine.all_answer();
        }
    });
}

#[test]
fn what_was_missed_may_be_compacted_away() {
    Fleet::run(2, |fleet| {
        fleet.start();
        alice_knocks(fleet, 0, B);
        let away = &fleet.hosts[1];
        away.granted(B, "ssh");
        fleet.engine.cut(&away.port());
        away.isolated();
        alice_knocks(fleet, 0, A);
        fleet.hosts[0].in_fleet("revoke {B}").exits(0);
        fleet.hosts[0].not_granted(B, "ssh");
        let written = fleet.engine.revision();
        for number in 0..50 {
            fleet
                .engine
                .put("/a busy neighbour", format!("{number}").as_bytes());
        }
        assert!(fleet.engine.revision() >= written + 50);
        fleet.engine.compact();
        fleet.engine.heal(&away.port());
        away.joined();
        assert_eq!(away.granted(A, "ssh")["origin"], "h1");
        away.not_granted(B, "ssh");
        // It goes on with what comes after that.
        alice_knocks(fleet, 0, C);
        away.granted(C, "ssh");
    });
}

#[test]
fn what_is_deleted_opens_and_closes_nothing() {
    Fleet::run(2, |fleet| {
        fleet.start();
        alice_knocks(fleet, 0, A);
        alice_knocks(fleet, 1, B);
        fleet.hosts[0].granted(B, "ssh");
        fleet.hosts[1].granted(A, "ssh");
        fleet.hosts[1].in_fleet("revoke {B}").exits(0);
        fleet.hosts[0].not_granted(B, "ssh");
        // All of it, also the revocation.
        fleet.engine.delete("/knockgate/");
        told_everything(fleet, 0);
        for host in &fleet.hosts {
            assert!(host.grant(A, "ssh").is_some(), "{}", host.name);
            assert!(host.grant(B, "ssh").is_none(), "{}", host.name);
            host.scenario.open(A, SSH);
        }
    });
}

#[test]
fn an_engine_that_has_lost_everything_is_begun_anew() {
    Fleet::run(3, |fleet| {
        fleet.start();
        alice_knocks(fleet, 0, A);
        alice_knocks(fleet, 1, B);
        for host in &fleet.hosts {
            host.granted(A, "ssh");
            host.granted(B, "ssh");
        }
        fleet.hosts[0].in_fleet("revoke {B}").exits(0);
        for host in &fleet.hosts {
            host.not_granted(B, "ssh");
        }
        fleet.engine.begin_anew();
        for from in 0..3 {
            told_everything(fleet, from);
        }
        for host in &fleet.hosts {
            assert!(host.grant(A, "ssh").is_some(), "{}", host.name);
            assert!(host.grant(B, "ssh").is_none(), "{}", host.name);
        }
        // Revocations count from the beginning, and end what came before.
        fleet.hosts[2].in_fleet("revoke {A}").exits(0);
        for host in &fleet.hosts {
            host.not_granted(A, "ssh");
        }
        alice_knocks(fleet, 2, C);
        for host in &fleet.hosts {
            host.granted(C, "ssh");
        }
    });
}
