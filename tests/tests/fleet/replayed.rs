//! An authenticated packet opens once in the fleet.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use knock_common::knock::authenticated::message::action;
use knockgate_tests::{
    fleet::{Fleet, Host},
    fwknop::{self, DRAWN},
    gate_config::Gate,
    keys::{made, new_key, outcome, sealed, send},
    lab::{
        Source,
        Source::{A, B, C},
    },
    run::wait_until,
};

use super::{SSH, told_everything};

/// Writes configurations, so that all hosts have the key of alice. Returns her key.
fn configured(fleet: &Fleet, replay: &str) -> PathBuf {
    for host in &fleet.hosts {
        host.configure(&[Gate::new("ssh", "22/tcp")], replay);
    }
    let key = new_key(&fleet.hosts[0].scenario, "alice --gate ssh");
    for host in &fleet.hosts[1..] {
        host.copy_users(&fleet.hosts[0]);
    }
    key
}

/// Unix ns.
fn unix_time() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.expect("after 1970").as_nanos()).expect("before 2554")
}

/// Waits until packets of a key count at hosts that have just come up with it: `max_ahead` later.
fn key_counts() {
    let begun = unix_time();
    wait_until("the key counts", || unix_time() > begun + 1_000_000_000);
}

/// Waits until the engine has a record of packets that holds this text, and every host has heard of it.
#[track_caller]
fn is_known(fleet: &Fleet, records: &str, text: &str) {
    wait_until("the engine knows of the packet", || {
        let records = fleet.engine.get(&format!("/knockgate/test/v1/{records}"));
        records.iter().any(|(_, value)| value.contains(text))
    });
    told_everything(fleet, 0);
}

/// Waits until a host has dealt with so many datagrams in this way.
#[track_caller]
fn had(host: &Host, name: &str, times: u64) {
    let what = format!("{} has had {times} packets that are {name}", host.name);
    wait_until(&what, || outcome(&host.scenario, name) == times);
}

/// Sends a packet to hosts, and waits until one has opened, or each has refused it, as they do where the engine is late with
/// its answer. Returns how many have opened.
#[track_caller]
fn sent_to_each(packet: &[u8; 64], to: &[(&Host, Source)]) -> usize {
    let refused = |host: &Host| {
        let names = ["gate.refused", "knock.captured"];
        let events = names.iter().flat_map(|name| host.events(name));
        let own = events.filter(|event| event["user"] == "alice");
        // Of one that it has heard of before, there is no event.
        own.count() as u64 + outcome(&host.scenario, "duplicate")
    };
    let before: Vec<u64> = to.iter().map(|(host, _)| refused(host)).collect();
    for (host, who) in to {
        send(&host.scenario, *who, packet);
    }
    let mut opened = 0;
    wait_until("one has opened, or each has refused", || {
        opened = granted(to);
        let mut hosts = to.iter().zip(&before);
        opened > 0 || hosts.all(|((host, _), before)| refused(host) > *before)
    });
    opened
}

/// Returns at how many of these hosts the source has a grant.
fn granted(places: &[(&Host, Source)]) -> usize {
    let granted = places.iter();
    let granted = granted.filter(|(host, who)| host.grant(*who, "ssh").is_some());
    granted.count()
}

#[test]
fn a_packet_that_one_host_has_accepted_is_refused_by_the_others() {
    Fleet::run(2, |fleet| {
        let key = configured(fleet, "");
        fleet.start();
        key_counts();
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        let time = unix_time();
        let packet = sealed(&key, time);
        send(&first.scenario, A, &packet);
        first.granted(A, "ssh");
        second.granted(A, "ssh");
        is_known(fleet, "seen/", &format!("{time:020}"));
        // Whoever has recorded it sends it from elsewhere.
        send(&second.scenario, B, &packet);
        had(second, "duplicate", 1);
        second.scenario.closed(B, SSH);
        assert!(second.grant(B, "ssh").is_none());
        // Her next one opens there, and is old at the first.
        let later_time = unix_time();
        let later = sealed(&key, later_time);
        send(&second.scenario, B, &later);
        second.granted(B, "ssh");
        first.granted(B, "ssh");
        is_known(fleet, "seen/", &format!("{later_time:020}"));
        send(&first.scenario, A, &later);
        had(first, "duplicate", 1);
    });
}

/// A key begins at a time that no host can have accepted a packet of: told as one, it would lock its user out at all hosts, and
/// where the clock is ahead, keep what is accepted until then from being told.
#[test]
fn when_a_key_begins_is_no_time_of_a_packet() {
    Fleet::run(1, |fleet| {
        let key = configured(fleet, "");
        fleet.start();
        // The service has looked at its tables by then, more than once.
        key_counts();
        told_everything(fleet, 0);
        let seen = || fleet.engine.get("/knockgate/test/v1/seen/");
        assert_eq!(seen(), []);
        let time = unix_time();
        send(&fleet.hosts[0].scenario, A, &sealed(&key, time));
        is_known(fleet, "seen/", &format!("{time:020}"));
    });
}

/// The new key has the same name, and the old one was stolen.
#[test]
fn what_another_host_lets_in_by_a_key_that_was_rotated_here_is_not_let_in_here() {
    old_key_is_refused("0s");
}

#[test]
fn what_another_host_lets_in_by_a_key_that_has_expired_here_is_not_let_in_here() {
    old_key_is_refused("1s");
}

/// `overlap`: no more than a second.
fn old_key_is_refused(overlap: &str) {
    Fleet::run(2, |fleet| {
        let key = configured(fleet, "");
        fleet.start();
        key_counts();
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        let rotated = first.knockgate(&format!("key rotate alice --overlap {overlap}"));
        rotated.exits(0);
        let rotated = unix_time();
        wait_until("the old key has expired", || {
            unix_time() > rotated + 1_100_000_000
        });
        // The folder of keys has not come here yet.
        send(&second.scenario, A, &sealed(&key, unix_time()));
        second.granted(A, "ssh");
        told_everything(fleet, 1);
        first.refused("user");
        assert!(first.grant(A, "ssh").is_none());
        first.scenario.closed(A, SSH);
    });
}

#[test]
fn a_packet_of_fwknops_that_one_host_has_accepted_is_refused_by_the_others() {
    Fleet::run_with(&["fwknop"], 2, |fleet| {
        for host in &fleet.hosts {
            let gate = fwknop::ssh(&DRAWN.section("alice", ""));
            host.configure_with(&gate, &host.section());
        }
        fleet.start();
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        let packet = fwknop::packet(&first.scenario, DRAWN, "", &["-s", "-T"]);
        fwknop::send(&first.scenario, A, &packet);
        first.granted(A, "ssh");
        second.granted(A, "ssh");
        is_known(fleet, "fwknop/", "\"host\":\"h1\"");
        // Whoever has recorded it sends it from elsewhere.
        fwknop::send(&second.scenario, B, &packet);
        fwknop::counted(&second.scenario, "replay", 1);
        assert!(second.grant(B, "ssh").is_none());
        second.scenario.closed(B, SSH);
    });
}

/// While nobody could be told.
#[test]
fn a_packet_of_fwknops_is_told_by_the_next_thread_or_service() {
    Fleet::run_with(&["fwknop"], 2, |fleet| {
        let gate = fwknop::ssh(&DRAWN.section("alice", ""));
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        for host in &fleet.hosts {
            host.configure_with(&gate, &host.section());
            host.serve();
            host.isolated();
        }
        let accepted = |host: &Host, from| {
            let packet = fwknop::packet(&host.scenario, DRAWN, "", &["-s", "-T"]);
            fwknop::send(&host.scenario, from, &packet);
            host.granted(from, "ssh");
            packet
        };
        let by_thread = accepted(first, A);
        let section = format!("{}replay = \"strict\"\n", first.section());
        first.configure_with(&gate, &section);
        first.knockgate("reload").exits(0);
        let by_service = accepted(second, B);
        second.kill();
        second.serve();
        fleet.engine.start();
        for host in &fleet.hosts {
            host.joined();
        }
        for host in ["h1", "h2"] {
            is_known(fleet, "fwknop/", &format!("\"host\":\"{host}\""));
        }
        for (packet, host) in [(by_thread, second), (by_service, first)] {
            fwknop::send(&host.scenario, C, &packet);
            fwknop::counted(&host.scenario, "replay", 1);
            assert!(host.grant(C, "ssh").is_none());
        }
    });
}

/// `replay = "strict"`: nothing is open before the engine has agreed.
#[test]
fn strictly_nothing_opens_without_the_engine() {
    Fleet::run(2, |fleet| {
        let key = configured(fleet, "replay = \"strict\"\n");
        for host in &fleet.hosts {
            host.serve();
            host.isolated();
        }
        key_counts();
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        send(&first.scenario, A, &sealed(&key, unix_time()));
        had(first, "held", 1);
        wait_until("it is reported", || {
            let refused = first.events("gate.refused");
            refused.iter().any(|event| {
                event["reason"] == "isolated" && event["user"] == "alice" && event["gate"] == "ssh"
            })
        });
        first.scenario.closed(A, SSH);
        assert!(first.grant(A, "ssh").is_none());
        fleet.engine.start();
        for host in &fleet.hosts {
            host.joined();
        }
        let mut later = [0; 64];
        wait_until("her packet opens", || {
            later = sealed(&key, unix_time());
            sent_to_each(&later, &[(second, A)]) == 1
        });
        second.scenario.open(A, SSH);
        first.granted(A, "ssh");
        wait_until("it is reported", || {
            let opened = second.events("gate.opened");
            let mut opened = opened.iter();
            opened.any(|event| event["user"] == "alice" && event["origin"].is_null())
        });
        send(&first.scenario, B, &later);
        told_everything(fleet, 0);
        first.scenario.closed(B, SSH);
        assert!(first.grant(B, "ssh").is_none());
        // Whoever records packets on her way sends each to the other host at the same moment, from elsewhere.
        first.in_fleet("revoke --all").exits(0);
        told_everything(fleet, 0);
        for round in 0..20 {
            let places = [(first, C), (second, B)];
            wait_until("one has opened", || {
                sent_to_each(&sealed(&key, unix_time()), &places) > 0
            });
            told_everything(fleet, 0);
            assert_eq!(granted(&places), 1, "round {round}");
            first.in_fleet("revoke --all").exits(0);
            // By the same host: what another one gives meanwhile ends when it hears of this.
            told_everything(fleet, 0);
        }
    });
}

/// The engine is late with its answer, or the service itself is, and before it comes, her grant is not wanted any more.
#[test]
fn strictly_what_was_closed_or_revoked_while_it_waited_does_not_open() {
    Fleet::run(1, |fleet| {
        let key = configured(fleet, "replay = \"strict\"\n");
        fleet.start();
        key_counts();
        let [host] = fleet.hosts.as_slice() else {
            panic!("one host")
        };
        let close = || {
            let before = outcome(&host.scenario, "closed");
            let mut close = made(&key, unix_time());
            close.action = action::CLOSE;
            send(&host.scenario, A, &close.sealed());
            had(host, "closed", before + 1);
        };
        let engine = |signal| {
            for number in fleet.engine.numbers() {
                fleet.engine.signal(number, signal);
            }
        };
        let service = |signal| host.signal(signal);
        refused_while_it_waits(fleet, &key, "asked", engine, close);
        let revoke = || {
            host.knockgate("revoke --all --here").exits(0);
        };
        refused_while_it_waits(fleet, &key, "revoked", engine, revoke);
        refused_while_it_waits(fleet, &key, "revoked", service, revoke);
        // Her next one opens.
        wait_until("her packet opens", || {
            sent_to_each(&sealed(&key, unix_time()), &[(host, A)]) == 1
        });
    });
}

/// Sends a packet, and has `then` happen while it waits for what is stopped by these signals.
fn refused_while_it_waits(
    fleet: &Fleet,
    key: &Path,
    reason: &str,
    signal: impl Fn(i32),
    then: impl Fn(),
) {
    let host = &fleet.hosts[0];
    // Where it is so late that the host is isolated before, that says nothing.
    wait_until("it is refused for this reason", || {
        host.joined();
        let refused = || host.events("gate.refused");
        let (before, held) = (refused().len(), outcome(&host.scenario, "held"));
        signal(libc::SIGSTOP);
        send(&host.scenario, A, &sealed(key, unix_time()));
        had(host, "held", held + 1);
        then();
        signal(libc::SIGCONT);
        wait_until("it is refused", || refused().len() > before);
        refused()[before]["reason"] == reason
    });
    host.joined();
    told_everything(fleet, 0);
    assert!(host.grant(A, "ssh").is_none());
}
