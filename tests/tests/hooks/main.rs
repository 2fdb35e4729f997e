//! Hooks and alerts of `knockgate run`: programs that are run for events, and what the next service does for grants that
//! ended while none ran.

mod away;
mod ends;
mod keys;

use std::{fs, path::PathBuf};

use knockgate_tests::{
    gate_config::{ALICE, Gate},
    lab::{
        Family,
        Source::{A, B, C},
    },
    run::{Running, wait_for_value, wait_until},
    scenario::{Attach, Scenario},
};
use serde_json::Value;

/// What one hook of [`noting`] notes down of one event.
const NOTE: &str = "$KNOCKGATE_EVENT $KNOCKGATE_SOURCE $KNOCKGATE_REASON";

fn in_generic_mode(row: impl FnOnce(&Scenario)) {
    Scenario::run(Attach::Generic, Family::V4, &[], row);
}

fn ssh() -> Gate {
    Gate::ssh().open_for("1h").within("1m")
}

/// A hook that runs a line of shell.
fn hook(on: &str, script: &str) -> String {
    let run = ["/bin/sh", "-c", script];
    format!("[[gate.hook]]\non = {on:?}\nrun = {run:?}\n")
}

/// A gate with hooks that note down each event in the file that [`notes`] reads.
fn noting(scenario: &Scenario, gate: &Gate, events: &[&str]) -> String {
    let file = file(scenario);
    let script = format!("echo {NOTE} >>{}", file.display());
    let hooks: String = events.iter().map(|on| hook(on, &script)).collect();
    format!("{gate}{hooks}")
}

fn file(scenario: &Scenario) -> PathBuf {
    scenario.lab.folder().join("notes")
}

/// What hooks have noted down so far, with A, B and C for the addresses.
fn notes(scenario: &Scenario) -> Vec<String> {
    let mut text = fs::read_to_string(file(scenario)).unwrap_or_default();
    for (who, name) in [(A, "A"), (B, "B"), (C, "C")] {
        text = text.replace(&scenario.address(who).to_string(), name);
    }
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// Waits until hooks have noted down exactly this, in any order of sources.
#[track_caller]
fn noted(scenario: &Scenario, expected: &[&str]) {
    let mut expected: Vec<&str> = expected.to_vec();
    expected.sort_unstable();
    wait_for_value(
        &format!("hooks have noted {expected:?}"),
        || {
            let mut notes = notes(scenario);
            notes.sort_unstable();
            assert!(notes.len() <= expected.len(), "{notes:?}");
            notes
        },
        |notes| *notes == expected,
    );
}

/// Starts the service and waits until it hands on events.
fn serve(scenario: &Scenario) -> Running {
    scenario.lab.serve(&[])
}

fn events(scenario: &Scenario, name: &str) -> Vec<Value> {
    let said = scenario.knockgate("events --json").exits(0).stdout.clone();
    let events = said
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    events.filter(|event| event["event"] == name).collect()
}

#[test]
fn a_grant_runs_hooks_when_it_is_given_and_when_it_ends() {
    in_generic_mode(|scenario| {
        let gate = ssh().open_for("1s");
        scenario.configure(noting(scenario, &gate, &["opened", "closed"]));
        let service = serve(scenario);
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        noted(scenario, &["gate.opened B"]);
        scenario.knockgate("revoke {B}").exits(0);
        scenario.knock(A, ALICE);
        noted(
            scenario,
            &[
                "gate.opened A",
                "gate.opened B",
                "gate.closed A expired",
                "gate.closed B revoked",
            ],
        );
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
    });
}

/// What is given and taken away between two looks at the tables is in none of them.
#[test]
fn a_grant_that_nobody_has_seen_runs_its_hooks_too() {
    in_generic_mode(|scenario| {
        scenario.configure(noting(scenario, &ssh(), &["opened", "closed"]));
        let service = serve(scenario);
        service.signal(libc::SIGSTOP);
        scenario.knock(A, ALICE);
        scenario.knockgate("revoke {A}").exits(0);
        scenario.knock(C, ALICE);
        service.signal(libc::SIGCONT);
        noted(
            scenario,
            &["gate.opened A", "gate.opened C", "gate.closed A revoked"],
        );
    });
}

#[test]
fn what_takes_the_instance_down_ends_its_grants() {
    in_generic_mode(|scenario| {
        scenario.configure(noting(scenario, &ssh(), &["closed"]));
        let service = serve(scenario);
        scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
        wait_until("the service has seen it", || {
            !events(scenario, "gate.opened").is_empty()
        });
        scenario.knockgate("down").exits(0);
        assert_eq!(service.ends(), Some(0));
        noted(scenario, &["gate.closed A revoked"]);
        // Nothing is left to know.
        let left = fs::read_dir(scenario.lab.state()).expect("the service has made it");
        assert_eq!(left.count(), 0);
    });
}

/// It was in no table that the service has read.
#[test]
fn a_grant_that_was_given_just_before_the_end_has_ended_too() {
    in_generic_mode(|scenario| {
        scenario.configure(noting(scenario, &ssh(), &["opened", "closed"]));
        let service = serve(scenario);
        service.signal(libc::SIGSTOP);
        scenario.knock(A, ALICE);
        scenario.knockgate("down").exits(0);
        service.signal(libc::SIGCONT);
        assert_eq!(service.ends(), Some(0));
        let mut expected = vec!["gate.opened A", "gate.closed A revoked"];
        assert_eq!(notes(scenario), expected);
        scenario.configure(noting(scenario, &ssh(), &["opened", "closed"]));
        let service = scenario.lab.serve(&["--down-on-exit"]);
        service.signal(libc::SIGSTOP);
        scenario.knock(B, ALICE);
        service.signal(libc::SIGTERM);
        service.signal(libc::SIGCONT);
        assert_eq!(service.ends(), Some(0));
        expected.extend(["gate.opened B", "gate.closed B revoked"]);
        assert_eq!(notes(scenario), expected);
    });
}

#[test]
fn a_source_that_keeps_failing_causes_one_alert() {
    in_generic_mode(|scenario| {
        let gate = noting(scenario, &ssh(), &["alert"]);
        scenario.configure(format!(
            "alert = {{ failures = 3, within = \"1h\" }}\n{gate}"
        ));
        let _service = serve(scenario);
        for _ in 0..5 {
            // A broken run each.
            scenario.knock(A, "7000/udp 9999/tcp");
        }
        for _ in 0..2 {
            scenario.knock(B, "7000/udp 9999/tcp");
        }
        noted(scenario, &["alert A"]);
        wait_until("every failure has been seen", || {
            events(scenario, "knock.failed").len() == 7
        });
        let alerts = events(scenario, "alert");
        assert_eq!(alerts.len(), 1, "{alerts:?}");
        assert_eq!(alerts[0]["failures"], 3);
        assert_eq!(alerts[0]["gate"], "ssh");
        assert_eq!(alerts[0]["source"], scenario.address(A).to_string());
        noted(scenario, &["alert A"]);
    });
}

#[test]
fn a_prefix_that_keeps_failing_causes_an_alert() {
    in_generic_mode(|scenario| {
        let alert = "alert = { failures = 2, within = \"1h\", per = \"prefix\" }\n";
        scenario.configure(format!("{alert}{}", ssh()));
        let _service = serve(scenario);
        for who in [C, A, B] {
            scenario.knock(who, "7000/udp 9999/tcp");
        }
        wait_until("there is an alert", || {
            !events(scenario, "alert").is_empty()
        });
        let alerts = events(scenario, "alert");
        assert_eq!(alerts.len(), 1, "{alerts:?}");
        assert_eq!(alerts[0]["source"], scenario.family.network());
    });
}

/// Neither the program nor the reader of events waits for a hook.
#[test]
fn hooks_that_hang_fail_or_are_missing_are_reported_and_harm_nothing() {
    in_generic_mode(|scenario| {
        let missing = "[[gate.hook]]\non = \"opened\"\nrun = [\"/nonexistent/notify\"]\n";
        let hooks = [
            hook("opened", "trap '' TERM; while :; do sleep 1000; done"),
            hook("opened", "echo this is said; exit 3"),
            missing.to_owned(),
        ];
        scenario.configure(format!("{}{}", ssh(), hooks.concat()));
        let mut service = serve(scenario);
        scenario.knock(A, ALICE);
        scenario.open(A, "22/tcp");
        // The other hooks of the same event wait for the one that hangs; events and other sources do not.
        for who in [B, C] {
            scenario.knock(who, ALICE);
            scenario.open(who, "22/tcp");
        }
        wait_until("every opening has been seen", || {
            events(scenario, "gate.opened").len() == 3
        });
        wait_until("every hook has failed", || {
            events(scenario, "hook.failed").len() == 9
        });
        for (reason, program) in [
            ("time_limit", "/bin/sh"),
            ("exit_status", "/bin/sh"),
            ("not_started", "/nonexistent/notify"),
        ] {
            let failed = events(scenario, "hook.failed");
            let of_reason: Vec<&Value> = failed
                .iter()
                .filter(|event| event["reason"] == reason)
                .collect();
            assert_eq!(of_reason.len(), 3, "{failed:?}");
            assert!(
                of_reason.iter().all(|event| event["hook"] == program),
                "{failed:?}"
            );
        }
        assert!(service.goes_on());
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
    });
}
