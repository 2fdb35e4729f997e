//! `up --try` and `confirm`.

use std::{
    fs::{self, File},
    thread,
    time::Duration,
};

use aya::maps::{Array, Map, MapData};
use knockgate_tests::{
    attempt::Outcome,
    killed::{Call, killed_at_call},
    lab::{
        Source::{A, B},
        WAN,
    },
    manager::Manager,
    run::{Run, Running, wait_until},
    scenario::Scenario,
};

use crate::{in_all_modes, in_native_mode, serve, ssh, with_limits};

fn mode(scenario: &Scenario) -> String {
    let status = scenario.knockgate("status --json").json();
    status["interfaces"][0]["mode"]
        .as_str()
        .expect("a string")
        .to_owned()
}

/// Sets the end of the trial to a time that has passed, as if the test had waited.
fn lapse(scenario: &Scenario) {
    let pin = scenario.lab.pin_root().join(WAN).join("deadline");
    let data = MapData::from_pin(pin).expect("it is pinned");
    let map = Map::from_map_data(data).expect("a known kind of map");
    let mut deadline: Array<_, u64> = map.try_into().expect("an array of numbers");
    assert_ne!(deadline.get(&0, 0).expect("it has an entry"), 0);
    deadline.set(0, 1, 0).expect("it can be written");
}

/// It tries again by itself, and has a watchdog to tell that it goes on.
#[test]
fn a_service_that_is_to_return_from_a_trial_does_not_wait_for_a_command() {
    in_native_mode(|scenario| {
        scenario.configure(ssh());
        let manager = Manager::listen(scenario.lab.folder());
        let mut service = scenario.lab.knockgate_command(&["run"]);
        manager.watches(&mut service, Duration::from_secs(3));
        let _service = Running::start(&mut service, scenario.lab.folder());
        wait_until("it serves", || scenario.lab.is_served());
        scenario.configure(ssh().open_for("2h"));
        scenario.knockgate("up --try 1h").exits(0);
        wait_until("it has seen that", || {
            let mut events = scenario.lab.events().into_iter();
            events.any(|event| event["event"] == "config.applied")
        });
        let holder = scenario.hold_lock();
        lapse(scenario);
        // Until it has looked.
        thread::sleep(Duration::from_secs(5));
        manager.forget();
        for _ in 0..2 {
            assert!(manager.is_told("WATCHDOG=1").is_some(), "it waits");
        }
        drop(holder);
        wait_until("it has returned", || mode(scenario) == "enforce");
        scenario.closed(A, "22/tcp");
    });
}

/// The kernel keeps the deadline: no process runs meanwhile, and nothing else has to happen.
#[test]
fn a_trial_lapses_by_itself() {
    in_all_modes(|scenario| {
        scenario.configure(ssh());
        scenario
            .knockgate("up --try 1s")
            .exits(0)
            .says(&["confirm"]);
        wait_until("the trial has lapsed", || {
            scenario.attempt(A, "22/tcp", Outcome::Silent) == Outcome::Open
        });
        assert_eq!(mode(scenario), "lapsed");
        assert!(scenario.lab.stats().packets("lapsed") > 0);
        let status = scenario.knockgate("status");
        let said = "every packet passes: `knockgate up` brings";
        assert!(status.exits(0).stdout.contains(said), "{status:?}");
        let status = scenario.knockgate("status --json").json();
        assert_eq!(
            status["warnings"].as_array().map(Vec::len),
            Some(1),
            "{status}"
        );
        scenario.knockgate("confirm").exits(1).says(&["has ended"]);
        scenario.knockgate("up").exits(0);
        assert_eq!(mode(scenario), "enforce");
        scenario.closed(A, "22/tcp");
    });
}

#[test]
fn a_trial_that_is_confirmed_stays() {
    in_native_mode(|scenario| {
        scenario.configure(ssh());
        scenario.knockgate("up --try 1h").exits(0);
        let status = scenario.knockgate("status --json").json();
        let left = status["interfaces"][0]["try_left_ms"].as_u64();
        assert!(
            left.is_some_and(|left| (1..=3_600_000).contains(&left)),
            "{status}"
        );
        assert_eq!(mode(scenario), "try");
        scenario.closed(A, "22/tcp");
        scenario.knockgate("confirm").exits(0);
        assert_eq!(mode(scenario), "enforce");
        scenario.knockgate("confirm").exits(0).says(&["no trial"]);
        scenario.closed(A, "22/tcp");
    });
}

/// Who gives it has not been told that the trial had ended.
#[test]
fn a_confirmation_that_comes_too_late_fails() {
    for serves in [false, true] {
        in_native_mode(|scenario| {
            scenario.up(ssh());
            let service = serves.then(|| serve(scenario));
            scenario.configure(ssh().protect("25/tcp"));
            scenario.knockgate("up --try 1h").exits(0);
            lapse(scenario);
            if serves {
                wait_until("the service has returned from it", || {
                    scenario.attempt(A, "22/tcp", Outcome::Silent) == Outcome::Silent
                });
                scenario.knockgate("confirm").exits(1).says(&["no trial"]);
            } else {
                scenario.knockgate("confirm").exits(1).says(&["too late"]);
            }
            assert_eq!(mode(scenario), "enforce");
            scenario.closed(A, "22/tcp");
            drop(service);
        });
    }
}

#[test]
fn an_interface_that_was_taken_down_stays_down_when_a_trial_ends() {
    in_native_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        scenario.configure(ssh());
        let up = format!("up -i {WAN} -i wan1");
        scenario.knockgate(&up).exits(0);
        scenario.knockgate(&format!("{up} --try 1h")).exits(0);
        scenario.knockgate("down -i wan1").exits(0);
        lapse(scenario);
        let status = scenario.knockgate("status --json").exits(7).json();
        let rows = status["interfaces"].as_array().expect("a list").iter();
        let guarded: Vec<_> = rows.map(|row| row["guarded"] == true).collect();
        assert_eq!(guarded, [true, false], "{status}");
        scenario.closed(A, "22/tcp");
    });
}

#[test]
fn what_was_up_before_is_in_force_again() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        scenario.configure(ssh().protect("22/tcp 25/tcp"));
        scenario.knockgate("up --try 1h").exits(0);
        scenario.closed(A, "25/tcp");
        // A trial in a trial returns to what was before the first.
        scenario.configure(ssh().protect("25/tcp"));
        scenario.knockgate("up --try 1h").exits(0);
        scenario.closed(A, "25/tcp");
        lapse(scenario);
        scenario.open(A, "25/tcp");
        scenario.open(A, "22/tcp");
        // Any command sees it.
        assert_eq!(mode(scenario), "enforce");
        scenario.open(A, "25/tcp");
        scenario.closed(A, "22/tcp");
        scenario.open(B, "22/tcp");
    });
}

/// It would make the trial permanent without saying so.
#[test]
fn a_trial_is_not_ended_by_a_reload() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        scenario.configure(ssh().protect("22/tcp 25/tcp"));
        scenario.knockgate("up --try 1h").exits(0);
        scenario
            .knockgate("reload")
            .exits(1)
            .says(&["on trial", "knockgate confirm"]);
        assert_eq!(mode(scenario), "try");
        scenario.knockgate("confirm").exits(0);
        scenario.knockgate("reload").exits(0);
        assert_eq!(mode(scenario), "enforce");
    });
}

/// A trial whose grants are more than there is room for in the configuration before it.
#[test]
fn a_trial_ends_whatever_its_grants_are() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        with_limits(scenario, "sources = 16384, grants = 16, sessions = 1024");
        scenario.knockgate("reload").exits(0);
        with_limits(scenario, "sources = 16384, grants = 1024, sessions = 1024");
        scenario.knockgate("up --try 1h").exits(0);
        for host in 1..=40 {
            let allow = format!("allow 198.51.100.{host} --gate ssh --for 1h");
            scenario.knockgate(&allow).exits(0);
        }
        scenario.knockgate("allow {B} --gate ssh --for 2h").exits(0);
        lapse(scenario);
        assert_eq!(mode(scenario), "enforce");
        let grants = scenario.knockgate("grants --json").exits(0).json();
        assert_eq!(grants["grants"].as_array().map(Vec::len), Some(16));
        scenario.closed(A, "22/tcp");
        scenario.open(B, "22/tcp");
    });
}

/// Of as many prefix lengths as the kernel looks for, and the one that knocks make in the configuration before.
#[test]
fn a_trial_ends_whatever_prefix_lengths_its_grants_have() {
    in_native_mode(|scenario| {
        scenario.up(ssh().key("grant_to = \"prefix\""));
        scenario.configure(ssh());
        scenario.knockgate("up --try 1h").exits(0);
        for length in 17..=23 {
            let allow = format!("allow 198.51.0.0/{length} --gate ssh --for 50m");
            scenario.knockgate(&allow).exits(0);
        }
        lapse(scenario);
        let status = scenario.knockgate("status");
        status.exits(0).says(&["different prefix lengths"]);
        assert_eq!(mode(scenario), "enforce");
        scenario.closed(A, "22/tcp");
        // Those without room have ended, and keep no room from others.
        let grants = scenario.knockgate("grants --json").exits(0).json();
        let grants = grants["grants"].as_array().expect("a list").iter();
        let lengths: Vec<_> = grants
            .filter_map(|grant| grant["source"].as_str()?.split_once('/'))
            .map(|(_, length)| length.to_owned())
            .collect();
        assert_eq!(lengths, ["18", "19", "20", "21", "22", "23"]);
        scenario
            .knockgate("allow 198.51.100.0/24 --gate ssh --for 1h")
            .exits(0);
    });
}

/// Removes the pin of a table.
fn unpin(scenario: &Scenario, table: &str) {
    fs::remove_file(scenario.lab.pin_root().join(WAN).join(table)).expect("it is pinned");
}

/// From whose directory somebody has removed a pin: one that commands open, and one that they do not.
#[test]
fn a_trial_ends_that_is_damaged() {
    for table in ["grant", "events"] {
        in_native_mode(|scenario| {
            scenario.up(ssh());
            scenario.configure(ssh().protect("25/tcp"));
            scenario.knockgate("up --try 1h").exits(0);
            unpin(scenario, table);
            lapse(scenario);
            assert_eq!(mode(scenario), "enforce", "{table}");
            scenario.closed(A, "22/tcp");
            scenario.open(A, "25/tcp");
        });
    }
}

#[test]
fn a_trial_of_what_is_damaged_returns_to_it() {
    for table in ["grant", "cursor"] {
        in_native_mode(|scenario| {
            scenario.up(ssh());
            unpin(scenario, table);
            scenario.configure(ssh().protect("25/tcp"));
            scenario.knockgate("up --try 1h").exits(0);
            scenario.closed(A, "25/tcp");
            lapse(scenario);
            assert_eq!(mode(scenario), "enforce", "{table}");
            scenario.closed(A, "22/tcp");
            scenario.open(A, "25/tcp");
        });
    }
}

/// To what it would return to, nothing says any more.
#[test]
fn there_is_no_trial_of_what_is_not_known() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        unpin(scenario, "config");
        let up = scenario.knockgate("up --try 1h");
        up.exits(1).says(&["could not return", "without --try"]);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("up").exits(0);
        assert_eq!(mode(scenario), "enforce");
    });
}

/// Where it cannot take a trial over, it does not make it permanent either.
#[test]
fn a_service_does_not_start_where_a_trial_is_damaged() {
    in_native_mode(|scenario| {
        for table in ["deadline", "config", "cursor"] {
            scenario.configure(ssh());
            scenario.knockgate("up").exits(0);
            scenario.configure(ssh().protect("25/tcp"));
            scenario.knockgate("up --try 1h").exits(0);
            unpin(scenario, table);
            scenario.knockgate("run").exits(1).says(&["on trial"]);
            scenario.closed(A, "25/tcp");
        }
        lapse(scenario);
        assert_eq!(mode(scenario), "enforce");
        scenario.closed(A, "22/tcp");
        scenario.open(A, "25/tcp");
    });
}

/// What comes in its place is another instance, of which the service has nothing open.
#[test]
fn a_service_that_returns_from_a_damaged_trial_says_why_it_ends() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        let log = scenario.lab.folder().join("log");
        let mut run = scenario.lab.knockgate_command(&["run"]);
        run.stderr(File::create(&log).expect("the temporary folder is writable"));
        let service = Running::start(&mut run, scenario.lab.folder());
        wait_until("it serves", || scenario.lab.is_served());
        scenario.configure(ssh().protect("25/tcp"));
        scenario.knockgate("up --try 1h").exits(0);
        unpin(scenario, "events");
        lapse(scenario);
        assert_eq!(service.ends(), Some(1));
        let said = fs::read_to_string(&log).expect("it was created above");
        assert!(said.contains("pins of it had been removed"), "{said}");
        scenario.closed(A, "22/tcp");
        scenario.open(A, "25/tcp");
    });
}

/// A directory that a killed `down` has left is removed, once.
#[test]
fn an_empty_directory_is_removed() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        let left = scenario.lab.pin_root().join("left0");
        fs::create_dir(&left).expect("a BPF file system");
        scenario
            .knockgate("status")
            .exits(0)
            .says(&["finished what", "left0"]);
        assert!(!left.exists());
        scenario.closed(A, "22/tcp");
    });
}

/// The links carry the program on trial, and the pins show the one before: any command and the service settle that.
#[test]
fn a_trial_that_is_killed_half_way_is_undone() {
    for serves in [false, true] {
        in_native_mode(|scenario| {
            scenario.up(ssh());
            let service = serves.then(|| serve(scenario));
            scenario.configure(ssh().protect("22/tcp 25/tcp"));
            let up = scenario.lab.knockgate_command(&["up", "--try", "1h"]);
            // Only directories are renamed, when the links carry the program.
            assert!(killed_at_call(up, 0, Call::renames));
            if serves {
                wait_until("it is undone", || {
                    scenario.attempt(A, "25/tcp", Outcome::Silent) == Outcome::Open
                });
            } else {
                scenario.closed(A, "25/tcp");
                assert_eq!(mode(scenario), "enforce");
            }
            scenario.open(A, "25/tcp");
            scenario.closed(A, "22/tcp");
            scenario.knockgate("confirm").exits(1).says(&["no trial"]);
            drop(service);
        });
    }
}

/// A trial before which nothing was up: every packet passes, and nothing says that the interface is guarded.
#[test]
fn the_service_says_that_a_trial_has_ended() {
    in_native_mode(|scenario| {
        scenario.configure(ssh());
        scenario.knockgate("up --try 1h").exits(0);
        let log = scenario.lab.folder().join("log");
        let mut run = scenario.lab.knockgate_command(&["run"]);
        run.stderr(File::create(&log).expect("the temporary folder is writable"));
        let _service = Running::start(&mut run, scenario.lab.folder());
        wait_until("it serves", || scenario.lab.is_served());
        lapse(scenario);
        let said = || fs::read_to_string(&log).expect("it was created above");
        wait_until("it says so", || said().contains("every packet passes"));
        scenario.open(A, "22/tcp");
    });
}

#[test]
fn the_service_returns_from_a_trial() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        let service = serve(scenario);
        scenario.configure(ssh().protect("25/tcp"));
        scenario.knockgate("up --try 1h").exits(0);
        lapse(scenario);
        wait_until("the service has returned from it", || {
            scenario.attempt(A, "22/tcp", Outcome::Silent) == Outcome::Silent
        });
        assert_eq!(mode(scenario), "enforce");
        scenario.open(A, "25/tcp");
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
    });
}

/// A service that starts again after a crash does not make a trial permanent.
#[test]
fn a_service_that_starts_keeps_the_trial() {
    in_native_mode(|scenario| {
        scenario.configure(ssh());
        scenario.knockgate("up --try 1h").exits(0);
        let service = serve(scenario);
        assert_eq!(mode(scenario), "try");
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
    });
}

/// Nor one that has ended, with nothing to return to.
#[test]
fn a_service_that_starts_keeps_a_trial_that_has_ended() {
    in_native_mode(|scenario| {
        scenario.configure(ssh());
        scenario.knockgate("up --try 1h").exits(0);
        lapse(scenario);
        let manager = Manager::listen(scenario.lab.folder());
        let mut run = scenario.lab.knockgate_command(&["run"]);
        manager.hears(&mut run);
        let service = Running::start(&mut run, scenario.lab.folder());
        manager.is_told_of_readiness();
        let status = manager.is_told_of_a_status();
        assert!(status.contains("every packet passes"), "{status}");
        assert_eq!(mode(scenario), "lapsed");
        scenario.open(A, "22/tcp");
        scenario.knockgate("up").exits(0);
        scenario.closed(A, "22/tcp");
        drop(service);
    });
}

/// Another wall clock changes nothing: the deadline is one of the kernel's `CLOCK_MONOTONIC`. Processes in a time namespace
/// have another one of that too, and say what the kernel does all the same.
#[test]
fn a_process_with_another_clock_keeps_the_kernels_time() {
    in_native_mode(|scenario| {
        for offset in ["100000", "-50"] {
            let monotonic = format!("--monotonic={offset}");
            let wrapper = ["unshare", "--time", "--fork", &monotonic];
            let under = |arguments: &[&str]| scenario.lab.knockgate_under(&wrapper, arguments);
            let left = |run: &Run| run.json()["interfaces"][0]["try_left_ms"].as_u64();
            let is_near = |left: Option<u64>| left.is_some_and(|left| left / 600_000 == 5);
            scenario.configure(ssh());
            // Kept by this process's clock, and looked at by the kernel's.
            under(&["up", "--try", "1h"]).exits(0);
            assert!(
                is_near(left(&scenario.knockgate("status --json"))),
                "{offset}"
            );
            scenario.closed(A, "22/tcp");
            // And the other way round.
            scenario.knockgate("up --try 1h").exits(0);
            assert!(is_near(left(&under(&["status", "--json"]))), "{offset}");
            under(&["confirm"]).exits(0);
            scenario.closed(A, "22/tcp");
            under(&[
                "allow",
                &scenario.address(B).to_string(),
                "--gate",
                "ssh",
                "--for",
                "1h",
            ])
            .exits(0);
            scenario.open(B, "22/tcp");
            for run in [
                scenario.knockgate("grants --json"),
                under(&["grants", "--json"]),
            ] {
                let expires = run.json()["grants"][0]["expires_in_ms"].as_u64();
                assert!(is_near(expires), "{offset}: {run:?}");
            }
            scenario.knockgate("down").exits(0);
        }
    });
}
