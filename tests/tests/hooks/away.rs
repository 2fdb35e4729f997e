//! Grants that end while no service runs.

use std::{fs, path::PathBuf, thread::sleep, time::Duration};

use jiff::{SignedDuration, Timestamp};
use knock_common::knock::authenticated::message::action;
use knockgate_tests::{
    gate_config::ALICE,
    lab::{
        Family,
        Source::{A, C},
    },
    manager::Manager,
    run::{Running, wait_until},
    scenario::Scenario,
};
use serde_json::Value;

use crate::{
    events, hook, in_generic_mode,
    keys::{knock_for_both, with_key},
    noted, notes, noting, serve, ssh,
};

/// Ends the service in a moment at which it cannot write anything down.
fn kill(service: Running) {
    service.signal(libc::SIGKILL);
    assert_eq!(service.ends(), None);
}

/// Gives A and B a grant each, by a knock and by hand, and waits until the service has seen and remembered both.
fn give_two(scenario: &Scenario) {
    scenario.knock(A, ALICE);
    scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
    wait_until("the service remembers both", || {
        remembered(scenario)
            .is_some_and(|state| state["grants"].as_array().is_some_and(|of| of.len() == 2))
    });
}

/// The state that the service has written down last.
fn remembered(scenario: &Scenario) -> Option<Value> {
    let text = fs::read_to_string(state_file(scenario)?).ok()?;
    serde_json::from_str(&text).ok()
}

/// Kills a service while the hook for the end of a grant of A's runs.
fn killed_while_a_hook_runs(scenario: &Scenario) {
    let hangs = hook("closed", "sleep 1000");
    scenario.configure(format!("{}{hangs}", ssh()));
    let service = serve(scenario);
    scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
    wait_until("it is seen", || !events(scenario, "gate.opened").is_empty());
    scenario.knockgate("revoke {A}").exits(0);
    wait_until("it is remembered that the hook runs", || {
        remembered(scenario)
            .is_some_and(|state| state["closings"].as_array().is_some_and(|of| of.len() == 1))
    });
    kill(service);
}

/// The file that the next service reads: not the one that is about to take its place, nor that of the keys' newest times.
fn state_file(scenario: &Scenario) -> Option<PathBuf> {
    let files = fs::read_dir(scenario.lab.state()).ok()?;
    let mut paths = files.map(|file| file.expect("readable").path());
    paths.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with('%') && name.ends_with(".json")
    })
}

#[test]
fn the_next_service_reports_what_ended_and_once() {
    in_generic_mode(|scenario| {
        scenario.configure(noting(scenario, &ssh(), &["closed"]));
        let service = serve(scenario);
        give_two(scenario);
        kill(service);
        // One ends by time, one is taken away, and one begins and ends where nobody sees it.
        scenario.ends(A);
        scenario.knockgate("revoke {B}").exits(0);
        scenario.knock(C, ALICE);
        scenario.ends(C);
        let expected = [
            "gate.closed A expired",
            "gate.closed B revoked",
            "gate.closed C expired",
        ];
        let service = serve(scenario);
        noted(scenario, &expected);
        wait_until("it remembers that they have ended", || {
            remembered(scenario).is_some_and(|state| {
                state["grants"] == serde_json::json!([])
                    && state["closings"] == serde_json::json!([])
            })
        });
        kill(service);
        let _service = serve(scenario);
        scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
        scenario.knockgate("revoke {A}").exits(0);
        scenario.knockgate("allow {C} --gate ssh --for 1h").exits(0);
        wait_until("it looks at the grants", || {
            !events(scenario, "gate.opened").is_empty()
        });
        let closed = events(scenario, "gate.closed");
        // A's short grant may have been seen or not.
        assert!(
            closed
                .iter()
                .all(|event| event["source"] == scenario.address(A).to_string()),
            "{closed:?}"
        );
    });
}

/// Before it has looked at the tables once: a command that holds the lock keeps it from that.
#[test]
fn a_service_that_ends_before_its_first_look_leaves_what_it_has_said() {
    in_generic_mode(|scenario| {
        scenario.configure(noting(scenario, &ssh(), &["opened", "closed"]));
        let manager = Manager::listen(scenario.lab.folder());
        manager.stops_reading();
        let mut command = scenario.lab.knockgate_command(&["run"]);
        manager.hears(&mut command);
        let service = Running::start(&mut command, scenario.lab.folder());
        wait_until("all is up", || scenario.knockgate("status").code == Some(0));
        // It waits until it can say that it is ready, and looks only then.
        let holder = scenario.hold_lock();
        manager.is_told_of_readiness();
        scenario.knock(A, ALICE);
        noted(scenario, &["gate.opened A"]);
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        drop(holder);
        scenario.knockgate("revoke {A}").exits(0);
        let _service = serve(scenario);
        noted(scenario, &["gate.opened A", "gate.closed A revoked"]);
    });
}

/// Not when the next service has begun.
#[test]
fn what_began_and_ended_meanwhile_ended_when_it_was_to() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh().open_for("1s"));
        let service = serve(scenario);
        // By then the service has left something for the next one.
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        wait_until("it is remembered", || remembered(scenario).is_some());
        kill(service);
        scenario.knock(A, ALICE);
        // By itself: one that is cut short ends before the time that was reported.
        scenario.closes(A, "22/tcp");
        sleep(Duration::from_millis(200));
        let _service = serve(scenario);
        wait_until("its end is said", || {
            !events(scenario, "gate.closed").is_empty()
        });
        let time = |value: &Value| -> Timestamp {
            let text = value.as_str().expect("a time");
            text.parse().expect("a time")
        };
        let opened = events(scenario, "gate.opened");
        let until = opened.iter().find(|event| event["user"] == "alice");
        let until = time(&until.expect("it was reported")["until"]);
        let closed = time(&events(scenario, "gate.closed")[0]["time"]);
        let apart = closed.duration_since(until).abs();
        assert!(apart < SignedDuration::from_millis(50), "{apart:?}");
    });
}

/// The kernel has reported one of the two, and the service waits a second for a report of the other.
#[test]
fn what_was_not_said_to_open_yet_is_said_to_by_the_next_service() {
    with_key(&ssh(), |scenario, key, service| {
        let v6 = Family::V6.address(A);
        knock_for_both(scenario, key, action::OPEN, v6);
        wait_until("the service remembers both", || {
            remembered(scenario)
                .is_some_and(|state| state["grants"].as_array().is_some_and(|of| of.len() == 2))
        });
        kill(service);
        let _service = serve(scenario);
        noted(scenario, &["gate.opened A", &format!("gate.opened {v6}")]);
        scenario.knockgate("revoke --all").exits(0);
        wait_until("the ends are noted", || notes(scenario).len() >= 4);
        let mut opened = notes(scenario);
        opened.retain(|note| note.starts_with("gate.opened"));
        assert_eq!(opened.len(), 2, "{opened:?}");
    });
}

#[test]
fn a_restart_of_the_machine_ends_every_grant() {
    in_generic_mode(|scenario| {
        scenario.configure(noting(scenario, &ssh(), &["closed"]));
        let service = serve(scenario);
        give_two(scenario);
        kill(service);
        scenario.knockgate("down").exits(0);
        // What another boot would find; its clock has begun anew.
        let file = state_file(scenario).expect("the service has made it");
        let mut state = remembered(scenario).expect("it was read before");
        state["boot"] = "another".into();
        // A's grant ended when the tables were read, long ago; B's will for a long time not.
        state["wall"] = "2001-01-01T00:00:00Z".into();
        let looked = state["looked"].clone();
        let of_a = format!("{}/32", scenario.address(A));
        for grant in state["grants"].as_array_mut().expect("a list") {
            let is_a = grant["source"] == *of_a;
            grant["until"] = if is_a {
                looked.clone()
            } else {
                u64::MAX.into()
            };
        }
        fs::write(file, state.to_string()).expect("it is ours");
        let _service = serve(scenario);
        noted(
            scenario,
            &["gate.closed A expired", "gate.closed B revoked"],
        );
        let closed = events(scenario, "gate.closed");
        assert_eq!(closed[0]["time"], "2001-01-01T00:00:00Z", "{closed:?}");
    });
}

/// A hook that was waiting or running when the service was killed.
#[test]
fn what_was_not_run_is_run_by_the_next_service() {
    in_generic_mode(|scenario| {
        killed_while_a_hook_runs(scenario);
        scenario.knockgate("down").exits(0);
        scenario.configure(noting(scenario, &ssh(), &["closed"]));
        let _service = serve(scenario);
        noted(scenario, &["gate.closed A revoked"]);
        // It happened once, and is not reported again.
        assert_eq!(events(scenario, "gate.closed"), [] as [Value; 0]);
    });
}

/// What was not run is older than what has happened since: the other order would take back what the knock has opened.
#[test]
fn what_was_not_run_is_run_before_what_has_happened_since() {
    in_generic_mode(|scenario| {
        killed_while_a_hook_runs(scenario);
        scenario.configure(noting(scenario, &ssh(), &["opened", "closed"]));
        scenario.knockgate("reload").exits(0);
        scenario.knock(A, ALICE);
        let _service = serve(scenario);
        noted(scenario, &["gate.closed A revoked", "gate.opened A"]);
        let in_order = notes(scenario);
        assert_eq!(in_order, ["gate.closed A revoked", "gate.opened A"]);
    });
}

/// As on a full disk, here with a directory where the file would be.
#[test]
fn a_state_that_could_not_be_written_is_written_once_that_is_possible() {
    in_generic_mode(|scenario| {
        scenario.configure(noting(scenario, &ssh(), &["closed"]));
        let service = serve(scenario);
        give_two(scenario);
        kill(service);
        let file = state_file(scenario).expect("the service has made it");
        fs::remove_file(&file).expect("it is ours");
        fs::create_dir(&file).expect("it is ours");
        let service = serve(scenario);
        fs::remove_dir(&file).expect("nothing was written");
        wait_until("the service remembers both", || {
            remembered(scenario)
                .is_some_and(|state| state["grants"].as_array().is_some_and(|of| of.len() == 2))
        });
        kill(service);
    });
}

/// A file that makes no sense is as good as none.
#[test]
fn a_state_that_cannot_be_read_keeps_nothing_from_starting() {
    in_generic_mode(|scenario| {
        scenario.configure(noting(scenario, &ssh(), &["closed"]));
        let service = serve(scenario);
        give_two(scenario);
        kill(service);
        let file = state_file(scenario).expect("the service has made it");
        fs::write(file, "{").expect("it is ours");
        let _service = serve(scenario);
        scenario.knockgate("revoke {A}").exits(0);
        noted(scenario, &["gate.closed A revoked"]);
    });
}
