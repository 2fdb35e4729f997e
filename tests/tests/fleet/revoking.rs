//! A revocation ends every grant that was given before it, wherever and whenever that is told.

use std::thread;

use knockgate_tests::{
    fleet::Fleet,
    gate_config::{BOB, Gate},
    lab::Source::{A, B, C},
    run::wait_until,
};

use super::{SSH, alice_knocks, told_everything};

#[test]
fn revoked_at_one_host_is_revoked_at_all() {
    Fleet::run(3, |fleet| {
        fleet.start();
        for who in [A, B] {
            alice_knocks(fleet, 0, who);
            fleet.hosts[0].scenario.knock(who, BOB);
            for host in &fleet.hosts {
                host.granted(who, "ssh");
                host.granted(who, "mail");
            }
        }
        // By a host that only heard of it; the other gate and the other source are left.
        fleet.hosts[1].in_fleet("revoke {A} --gate ssh").exits(0);
        assert!(fleet.hosts[1].grant(A, "ssh").is_none());
        for host in &fleet.hosts {
            host.not_granted(A, "ssh");
            host.scenario.closed(A, SSH);
            host.scenario.open(B, SSH);
            assert!(host.grant(A, "mail").is_some());
            wait_until("the event", || {
                let closed = host.events("gate.closed");
                closed
                    .iter()
                    .any(|event| event["reason"] == "revoked" && event["gate"] == "ssh")
            });
        }
        // What is given after it counts.
        alice_knocks(fleet, 2, A);
        for host in &fleet.hosts {
            host.granted(A, "ssh");
        }
        // A network, at every gate; then everything.
        fleet.hosts[2].in_fleet("revoke {network}").exits(0);
        for host in &fleet.hosts {
            host.not_granted(A, "ssh");
            host.not_granted(A, "mail");
            host.not_granted(B, "mail");
        }
        alice_knocks(fleet, 0, C);
        for host in &fleet.hosts {
            host.granted(C, "ssh");
        }
        fleet.hosts[1].in_fleet("revoke --all").exits(0);
        for host in &fleet.hosts {
            wait_until("nothing is granted", || {
                host.scenario.lab.list("grants").is_empty()
            });
        }
    });
}

#[test]
fn revoked_here_is_revoked_here_alone() {
    Fleet::run(2, |fleet| {
        fleet.start();
        alice_knocks(fleet, 0, A);
        fleet.hosts[1].granted(A, "ssh");
        fleet.hosts[1].knockgate("revoke {A} --here").exits(0);
        fleet.hosts[1].scenario.closed(A, SSH);
        told_everything(fleet, 1);
        fleet.hosts[0].scenario.open(A, SSH);
    });
}

/// In the engine's order: the host that was cut off gave the grant before the revocation, and tells of it after.
#[test]
fn a_revocation_ends_what_a_host_gave_while_it_was_cut_off() {
    Fleet::run(3, |fleet| {
        fleet.start();
        let away = &fleet.hosts[2];
        fleet.engine.cut(&away.port());
        away.isolated();
        // Local first: it opens as if it were alone.
        alice_knocks(fleet, 2, A);
        fleet.hosts[0].in_fleet("revoke {A}").exits(0);
        told_everything_but_the_last(fleet);
        // It cannot know yet.
        away.scenario.open(A, SSH);
        fleet.engine.heal(&away.port());
        away.joined();
        away.not_granted(A, "ssh");
        away.scenario.closed(A, SSH);
        told_everything(fleet, 2);
        for host in &fleet.hosts {
            assert!(host.grant(A, "ssh").is_none(), "{}", host.name);
        }
        // After it, she may come again.
        alice_knocks(fleet, 2, A);
        for host in &fleet.hosts {
            host.granted(A, "ssh");
        }
    });
}

/// Whether this host's service has heard of the revocation by then or not.
#[test]
fn what_a_host_gives_after_its_own_revocation_stays() {
    Fleet::run(2, |fleet| {
        fleet.start();
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        alice_knocks(fleet, 1, A);
        first.granted(A, "ssh");
        first.kill();
        first.in_fleet("revoke --all").exits(0);
        first.knockgate("allow {B} --gate ssh").exits(0);
        alice_knocks(fleet, 0, C);
        second.not_granted(A, "ssh");
        first.serve();
        // She is published with the revocation, so this host has heard of it.
        second.granted(C, "ssh");
        told_everything(fleet, 1);
        for who in [B, C] {
            assert!(first.grant(who, "ssh").is_some(), "{who:?}");
            first.scenario.open(who, SSH);
        }
        first.scenario.closed(A, SSH);
        // What another host revokes then ends those too.
        second.in_fleet("revoke --all").exits(0);
        for who in [B, C] {
            first.not_granted(who, "ssh");
        }
    });
}

#[test]
fn what_is_given_in_the_fleet_after_a_revocation_stays_everywhere() {
    Fleet::run(2, |fleet| {
        fleet.start();
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        for _ in 0..10 {
            second.in_fleet("revoke --all").exits(0);
            told_everything(fleet, 0);
        }
        // It cannot wait for a service that is not there, and says so.
        first.kill();
        second.in_fleet("revoke --all").exits(0);
        let given = first.in_fleet("allow {B} --gate ssh --fleet");
        assert!(given.exits(0).stderr.contains("has not heard yet"));
        second.granted(B, "ssh");
        first.serve();
        first.not_granted(B, "ssh");
    });
}

#[test]
fn what_is_revoked_here_while_the_fleet_is_told_of_it_is_not_given_again() {
    Fleet::run(1, |fleet| {
        let [host] = fleet.hosts.as_slice() else {
            panic!("one host")
        };
        // Nobody is there: it is asked first, and given up after two seconds.
        let section = host.section().replacen(
            "endpoints = [",
            "endpoints = [\"https://10.79.1.99:2379\", ",
            1,
        );
        let gates = format!("{}{}", Gate::ssh(), Gate::mail());
        host.configure_with(&gates, &section);
        fleet.start();
        let given = thread::scope(|scope| {
            let allow = scope.spawn(|| host.knockgate("allow {B} --gate ssh --fleet"));
            host.granted(B, "ssh");
            host.knockgate("revoke {B} --here").exits(0);
            allow.join().expect("it does not panic")
        });
        assert!(
            given.exits(1).stderr.contains("has ended at this host"),
            "{}",
            given.stderr
        );
        assert!(host.grant(B, "ssh").is_none());
    });
}

/// Waits until the second host has heard what the first has written.
fn told_everything_but_the_last(fleet: &Fleet) {
    let source = "203.0.113.254";
    let allow = format!("allow {source} --gate ssh --fleet");
    fleet.hosts[0].in_fleet(&allow).exits(0);
    for host in &fleet.hosts[..2] {
        host.has_grant(&format!("{source}/32"), "ssh");
    }
}
