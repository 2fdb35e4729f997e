//! The newest times of keys where a process has died, or could not write them down.

use std::{fs, path::Path, thread, time::Duration};

use knockgate_tests::{
    gate_config::Gate,
    keys::{configure, knock, new_key, now, outcome, sealed, send},
    killed::{Call, killed_at_call},
    lab::{Family, Source::A},
    run::wait_until,
    scenario::{Attach, Scenario},
};

/// Of `[knock]`.
const AHEAD: &str = "max_ahead = \"1s\"";

fn ssh() -> Gate {
    Gate::new("ssh", "22/tcp")
}

/// With a gate that is up, and the file of a key.
fn with_key(row: impl FnOnce(&Scenario, &Path)) {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, AHEAD, &ssh());
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        row(scenario, &key);
    });
}

/// Sends a knock until one has opened, and returns it.
#[track_caller]
fn opens(scenario: &Scenario, key: &Path) -> [u8; 64] {
    let before = outcome(scenario, "opened");
    let mut sent = [0; 64];
    wait_until("a knock opens", || {
        sent = sealed(key, now());
        send(scenario, A, &sent);
        wait_until("it has arrived", || counted(scenario) > 0);
        outcome(scenario, "opened") > before
    });
    sent
}

/// Returns how many datagrams have been judged.
fn counted(scenario: &Scenario) -> u64 {
    let outcomes = ["opened", "duplicate", "replay"].into_iter();
    outcomes.map(|name| outcome(scenario, name)).sum()
}

/// Sends a knock that was accepted before, from where it came, and asserts that it opens nothing.
#[track_caller]
fn is_old(scenario: &Scenario, captured: &[u8; 64]) {
    let (before, opened) = (counted(scenario), outcome(scenario, "opened"));
    send(scenario, A, captured);
    wait_until("it has arrived", || counted(scenario) > before);
    assert_eq!(outcome(scenario, "opened"), opened);
}

/// As after a crash or a reboot.
fn crash(scenario: &Scenario) {
    for pin in scenario.lab.pins() {
        let _ = fs::remove_file(scenario.lab.pin_root().join(pin));
    }
}

/// It may be `down` that is at work, which writes them down for the last time.
#[test]
fn the_service_keeps_them_while_no_command_is_at_work() {
    with_key(|scenario, key| {
        let _service = scenario.lab.serve(&[]);
        wait_until("they are kept", || kept(scenario).is_some());
        let holder = scenario.hold_lock();
        let before = kept(scenario);
        opens(scenario, key);
        // The service keeps them every two seconds.
        thread::sleep(Duration::from_secs(5));
        assert_eq!(kept(scenario), before);
        drop(holder);
        wait_until("they are kept", || kept(scenario) != before);
    });
}

/// What is kept of the newest times.
fn kept(scenario: &Scenario) -> Option<String> {
    let files = fs::read_dir(scenario.lab.state()).ok()?;
    let mut paths = files.map(|file| file.expect("readable").path());
    let path = paths.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("newest-")
    })?;
    Some(fs::read_to_string(path).expect("readable"))
}

/// What `down` has left is not complete any more, since a later configuration takes knocks again.
#[test]
fn what_down_has_left_ends_with_an_instance_that_takes_no_knocks() {
    with_key(|scenario, key| {
        scenario.knockgate("down").exits(0);
        scenario.configure(ssh());
        scenario.knockgate("up").exits(0);
        configure(scenario, AHEAD, &ssh());
        scenario.knockgate("reload").exits(0);
        let captured = opens(scenario, key);
        crash(scenario);
        scenario.knockgate("up").exits(0).says(&["is not known"]);
        is_old(scenario, &captured);
    });
}

/// As on a disk that is full: what `down` has left cannot be changed, so it goes.
#[test]
fn what_down_has_left_does_not_outlast_an_instance_that_could_not_note_it() {
    with_key(|scenario, key| {
        scenario.knockgate("down").exits(0);
        let full = ["sh", "-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"];
        let up = scenario.lab.knockgate_under(&full, &["up"]);
        up.exits(0).says(&["cannot write the newest times of keys"]);
        let captured = opens(scenario, key);
        crash(scenario);
        scenario.knockgate("up").exits(0).says(&["is not known"]);
        is_old(scenario, &captured);
    });
}

/// A replacement with another number of keys, killed where it is in force and the newest times have not followed yet.
#[test]
fn keys_whose_newest_times_did_not_follow_count_again() {
    for serves in [false, true] {
        with_key(|scenario, key| {
            let service = serves.then(|| scenario.lab.serve(&[]));
            let text = scenario.lab.configured().expect("it was written");
            let larger = text.replace("limits = {", "limits = { keys = 300,");
            assert_ne!(text, larger);
            scenario.lab.configure(&larger);
            let reload = scenario.lab.knockgate_command(&["reload"]);
            assert!(killed_at_call(reload, 0, Call::waits_for_packets));
            if !serves {
                scenario.knockgate("status").exits(0);
            }
            let captured = opens(scenario, key);
            is_old(scenario, &captured);
            drop(service);
            knock(scenario, key, "--then 22/tcp").exits(0);
        });
    }
}
