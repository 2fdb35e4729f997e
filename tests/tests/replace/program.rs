//! An upgrade puts the new program in place of the old, and changes nothing else.

use std::{fs, path::Path};

use knockgate_tests::{
    lab::{
        Source::{A, B},
        WAN,
    },
    run::run,
    scenario::Scenario,
    version,
};

use crate::{in_all_modes, in_native_mode, ssh};

/// Replaces the program by that of the other version, as its package does, and asserts that it has been.
#[track_caller]
fn upgrade(scenario: &Scenario, version: &Path) {
    let lab = &scenario.lab;
    let program = || {
        let status = scenario.knockgate("status --json").json();
        status["interfaces"][0].clone()
    };
    let before = program();
    let mut command = lab.host.command(version);
    command
        .arg("--pin-root")
        .arg(lab.pin_root())
        .args(["reload", "--program"])
        .env_remove("SSH_CONNECTION");
    run(&mut command).exits(0).says(&["replaced in place"]);
    assert_eq!(before, program());
}

#[test]
fn what_is_in_force_stays_though_the_file_says_something_else() {
    in_all_modes(|scenario| {
        let version = version::another(scenario.lab.folder());
        scenario.lab.add_interface("wan1");
        scenario.configure(ssh());
        let up = format!("up -i {WAN} -i wan1");
        scenario.knockgate(&up).exits(0);
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        // Not applied: by accident, or not yet.
        scenario.configure(format!("mode = \"monitor\"\n{}", ssh()));
        upgrade(scenario, &version);
        scenario.closed(A, "22/tcp");
        scenario.open(B, "22/tcp");
        assert_eq!(
            guarded(scenario, 0),
            [(WAN.to_owned(), true), ("wan1".to_owned(), true)]
        );
        // Nor is the file read: it may not be there.
        fs::remove_file(scenario.lab.config()).expect("it was written");
        scenario.knockgate("reload --program").exits(0);
        scenario.closed(A, "22/tcp");
    });
}

#[test]
fn an_interface_that_was_taken_down_stays_down() {
    in_native_mode(|scenario| {
        let version = version::another(scenario.lab.folder());
        scenario.lab.add_interface("wan1");
        scenario.configure(ssh());
        let up = format!("up -i {WAN} -i wan1");
        scenario.knockgate(&up).exits(0);
        scenario.knockgate("down -i wan1").exits(0);
        let expected = [(WAN.to_owned(), true), ("wan1".to_owned(), false)];
        upgrade(scenario, &version);
        assert_eq!(guarded(scenario, 7), expected);
        // By the version that is in force.
        run(scenario
            .lab
            .host
            .command(&version)
            .arg("--pin-root")
            .arg(scenario.lab.pin_root())
            .args(["reload", "--program"]))
        .exits(0);
        assert_eq!(guarded(scenario, 7), expected);
        scenario.closed(A, "22/tcp");
    });
}

/// It would be permanent then.
#[test]
fn a_trial_keeps_its_program() {
    in_native_mode(|scenario| {
        scenario.knockgate("reload --program").exits(5);
        scenario.configure(ssh());
        scenario.knockgate("up --try 1h").exits(0);
        scenario
            .knockgate("reload --program")
            .exits(1)
            .says(&["on trial"]);
        scenario.knockgate("confirm").exits(0);
        scenario.knockgate("reload --program").exits(0);
    });
}

/// Returns the configured interfaces, and whether each is guarded. Asserts the exit status of `status`.
#[track_caller]
fn guarded(scenario: &Scenario, code: i32) -> Vec<(String, bool)> {
    let status = scenario.knockgate("status --json").exits(code).json();
    let rows = status["interfaces"].as_array().expect("a list").iter();
    rows.map(|row| {
        let name = row["name"].as_str().expect("a name");
        (name.to_owned(), row["guarded"] == true)
    })
    .collect()
}
