//! The client on a bad network: other clients at the same time, slow and reordering paths, dead addresses, connections
//! that are reset.
//!
//! Some of the results depend on chance: such a test runs several rounds (`KNOCKGATE_ROUNDS`), and prints how many
//! succeeded.

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::PathBuf, thread};

use knockgate_tests::{
    gate_config::Gate,
    lab::{Family, Lab},
    need,
    run::Run,
    scenario::{Attach, Scenario},
};

mod addresses;
mod messages;
mod resets;
mod slow;
mod together;

/// Returns a gate that alice opens for a minute.
fn ssh() -> Gate {
    Gate::ssh().open_for("1m")
}

/// Returns a scenario over IPv4 in a lab; `None` if this machine cannot build one.
fn scenario(lab: Option<Lab>) -> Option<Scenario> {
    Some(Scenario::new(Attach::Generic, Family::V4, lab?))
}

/// Runs `knockgate knock` with these arguments.
fn knock(scenario: &Scenario, arguments: &[&str]) -> Run {
    let arguments = [&["knock"], arguments].concat();
    scenario.lab.client(need::knockgate(), &arguments)
}

/// Runs several clients at the same time.
fn knock_together(scenario: &Scenario, clients: &[Vec<&str>]) -> Vec<Run> {
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .iter()
            .map(|arguments| scope.spawn(move || knock(scenario, arguments)))
            .collect();
        running
            .into_iter()
            .map(|client| client.join().expect("a client can be run"))
            .collect()
    })
}

/// Writes the client's profiles with these permissions.
fn profiles(scenario: &Scenario, text: &str, mode: u32) -> PathBuf {
    let folder = scenario.lab.folder().join("knockgate");
    fs::create_dir_all(&folder).expect("the temporary folder is writable");
    let path = folder.join("client.toml");
    fs::write(&path, text).expect("the temporary folder is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        .expect("one may change what one owns");
    path
}

/// Returns the number of rounds: `few`, unless the variable sets it.
fn rounds(few: usize) -> usize {
    env::var("KNOCKGATE_ROUNDS").map_or(few, |text| text.parse().expect("a number of rounds"))
}

/// Asserts that all runs have succeeded, except one, or one in sixteen.
#[track_caller]
fn nearly_all_succeed(what: &str, runs: &[Run]) {
    let failed: Vec<_> = runs.iter().filter(|run| run.code != Some(0)).collect();
    eprintln!("{what}: {} of {}", runs.len() - failed.len(), runs.len());
    assert!(
        failed.len() <= (runs.len() / 16).max(1),
        "{what}: {} of {} failed, first {:#?}",
        failed.len(),
        runs.len(),
        failed[0]
    );
}
