//! The client where things go wrong on the way: other clients at the same time, slow and disorderly paths,
//! addresses that are dead, connections that are reset.
//!
//! `KNOCKGATE_ROUNDS` sets how often a scenario of chance is tried; each says how many of its tries succeeded.

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::PathBuf, thread};

use knockgate_tests::{
    lab::{Family, Lab},
    need,
    run::Run,
    trial::{Attach, Trial},
};

mod addresses;
mod messages;
mod resets;
mod slow;
mod together;

/// One gate, and the steps that open it.
const SSH: &str = r#"
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "1m"
[[gate.knock]]
user = "alice"
sequence = ["7000/udp", "8443/tcp", "9301/udp"]
within = "10s"
"#;
const STEPS: [&str; 3] = ["7000/udp", "8443/tcp", "9301/udp"];

/// A trial over IPv4 on a path of its own, or none where this machine can't build one.
fn trial(lab: Option<Lab>) -> Option<Trial> {
    Some(Trial::new(Attach::Generic, Family::V4, lab?))
}

/// Runs the client with these arguments behind `knock`.
fn knock(trial: &Trial, arguments: &[&str]) -> Run {
    let arguments = [&["knock"], arguments].concat();
    trial.lab.client(need::knockgate(), &arguments)
}

/// Runs several clients at the same time.
fn knock_together(trial: &Trial, clients: &[Vec<&str>]) -> Vec<Run> {
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .iter()
            .map(|arguments| scope.spawn(move || knock(trial, arguments)))
            .collect();
        running
            .into_iter()
            .map(|client| client.join().expect("a client can be run"))
            .collect()
    })
}

/// Writes the client's profiles with this mode.
fn profiles(trial: &Trial, text: &str, mode: u32) -> PathBuf {
    let folder = trial.lab.folder().join("knockgate");
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
