//! What the client cannot open, and how that is counted.

use std::fs;

use knockgate_tests::{
    fwknop::{
        DRAWN, Keys, OTHER, PASSPHRASES, SHORT, WITHOUT_HMAC, count, counted, fwknop, packet, send,
        ssh,
    },
    lab::Source::{A, B},
    run::wait_until,
    scenario::Scenario,
};
use serde_json::Value;

use super::{serve, with_client};

fn nobody_passes(scenario: &Scenario) {
    assert_eq!(scenario.lab.list("grants"), [] as [Value; 0]);
}

/// Returns the reasons of failures that were reported, with user and source.
fn failures(scenario: &Scenario) -> Vec<(String, Value, Value)> {
    let events = scenario.lab.events().into_iter();
    events
        .filter(|event| event["event"] == "knock.failed")
        .map(|event| {
            let reason = event["reason"].as_str().unwrap_or_default().to_owned();
            (reason, event["user"].clone(), event["source"].clone())
        })
        .collect()
}

#[test]
fn a_packet_opens_once_also_when_the_service_is_another_one() {
    with_client(|scenario| {
        let service = serve(scenario, &ssh(&DRAWN.section("alice", "")));
        let packet = packet(scenario, DRAWN, "", &["-s"]);
        counted(scenario, "opened", 1);
        scenario.knockgate("revoke --all").exits(0);
        // Whoever has seen it sends it from elsewhere.
        send(scenario, B, &packet);
        counted(scenario, "replay", 1);
        nobody_passes(scenario);
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        let service = scenario.lab.serve(&[]);
        send(scenario, B, &packet);
        counted(scenario, "replay", 2);
        service.signal(libc::SIGKILL);
        service.ends();
        scenario.knockgate("down").exits(0);
        let _service = scenario.lab.serve(&[]);
        send(scenario, B, &packet);
        counted(scenario, "replay", 1);
        nobody_passes(scenario);
        let state = fs::read_dir(scenario.lab.state()).expect("the service has made it");
        let names: Vec<_> = state
            .map(|entry| entry.expect("readable").file_name())
            .collect();
        assert!(
            names
                .iter()
                .any(|name| name.to_string_lossy().ends_with(".fwknop")),
            "{names:?}"
        );
    });
}

#[test]
fn what_the_client_can_ask_for_beside_ports_is_refused_by_name() {
    with_client(|scenario| {
        let keys = format!("{}{}", DRAWN.section("alice", ""), SHORT.section("bob", ""));
        let _service = serve(scenario, &ssh(&keys));
        let refused = |outcome: &str, keys: Keys, options: &[&str]| {
            let before = count(scenario, outcome);
            fwknop(scenario, keys, "", options);
            counted(scenario, outcome, before + 1);
        };
        for (outcome, options) in [
            ("command", "-s -C id"),
            ("nat", "-s -N 192.168.0.9:22"),
            ("nat", "-s -N 192.168.0.9:22 -f 60"),
            ("local_nat", "-s --nat-local -N 127.0.0.1:22"),
            ("stale", "-s --time-offset-minus 3600s"),
            ("stale", "-s --time-offset-plus 3600s"),
            ("unreadable", "-s -M ECB"),
            ("unreadable", "-s -M CFB"),
            ("unreadable", "-s -M OFB"),
            ("unreadable", "-s -M CTR"),
        ] {
            let options: Vec<&str> = options.split(' ').collect();
            refused(outcome, DRAWN, &options);
        }
        refused("no_hmac", WITHOUT_HMAC, &["-s"]);
        refused("legacy", SHORT, &["-s", "-M", "legacy"]);
        nobody_passes(scenario);
        // Those of a key have its user, and the source.
        let a = Value::from(scenario.address(A).to_string());
        let alice = Value::from("alice");
        wait_until("they are reported", || failures(scenario).len() == 12);
        for (reason, user, source) in failures(scenario) {
            assert_eq!(source, a, "{reason}");
            let is_anyones = ["no_hmac", "legacy"].contains(&reason.as_str());
            let expected = if is_anyones { &Value::Null } else { &alice };
            assert_eq!(user, *expected, "{reason}");
        }
    });
}

#[test]
fn keys_sources_and_addresses_have_to_fit() {
    with_client(|scenario| {
        let network = scenario.family.network();
        let config = ssh(&format!(
            "{}{}",
            DRAWN.section("alice", "source = ['192.0.2.0/24']"),
            PASSPHRASES.section("bob", "require_source_address = true")
        ));
        let config = config.replace("open_for", &format!("sources = ['{network}']\nopen_for"));
        let _service = serve(scenario, &config);
        let a = scenario.address(A).to_string();
        // The key is right, but no key that A may use.
        fwknop(scenario, DRAWN, "", &["-a", &a]);
        counted(scenario, "forged", 1);
        fwknop(scenario, OTHER, "", &["-a", &a]);
        counted(scenario, "forged", 2);
        fwknop(scenario, PASSPHRASES, "", &["-s"]);
        counted(scenario, "address", 1);
        // It may knock, but not for an address that may not.
        fwknop(scenario, PASSPHRASES, "", &["-a", "198.51.100.1"]);
        counted(scenario, "source", 1);
        nobody_passes(scenario);
        fwknop(scenario, PASSPHRASES, "", &["-a", &a]);
        counted(scenario, "opened", 1);
        scenario.open(A, "22/tcp");
        scenario.configure(ssh(&DRAWN.section("alice", "source = ['192.0.2.0/24']")));
        scenario.knockgate("reload").exits(0);
        wait_until("the service has seen it", || {
            let events = scenario.lab.events();
            events
                .iter()
                .any(|event| event["event"] == "config.applied")
        });
        fwknop(scenario, DRAWN, "", &["-a", &a]);
        counted(scenario, "source", 2);
    });
}
