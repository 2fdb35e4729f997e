//! Hosts without the engine are what they are without a fleet, and are right again when they are back.

use std::time::{Duration, Instant};

use knockgate_tests::{
    fleet::Fleet,
    lab::Source::{A, B, C},
    run::wait_until,
};

use super::{SSH, alice_knocks, told_everything};

#[test]
fn a_host_that_was_cut_off_hears_what_it_has_missed() {
    Fleet::run(3, |fleet| {
        fleet.start();
        alice_knocks(fleet, 0, B);
        let away = &fleet.hosts[2];
        away.granted(B, "ssh");
        fleet.engine.cut(&away.port());
        away.isolated();
        alice_knocks(fleet, 0, A);
        fleet.hosts[1].granted(A, "ssh");
        fleet.hosts[1].in_fleet("revoke {B}").exits(0);
        fleet.hosts[0].not_granted(B, "ssh");
        // And the other way.
        alice_knocks(fleet, 2, C);
        assert!(away.grant(A, "ssh").is_none());
        assert!(away.grant(B, "ssh").is_some());
        fleet.engine.heal(&away.port());
        away.joined();
        assert_eq!(away.granted(A, "ssh")["origin"], "h1");
        away.not_granted(B, "ssh");
        for host in &fleet.hosts[..2] {
            assert_eq!(host.granted(C, "ssh")["origin"], "h3");
        }
    });
}

#[test]
fn without_the_engine_a_host_is_what_it_is_without_a_fleet() {
    Fleet::run(2, |fleet| {
        for host in &fleet.hosts {
            host.serve();
        }
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        alice_knocks(fleet, 0, A);
        first.knockgate("allow {B} --gate ssh").exits(0);
        first.scenario.open(B, SSH);
        first.knockgate("revoke {B} --here").exits(0);
        first.scenario.closed(B, SSH);
        first.scenario.closed(C, SSH);
        first.isolated();
        assert_eq!(first.events("fleet.joined").len(), 0);
        assert!(second.grant(A, "ssh").is_none());
        // Once it is there, they are a fleet, and what was given before that is told.
        fleet.engine.start();
        for host in &fleet.hosts {
            host.joined();
        }
        assert_eq!(second.granted(A, "ssh")["origin"], "h1");
        told_everything(fleet, 1);
        assert!(second.grant(B, "ssh").is_none());
    });
}

/// It hears what is said, and does nothing of it.
#[test]
fn a_host_whose_tables_a_command_keeps_locked_is_isolated() {
    Fleet::run(2, |fleet| {
        fleet.start();
        alice_knocks(fleet, 0, A);
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        second.granted(A, "ssh");
        let holder = second.scenario.hold_lock();
        first.in_fleet("revoke {A}").exits(0);
        let begun = Instant::now();
        second.isolated();
        // And not only once it gives up.
        assert!(begun.elapsed() < Duration::from_secs(30));
        drop(holder);
        second.joined();
        second.not_granted(A, "ssh");
    });
}

#[test]
fn a_grant_that_ends_while_a_command_keeps_the_tables_locked_opens_nothing() {
    Fleet::run(2, |fleet| {
        fleet.start();
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        let holder = second.scenario.hold_lock();
        first
            .in_fleet("allow {A} --gate ssh --for 2s --fleet")
            .exits(0);
        let given = Instant::now();
        second.isolated();
        first.not_granted(A, "ssh");
        // The other host may count it as ending a little later.
        wait_until("it has ended by every clock", || {
            given.elapsed() > Duration::from_secs(3)
        });
        drop(holder);
        second.refused("stale");
        second.joined();
        told_everything(fleet, 0);
        let opened = second.events("gate.opened");
        let ended = second.scenario.address(A).to_string();
        assert!(
            opened.iter().all(|event| event["source"] != *ended),
            "{opened:?}"
        );
    });
}

#[test]
fn a_service_that_was_killed_takes_up_what_it_was_told_and_what_it_has_missed() {
    Fleet::run(2, |fleet| {
        fleet.start();
        alice_knocks(fleet, 0, A);
        alice_knocks(fleet, 0, B);
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        second.granted(A, "ssh");
        second.granted(B, "ssh");
        second.kill();
        // The kernel goes on: also with what others have opened.
        second.scenario.open(A, SSH);
        alice_knocks(fleet, 0, C);
        first.in_fleet("revoke {B}").exits(0);
        first.not_granted(B, "ssh");
        second.scenario.open(B, SSH);
        second.serve();
        second.joined();
        assert_eq!(second.granted(A, "ssh")["origin"], "h1");
        assert_eq!(second.granted(C, "ssh")["origin"], "h1");
        second.not_granted(B, "ssh");
        second.scenario.closed(B, SSH);
    });
}
