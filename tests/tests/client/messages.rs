//! The client's messages about bad arguments, files and limits.

use knockgate_tests::{gate_config::ALICE_STEPS, lab::Lab, need, run::run};

use crate::{knock, profiles, scenario};

const PROFILE: &str =
    "[profile.home]\nhost = \"10.77.0.1\"\nsequence = [\"7000/udp\", \"8443/tcp\"]\n";

#[test]
fn a_file_of_profiles_that_others_can_read_is_warned_of() {
    let Some(scenario) = scenario(Lab::build(&[])) else {
        return;
    };
    for mode in [0o644, 0o640] {
        let path = profiles(&scenario, PROFILE, mode);
        let advice = format!("chmod 600 {}", path.display());
        knock(&scenario, &["--profile", "home"])
            .exits(0)
            .prints_nothing()
            .says(&["passwords", &advice]);
    }
    profiles(&scenario, PROFILE, 0o666);
    knock(&scenario, &["--profile", "home"])
        .exits(3)
        .says(&["can change", "chmod 600"]);
    profiles(&scenario, PROFILE, 0o600);
    let run = knock(&scenario, &["--profile", "home"]);
    assert_eq!(run.exits(0).stderr, "");
}

#[test]
fn too_many_open_files_are_told_with_what_was_tried_and_what_helps() {
    let Some(scenario) = scenario(Lab::build(&[])) else {
        return;
    };
    let [first, second, third] = ALICE_STEPS;
    // From too few to start, to enough for some of the knocks.
    let mut failed = 0;
    for files in 3..12 {
        let mut command = scenario.lab.client.command("sh");
        let script = format!("ulimit -n {files} && exec \"$@\"");
        command
            .args(["-c", &script, "sh"])
            .arg(need::knockgate())
            .args(["knock", "10.77.0.1", first, second, third]);
        let run = run(&mut command);
        if run.code == Some(0) || run.stderr.contains("error while loading") {
            continue;
        }
        run.exits(1).says(&[": Too many open files", "ulimit -n"]);
        failed += 1;
    }
    assert!(failed > 0, "no limit was too low");
}

/// The final message names the options that may help.
#[test]
fn a_port_that_stays_closed_names_the_options_that_help() {
    let Some(scenario) = scenario(Lab::build(&[])) else {
        return;
    };
    let [first, second, third] = ALICE_STEPS;
    let arguments = ["10.77.0.1", first, second, third, "--then", "2299/tcp"];
    let quick = ["--retries", "1", "--delay", "1ms", "--timeout", "20s"];
    let refused = knock(&scenario, &[&arguments[..], &quick].concat());
    refused
        .exits(6)
        .says(&["the connection was refused", "--delay 200ms", "--retries 3"]);
    assert!(!refused.stderr.contains("--timeout"), "{refused:#?}");
}
