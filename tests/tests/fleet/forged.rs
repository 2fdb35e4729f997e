//! What others than hosts of the fleet write, and hosts whose files or clocks are wrong.

use std::{fs, slice, time::SystemTime};

use ipnet::IpNet;
use knock_user::fleet::{
    keys::Keyring,
    record::{Codec, Grant, Mark},
};
use knockgate_tests::{
    fleet::{Authority, Fleet, NAME},
    gate_config::{ALICE, Gate},
    lab::Source::{A, B, C},
};

use super::{SSH, alice_knocks, told_everything};

const HOUR: u64 = 3_600_000;

/// What a host could write that has the fleet's key: its clock is ahead by `ahead` ms, or behind.
fn grant_of(origin: &str, ahead: i64, left: u64) -> Grant {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = u64::try_from(now.expect("after 1970").as_millis()).expect("fits");
    let clock = now.checked_add_signed(ahead).expect("after 1970");
    Grant {
        user: Some("alice".to_owned()),
        key: None,
        print: None,
        origin: origin.to_owned(),
        serial: clock * 1_000,
        given: clock * 1_000,
        end: clock + left,
        left,
        head: Mark::default(),
    }
}

fn codec(fleet: &Fleet, name: &str) -> Codec {
    let file = fleet.hosts[0].file("fleet.key");
    let keyring = Keyring::load(slice::from_ref(&file)).expect("the fleet's key");
    Codec::new(name, keyring)
}

/// Writes a record, by its name within the fleet.
fn put(fleet: &Fleet, (key, value): (&str, &[u8])) {
    fleet
        .engine
        .put(&format!("/knockgate/{NAME}/v1/{key}"), value);
}

#[test]
fn who_has_the_engine_but_not_the_key_opens_nothing() {
    Fleet::run(2, |fleet| {
        fleet.start();
        alice_knocks(fleet, 0, A);
        fleet.hosts[1].granted(A, "ssh");
        let records = fleet.engine.get(&format!("/knockgate/{NAME}/v1/grant/"));
        let [(key, value)] = records.as_slice() else {
            panic!("{records:?}")
        };
        let [a, b] = [A, B].map(|who| fleet.hosts[0].scenario.address(who).to_string());
        let forged = [
            // Another source's, another gate's, by another name, longer, and not by the fleet's key.
            (key.replace(&a, &b), value.clone()),
            (
                key.replace("/ssh/", "/mail/").replace(&a, &b),
                value.clone(),
            ),
            (key.replace(&a, &b), value.replace("alice", "carol")),
            (
                key.replace(&a, &b),
                value.replacen("\"left\":", "\"left\":9", 1),
            ),
            (key.replace(&a, &b), "1 2 3 4 {}".to_owned()),
            (key.replace(&a, &b), String::new()),
        ];
        for (key, value) in &forged {
            fleet.engine.put(key, value.as_bytes());
        }
        // Signed by the key of the fleet, but for another fleet on the same members.
        let elsewhere = codec(fleet, "other");
        let source = format!("{b}/32").parse().expect("a network");
        let (key, value) = elsewhere.grant("ssh", source, &grant_of("h9", 0, HOUR));
        put(fleet, (&key, &value));
        // So that they can do nothing about it: revocations of everything.
        fleet
            .engine
            .put(&format!("/knockgate/{NAME}/v1/revoke-head"), &value);
        told_everything(fleet, 0);
        for host in &fleet.hosts {
            host.refused("forged");
            assert!(host.grant(B, "ssh").is_none() && host.grant(B, "mail").is_none());
            host.scenario.closed(B, SSH);
            host.scenario.open(A, SSH);
        }
    });
}

#[test]
fn what_is_signed_is_held_to_what_any_grant_is_held_to() {
    Fleet::run(2, |fleet| {
        fleet.start();
        let codec = codec(fleet, NAME);
        let [a, b, c] = [A, B, C].map(|who| {
            let address = fleet.hosts[0].scenario.address(who);
            format!("{address}/32").parse().expect("a network")
        });
        let year = 366 * 24 * HOUR;
        let long = codec.grant("ssh", a, &grant_of("h9", 0, year + 1));
        put(fleet, (&long.0, &long.1));
        // Nobody can have meant that.
        let unlike = Grant {
            left: HOUR,
            ..grant_of("h9", 0, 10 * HOUR)
        };
        let unlike = codec.grant("mail", a, &unlike);
        put(fleet, (&unlike.0, &unlike.1));
        let (key, value) = codec.grant("ssh", b, &grant_of("h9", 0, HOUR));
        let newer = [b"2", &value[1..]].concat();
        put(fleet, (&key, &newer));
        // And what is right is taken, from whatever host.
        let good = codec.grant("ssh", c, &grant_of("h9", 0, HOUR));
        put(fleet, (&good.0, &good.1));
        for host in &fleet.hosts {
            let grant = host.granted(C, "ssh");
            assert_eq!(grant["origin"], "h9");
            // Of this host's own, ten minutes.
            assert!(
                grant["expires_in_ms"]
                    .as_u64()
                    .is_some_and(|left| left <= 600_000)
            );
            for reason in ["too_long", "malformed", "version"] {
                host.refused(reason);
            }
            assert!(host.grant(A, "ssh").is_none() && host.grant(A, "mail").is_none());
            assert!(host.grant(B, "ssh").is_none());
        }
    });
}

/// No clock of another host decides when a grant ends.
#[test]
fn a_host_whose_clock_is_wrong_by_an_hour_opens_no_longer_and_no_shorter() {
    Fleet::run(2, |fleet| {
        fleet.start();
        let codec = codec(fleet, NAME);
        let hour = i64::try_from(HOUR).expect("fits");
        for (who, ahead, origin) in [(A, hour, "h8"), (B, -hour, "h9")] {
            let address = fleet.hosts[0].scenario.address(who);
            let source = format!("{address}/32").parse().expect("a network");
            let (key, value) = codec.grant("ssh", source, &grant_of(origin, ahead, 300_000));
            put(fleet, (&key, &value));
            for host in &fleet.hosts {
                let grant = host.granted(who, "ssh");
                let left = grant["expires_in_ms"].as_u64().expect("a number");
                // A quarter of it is for this machine to be slow in.
                assert!((75_000..=300_000).contains(&left), "{left} ms of {ahead}");
                host.scenario.open(who, SSH);
            }
        }
    });
}

#[test]
fn a_host_with_a_foreign_certificate_or_key_is_none_of_the_fleet() {
    Fleet::run(3, |fleet| {
        let [first, stranger, other] = fleet.hosts.as_slice() else {
            panic!("three hosts")
        };
        // The members do not let it in.
        let foreign = Authority::new("another authority");
        let [cert, key] = ["host.pem", "host.key"].map(|name| stranger.file(name));
        foreign.issue(&stranger.name, None, &cert, &key);
        // They do, but it signs with a key that nobody else has.
        fs::remove_file(other.file("fleet.key")).expect("it was copied");
        let made = format!("fleet key new {}", other.file("fleet.key").display());
        other.knockgate(&made).exits(0);
        fleet.engine.start();
        for host in &fleet.hosts {
            host.serve();
        }
        first.joined();
        stranger.isolated();
        for nth in 0..3 {
            alice_knocks(fleet, nth, [A, B, C][nth]);
        }
        first.refused("forged");
        other.refused("forged");
        assert_eq!(stranger.events("fleet.joined").len(), 0);
        for (nth, host) in fleet.hosts.iter().enumerate() {
            for (of, who) in [A, B, C].into_iter().enumerate() {
                assert_eq!(
                    host.grant(who, "ssh").is_some(),
                    of == nth,
                    "{} {who:?}",
                    host.name
                );
            }
        }
    });
}

#[test]
fn the_key_of_the_fleet_is_exchanged_without_a_gap() {
    Fleet::run(2, |fleet| {
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        let new = first.file("new.key");
        first
            .knockgate(&format!("fleet key new {}", new.display()))
            .exits(0);
        fs::copy(&new, second.file("new.key")).expect("it was made");
        let keys = |host: &knockgate_tests::fleet::Host, names: &[&str]| {
            let files: Vec<_> = names.iter().map(|name| host.file(name)).collect();
            let section = host.section();
            let lines = section.lines().filter(|line| !line.starts_with("keys = "));
            let section = lines.collect::<Vec<_>>().join("\n");
            let gates = format!("{}{}", Gate::ssh(), Gate::mail());
            host.configure_with(&gates, &format!("{section}\nkeys = {files:?}\n"));
        };
        // As docs/fleet.md has it: every host verifies by both, then signs by the new one, then forgets the old one.
        fleet.start();
        // Made with the old key, and never again.
        first.in_fleet("revoke --all").exits(0);
        told_everything(fleet, 0);
        for (step, names) in [
            &["fleet.key", "new.key"][..],
            &["new.key", "fleet.key"],
            &["new.key"],
        ]
        .into_iter()
        .enumerate()
        {
            if step == 2 {
                // A day later, the engine has deleted the grants that were signed with the old one.
                fleet.engine.delete(&format!("/knockgate/{NAME}/v1/grant/"));
            }
            for (nth, host) in fleet.hosts.iter().enumerate() {
                keys(host, names);
                host.stop();
                host.serve();
                host.joined();
                // Also while one has taken the step and the other has not: each opens the other, by a command and by a knock.
                for from in [nth, 1 - nth] {
                    told_everything(fleet, from);
                    let group = u8::try_from(4 * step + 2 * nth + from + 1).expect("small");
                    let sources = fleet.hosts[from].scenario.with_sources_of_its_own(group);
                    sources.knock(A, ALICE);
                    let source = format!("{}/32", sources.address(A));
                    fleet.hosts[1 - from].has_grant(&source, "ssh");
                }
            }
        }
        for host in &fleet.hosts {
            assert_eq!(host.events("fleet.refused").len(), 0, "{}", host.name);
        }
    });
}

/// A host that has the fleet's key can say whatever its own configuration lets it.
#[test]
fn a_record_for_which_there_is_no_room_ends_nothing_else() {
    Fleet::run(2, |fleet| {
        fleet.start();
        let codec = codec(fleet, NAME);
        // The kernel program looks for eight lengths, of which one is that of addresses.
        for length in 16..26_u8 {
            let network = IpNet::new([10, length, 0, 0].into(), length).expect("a network");
            let by_hand = Grant {
                user: None,
                ..grant_of("h9", 0, HOUR)
            };
            let (key, value) = codec.grant("ssh", network, &by_hand);
            put(fleet, (&key, &value));
        }
        told_everything(fleet, 0);
        for host in &fleet.hosts {
            host.refused("table_full");
            assert_eq!(host.events("fleet.isolated").len(), 0, "{}", host.name);
        }
        alice_knocks(fleet, 0, A);
        fleet.hosts[1].granted(A, "ssh");
    });
}
