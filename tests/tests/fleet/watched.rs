//! What commands, metrics and `check` say of a fleet.

use std::{fs, os::unix::fs::PermissionsExt as _};

use knockgate_tests::{
    fleet::{Authority, Fleet},
    lab::Source::A,
    run::{wait_for_value, wait_until},
};
use serde_json::Value;

use super::alice_knocks;

#[test]
fn the_fleet_is_shown_with_its_hosts() {
    Fleet::run(3, |fleet| {
        fleet.start();
        let [first, second, third] = fleet.hosts.as_slice() else {
            panic!("three hosts")
        };
        let status = || first.in_fleet("fleet status --json").exits(0).json();
        let names = |status: &Value| -> Vec<String> {
            let hosts = status["hosts"].as_array().expect("a list");
            let names = hosts.iter().filter_map(|host| host["name"].as_str());
            names.map(ToOwned::to_owned).collect()
        };
        wait_until("all hosts are known", || {
            names(&status()) == ["h1", "h2", "h3"]
        });
        for host in [first, second, third] {
            wait_for_value(
                "it is connected",
                || host.metrics(),
                |metrics| metrics.contains("knockgate_fleet_connected 1"),
            );
        }
        alice_knocks(fleet, 0, A);
        second.granted(A, "ssh");
        wait_until("one is counted as told", || {
            counted(&first.metrics(), "knockgate_fleet_published_total") >= 1.0
        });
        wait_until("one is counted as heard", || {
            counted(&second.metrics(), "knockgate_fleet_received_total") >= 1.0
        });
        // By the one that has told.
        wait_until("the lag is measured", || {
            counted(&first.metrics(), "knockgate_fleet_lag_seconds_count") >= 1.0
        });

        fleet.engine.cut(&third.port());
        third.isolated();
        wait_for_value(
            "it is not connected",
            || third.metrics(),
            |metrics| metrics.contains("knockgate_fleet_connected 0"),
        );
        wait_until("the time is counted", || {
            counted(&third.metrics(), "knockgate_fleet_isolated_seconds") > 0.0
        });
    });
}

/// Returns the value of a metric without labels, 0 where there is none.
fn counted(metrics: &str, name: &str) -> f64 {
    let mut lines = metrics.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

#[test]
fn check_looks_at_the_files_and_tries_the_members() {
    Fleet::run(1, |fleet| {
        let host = &fleet.hosts[0];
        let codes = |options: &str| -> Vec<String> {
            let document = host
                .knockgate(&format!("check --json {options}"))
                .exits(0)
                .json();
            let findings = document["findings"].as_array().expect("a list");
            let codes = findings
                .iter()
                .filter_map(|finding| finding["code"].as_str());
            let of_fleet = codes.filter(|code| {
                code.contains("fleet") || code.contains("certificate") || code.contains("endpoint")
            });
            of_fleet.map(ToOwned::to_owned).collect()
        };
        assert_eq!(codes(""), [""; 0]);
        // A busy member may answer too late.
        let at_the_members = |expected: &[&str]| {
            wait_for_value("a look", || codes("--connect"), |codes| codes == expected)
        };
        at_the_members(&["unreachable-endpoint"; 3]);
        fleet.engine.start();
        at_the_members(&[]);
        // Until the others have elected a leader, they answer no request.
        fleet.engine.kill(fleet.engine.leader());
        fleet.engine.leader();
        at_the_members(&["unreachable-endpoint"; 1]);

        // Members that another authority has signed for, or that do not let this host in.
        let foreign = Authority::new("another authority");
        let [cert, key] = ["host.pem", "host.key"].map(|name| host.file(name));
        foreign.issue("h1", None, &cert, &key);
        assert_eq!(codes(""), ["certificate-of-another-authority"]);
        assert_eq!(codes("--connect").len(), 4);
        fs::set_permissions(host.file("fleet.key"), fs::Permissions::from_mode(0o644))
            .expect("ours");
        let expected = ["unusable-fleet-file", "certificate-of-another-authority"];
        let mut codes = codes("");
        codes.sort_unstable_by_key(|code| expected.iter().position(|known| known == code));
        assert_eq!(codes, expected);
    });
}

#[test]
fn a_host_that_cannot_begin_says_that_it_is_isolated() {
    Fleet::run(1, |fleet| {
        fleet.engine.start();
        let host = &fleet.hosts[0];
        let mode = |mode| {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(host.file("fleet.key"), mode).expect("ours");
        };
        mode(0o644);
        host.serve();
        host.isolated();
        let metrics = host.metrics();
        assert!(metrics.contains("knockgate_fleet_connected 0"), "{metrics}");
        mode(0o600);
        // It tries again by itself, and has said it once.
        host.joined();
        assert_eq!(host.events("fleet.isolated").len(), 1);
        assert!(host.metrics().contains("knockgate_fleet_connected 1"));
    });
}
