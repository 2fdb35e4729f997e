//! What one host tells the others, and what they make of it.

use std::time::{Duration, Instant};

use knockgate_tests::{
    fleet::Fleet,
    gate_config::{ALICE, BOB, Gate},
    lab::Source::{A, B, C},
    run::{given_time, wait_until},
};
use serde_json::Value;

use super::{SSH, alice_knocks, told_everything};

fn left(grant: &Value) -> u64 {
    grant["expires_in_ms"].as_u64().expect("a number")
}

#[test]
fn a_knock_at_one_host_opens_all() {
    Fleet::run(3, |fleet| {
        fleet.start();
        let [first, others @ ..] = fleet.hosts.as_slice() else {
            panic!("three hosts")
        };
        for host in &fleet.hosts {
            host.scenario.closed(A, SSH);
        }
        alice_knocks(fleet, 0, A);
        let own = first.granted(A, "ssh");
        assert_eq!(own["origin"], Value::Null);
        for host in others {
            let grant = host.granted(A, "ssh");
            assert_eq!(
                (&grant["origin"], &grant["user"]),
                (&"h1".into(), &"alice".into())
            );
            host.scenario.open(A, SSH);
            host.scenario.closed(B, SSH);
            host.scenario.closed(A, "25/tcp");
            wait_until("the event", || {
                let opened = host.events("gate.opened");
                opened
                    .iter()
                    .any(|event| event["origin"] == "h1" && event["user"] == "alice")
            });
        }
        assert!(
            first
                .events("gate.opened")
                .iter()
                .all(|event| event["origin"] == Value::Null)
        );

        // Another knock renews it everywhere.
        let before = left(&others[0].granted(A, "ssh"));
        wait_until("some of it has passed", || {
            left(&others[0].granted(A, "ssh")) + 1_000 < before
        });
        let before = left(&others[0].granted(A, "ssh"));
        alice_knocks(fleet, 2, A);
        wait_until("it is renewed", || {
            left(&others[0].granted(A, "ssh")) > before
        });
        // By another host: the latest says whose it is.
        assert_eq!(others[0].granted(A, "ssh")["origin"], "h3");
    });
}

#[test]
fn what_was_told_is_not_told_again() {
    Fleet::run(2, |fleet| {
        fleet.start();
        alice_knocks(fleet, 0, A);
        fleet.hosts[1].granted(A, "ssh");
        let record = || fleet.engine.get("/knockgate/test/v1/grant/");
        let before = record();
        assert_eq!(before.len(), 1, "{before:?}");
        assert!(before[0].1.contains("\"origin\":\"h1\""), "{before:?}");
        // A service that begins finds the grant among those of its kernel.
        fleet.hosts[1].stop();
        fleet.hosts[1].serve();
        fleet.hosts[1].joined();
        assert_eq!(fleet.hosts[1].granted(A, "ssh")["origin"], "h1");
        told_everything(fleet, 1);
        let after = record();
        assert!(after.contains(&before[0]), "{before:?} became {after:?}");
    });
}

#[test]
fn grants_by_hand_are_told_only_where_that_is_asked() {
    Fleet::run(2, |fleet| {
        fleet.start();
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        first.knockgate("allow {B} --gate ssh").exits(0);
        first.in_fleet("allow {C} --gate ssh --fleet").exits(0);
        assert_eq!(second.granted(C, "ssh")["origin"], "h1");
        assert!(second.grant(B, "ssh").is_none());
        first.scenario.open(B, SSH);
        second.scenario.closed(B, SSH);
        second.scenario.open(C, SSH);
    });
}

#[test]
fn a_host_holds_what_it_hears_to_its_own_configuration() {
    Fleet::run(3, |fleet| {
        // The second has no such gate, at the third nobody has that name.
        fleet.hosts[1].configure(&[Gate::mail()], "");
        let others = Gate::ssh().key("sources = [\"192.0.2.0/24\"]");
        fleet.hosts[2].configure(
            &[others, Gate::new("mail", "25/tcp").user("carol", BOB)],
            "",
        );
        fleet.start();
        alice_knocks(fleet, 0, A);
        fleet.hosts[0].scenario.knock(A, BOB);
        fleet.hosts[0].granted(A, "mail");
        fleet.hosts[1].granted(A, "mail");
        fleet.hosts[1].refused("gate");
        fleet.hosts[2].refused("source");
        fleet.hosts[2].refused("user");
        assert!(fleet.hosts[1].grant(A, "ssh").is_none());
        assert!(fleet.hosts[2].grant(A, "ssh").is_none());
        assert!(fleet.hosts[2].grant(A, "mail").is_none());
        fleet.hosts[2].scenario.closed(A, "25/tcp");
        // By hand, too.
        fleet.hosts[0]
            .in_fleet("allow {B} --gate ssh --fleet")
            .exits(0);
        wait_until("it is refused", || {
            let refused = fleet.hosts[2].events("fleet.refused");
            let mut by_hand = refused.iter().filter(|event| event["user"].is_null());
            by_hand.any(|event| event["reason"] == "source")
        });
        assert!(fleet.hosts[2].grant(B, "ssh").is_none());
        let metrics = fleet.hosts[2].metrics();
        for reason in ["source", "user"] {
            let name = format!("knockgate_fleet_refused_total{{reason=\"{reason}\"}}");
            let count = metrics.lines().find_map(|line| line.strip_prefix(&*name));
            let count = count.map(|count| count.trim().parse::<f64>());
            assert!(
                count.is_some_and(|count| count.is_ok_and(|count| count >= 1.0)),
                "{metrics}"
            );
        }
    });
}

#[test]
fn no_grant_lasts_longer_than_here_or_there_and_none_needs_the_engine_to_end() {
    Fleet::run(3, |fleet| {
        fleet.hosts[1].configure(&[Gate::ssh().open_for("30s"), Gate::mail()], "");
        fleet.start();
        alice_knocks(fleet, 0, A);
        let here = left(&fleet.hosts[1].granted(A, "ssh"));
        assert!(here <= 30_000, "{here} ms");
        let [there, elsewhere] =
            [&fleet.hosts[2], &fleet.hosts[0]].map(|host| left(&host.granted(A, "ssh")));
        // The origin was asked later.
        assert!(
            there > 30_000 && there.abs_diff(elsewhere) < 60_000,
            "{there}, {elsewhere} ms"
        );

        // Ends by each host's own kernel, with no engine and no service.
        given_time(Duration::from_secs(20), |lasts| {
            let begun = Instant::now();
            let seconds = lasts.as_secs();
            let allow = format!("allow {{B}} --gate ssh --for {seconds}s --fleet");
            fleet.hosts[0].in_fleet(&allow).exits(0);
            fleet.hosts[1..].iter().all(|host| {
                let mut grant = None;
                wait_until("it is there, or may have ended", || {
                    grant = host.grant(B, "ssh");
                    grant.is_some() || begun.elapsed() >= lasts
                });
                let left = grant.as_ref().map(left);
                assert!(left <= Some(1000 * seconds), "{left:?} ms");
                left.is_some()
            })
        });
        fleet.engine.kill_all();
        fleet.hosts[2].kill();
        for host in &fleet.hosts {
            host.scenario.closes(B, SSH);
        }
        // What lasts longer has not ended with the engine.
        fleet.hosts[2].scenario.open(A, SSH);
    });
}

/// Each of them with two knocks, as one source among many.
#[test]
fn hundreds_of_grants_arrive_each_once() {
    Fleet::run(3, |fleet| {
        fleet.start();
        let sources: Vec<String> = (0..200).map(|n| format!("198.51.100.{n}")).collect();
        for source in &sources {
            let allow = format!("allow {source} --gate ssh --fleet");
            fleet.hosts[0].in_fleet(&allow).exits(0);
        }
        told_everything(fleet, 0);
        for host in &fleet.hosts {
            let grants = host.scenario.lab.list("grants");
            for source in &sources {
                let source = format!("{source}/32");
                let of_it = grants.iter().filter(|grant| grant["source"] == *source);
                assert_eq!(of_it.count(), 1, "{} of {source}", host.name);
            }
        }
        // The client's own knock is one among these.
        fleet.hosts[1].scenario.knock(C, ALICE);
        fleet.hosts[0].granted(C, "ssh");
    });
}
