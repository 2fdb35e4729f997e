//! An authenticated packet opens once in the fleet.

use std::time::SystemTime;

use knockgate_tests::{
    fleet::{Fleet, Host},
    fwknop::{self, DRAWN},
    gate_config::Gate,
    keys::{new_key, outcome, sealed, send},
    lab::Source::{A, B, C},
    run::wait_until,
};

use super::{SSH, told_everything};

/// Writes configurations and starts everything; all hosts have the key of alice. Returns two packets of hers, with
/// their times, Unix ns.
fn started(fleet: &Fleet, replay: &str) -> [([u8; 64], u64); 2] {
    for host in &fleet.hosts {
        host.configure(&[Gate::new("ssh", "22/tcp")], replay);
    }
    let key = new_key(&fleet.hosts[0].scenario, "alice --gate ssh");
    for host in &fleet.hosts[1..] {
        host.copy_users(&fleet.hosts[0]);
    }
    let now = unix_time();
    [now, now + 1].map(|time| (sealed(&key, time), time))
}

/// Unix ns.
fn unix_time() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.expect("after 1970").as_nanos()).expect("before 2554")
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

#[test]
fn a_packet_that_one_host_has_accepted_is_refused_by_the_others() {
    Fleet::run(2, |fleet| {
        let [(packet, time), (later, later_time)] = started(fleet, "");
        fleet.start();
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
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
        send(&second.scenario, B, &later);
        second.granted(B, "ssh");
        first.granted(B, "ssh");
        is_known(fleet, "seen/", &format!("{later_time:020}"));
        send(&first.scenario, A, &later);
        had(first, "duplicate", 1);
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

/// `replay = "strict"`: nothing is open before the engine has agreed.
#[test]
fn strictly_nothing_opens_without_the_engine() {
    Fleet::run(2, |fleet| {
        let [(packet, _), (later, _)] = started(fleet, "replay = \"strict\"\n");
        for host in &fleet.hosts {
            host.serve();
            host.isolated();
        }
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        send(&first.scenario, A, &packet);
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
        send(&second.scenario, A, &later);
        second.granted(A, "ssh");
        second.scenario.open(A, SSH);
        first.granted(A, "ssh");
        let opened = second.events("gate.opened");
        assert!(
            opened
                .iter()
                .any(|event| event["user"] == "alice" && event["origin"].is_null())
        );
        send(&first.scenario, B, &later);
        told_everything(fleet, 0);
        first.scenario.closed(B, SSH);
        assert!(first.grant(B, "ssh").is_none());
        // Whoever records packets on her way sends each to the other host at the same moment, from elsewhere.
        for host in &fleet.hosts {
            host.knockgate("revoke --all").exits(0);
        }
        told_everything(fleet, 1);
        let key = fleet.hosts[0].scenario.lab.folder().join("owner.toml");
        for round in 0..20 {
            let packet = sealed(&key, unix_time() + round);
            send(&first.scenario, C, &packet);
            send(&second.scenario, B, &packet);
            let opened = || {
                let places = [(first, C), (second, B)].into_iter();
                let opened = places.filter(|(host, who)| host.grant(*who, "ssh").is_some());
                opened.count()
            };
            wait_until("one has opened", || opened() > 0);
            told_everything(fleet, 0);
            assert_eq!(opened(), 1, "round {round}");
            first.knockgate("revoke --all").exits(0);
            told_everything(fleet, 1);
        }
    });
}
