//! Keys that cannot be used keep nothing else from coming into force where no operator waits for an answer: when the service
//! starts, and when a trial ends.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use knockgate_tests::{
    gate_config::Gate,
    keys::{configure, knock, new_key, outcome},
    lab::{
        Family,
        Source::{A, B},
    },
    run::wait_until,
    scenario::{Attach, Scenario},
};

fn ssh() -> Gate {
    Gate::new("ssh", "22/tcp")
}

fn with_gate(row: impl FnOnce(&Scenario)) {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "max_ahead = \"1s\"", &ssh());
        row(scenario);
    });
}

/// A file that an editor has left among the keys: all of them are refused.
fn left_by_an_editor(scenario: &Scenario) -> PathBuf {
    let file = scenario.lab.folder().join("keys/alice.toml~");
    fs::write(&file, "").expect("the test's own");
    file
}

/// Makes another key, and leaves the file of the first one's owner as it is.
fn and_bob(scenario: &Scenario, alices: &Path) {
    let file = fs::read(alices).expect("it was written");
    new_key(scenario, "bob --gate ssh");
    fs::write(alices, file).expect("the test's own");
}

/// Has the tables no room for the keys with a slot from this one on.
fn limit_keys(scenario: &Scenario, keys: u32) {
    let text = scenario.lab.configured().expect("it was written");
    let limited = text.replace("limits = {", &format!("limits = {{ keys = {keys},"));
    assert_ne!(text, limited);
    scenario.lab.configure(&limited);
}

#[test]
fn the_service_comes_up_without_its_keys_and_takes_them_when_it_can() {
    with_gate(|scenario| {
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        scenario.knockgate("down").exits(0);
        let left = left_by_an_editor(scenario);
        for command in ["check", "up"] {
            let run = scenario.knockgate(command);
            assert_ne!(run.code, Some(0), "{run:?}");
            assert!(format!("{run:?}").contains("alice.toml~"), "{run:?}");
        }
        let service = scenario.lab.serve(&[]);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("allow {B} --gate ssh").exits(0);
        scenario.open(B, "22/tcp");
        knock(scenario, &key, "").exits(0);
        // Without the secret of the host, too.
        wait_until("there is no key", || outcome(scenario, "other") > 0);
        // Of the instance that is up the service has all that it needs.
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        let _service = scenario.lab.serve(&[]);
        fs::remove_file(left).expect("the test's own");
        wait_until("the service has taken the key", || {
            knock(scenario, &key, "").exits(0);
            outcome(scenario, "opened") > 0
        });
        scenario.open(A, "22/tcp");
    });
}

#[test]
fn a_service_that_starts_leaves_out_the_keys_that_there_is_no_room_for_alone() {
    with_gate(|scenario| {
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        and_bob(scenario, &key);
        scenario.knockgate("down").exits(0);
        limit_keys(scenario, 1);
        scenario
            .knockgate("up")
            .exits(1)
            .says(&["the key bob has the slot 1"]);
        let _service = scenario.lab.serve(&[]);
        wait_until("alice's key opens", || {
            knock(scenario, &key, "").exits(0);
            outcome(scenario, "opened") > 0
        });
    });
}

/// The folder cannot be used, or one of the keys does not fit: the others stay, with grants and sessions.
#[test]
fn a_trial_ends_with_the_keys_that_there_are() {
    for fits in [true, false] {
        with_gate(|scenario| {
            limit_keys(scenario, 1);
            scenario.knockgate("up").exits(0);
            let key = new_key(scenario, "alice --gate ssh");
            knock(scenario, &key, "--then 22/tcp").exits(0);
            let connection = scenario.connected(A, 22);
            let sessions = scenario.lab.session_count();
            assert!(sessions > 0);
            let wider = ssh().protect("22/tcp 25/tcp");
            configure(scenario, "max_ahead = \"1s\"", &wider);
            scenario.knockgate("up --try 2s").exits(0);
            if fits {
                left_by_an_editor(scenario);
            } else {
                let folder = scenario.lab.folder().join("keys");
                let text = fs::read_to_string(folder.join("alice.toml")).expect("it was made");
                let other = text.replace("slot    = 0", "slot    = 1");
                assert_ne!(other, text);
                let bob = folder.join("bob.toml");
                fs::write(&bob, other).expect("the test's own");
                fs::set_permissions(&bob, Permissions::from_mode(0o600)).expect("the test's own");
            }
            let mut said = String::new();
            wait_until("the trial has ended", || {
                let run = scenario.knockgate("status");
                said.clone_from(&run.exits(0).stderr);
                said.contains("is in force again")
            });
            let cause = if fits {
                "the keys in force stay"
            } else {
                "the key bob has the slot 1"
            };
            assert!(said.contains(cause), "{said}");
            let grants = scenario.lab.list("grants");
            assert_eq!(grants.len(), 1, "{grants:?}");
            assert_eq!(grants[0]["key"], "alice", "{grants:?}");
            assert_eq!(scenario.lab.session_count(), sessions);
            scenario.open(A, "25/tcp");
            drop(connection);
            scenario.knockgate("revoke --all").exits(0);
            scenario.closed(A, "22/tcp");
            // And it goes on opening, also before anyone has repaired the folder.
            wait_until("the key opens", || {
                knock(scenario, &key, "").exits(0);
                !scenario.lab.list("grants").is_empty()
            });
        });
    }
}
