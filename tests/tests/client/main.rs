//! The client where things go wrong on the way: other clients at the same time, slow and disorderly paths,
//! addresses that are dead, connections that are reset.
//!
//! `KNOCKGATE_ROUNDS` sets how often a scenario of chance is tried; each says how many of its tries succeeded.

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

/// One gate, which alice opens for a minute.
fn ssh() -> Gate {
    Gate::ssh().open_for("1m")
}

/// A scenario over IPv4 on a path of its own, or none where this machine cannot build one.
fn scenario(lab: Option<Lab>) -> Option<Scenario> {
    Some(Scenario::new(Attach::Generic, Family::V4, lab?))
}

/// Runs the client with these arguments behind `knock`.
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

/// Writes the client's profiles with this mode.
fn profiles(scenario: &Scenario, text: &str, mode: u32) -> PathBuf {
    let folder = scenario.lab.folder().join("knockgate");
    fs::create_dir_all(&folder).expect("the temporary folder is writable");
    let path = folder.join("client.toml");
    fs::write(&path, text).expect("the temporary folder is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        .expect("one may change what one owns");
    path
}

/// How often a scenario of chance is tried.
fn rounds(few: usize) -> usize {
    env::var("KNOCKGATE_ROUNDS").map_or(few, |text| text.parse().expect("a number of rounds"))
}

/// Looks at a scenario of chance, in which one client, or one in sixteen, may have had bad luck.
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
