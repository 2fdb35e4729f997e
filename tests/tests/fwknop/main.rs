//! Debian's client of fwknop, unmodified, opens gates of `knockgate run`.
//!
//! [`opening`]: what it opens, and for whom. [`refusals`]: what it cannot open, and how that is counted. [`lookalikes`]: what
//! others send to the same port.

mod client;
mod lookalikes;
mod opening;
mod refusals;

use knockgate_tests::{
    lab::Family,
    run::{Running, wait_until},
    scenario::{Attach, Scenario},
};

/// Runs a row in generic mode over IPv4, with the client.
fn with_client(row: impl FnOnce(&Scenario)) {
    Scenario::run(Attach::Generic, Family::V4, &["fwknop"], row);
}

/// Writes the configuration and starts the service.
fn serve(scenario: &Scenario, config: &str) -> Running {
    scenario.configure(config);
    scenario.lab.serve(&[])
}

/// Returns how many packets had an outcome.
fn count(scenario: &Scenario, outcome: &str) -> u64 {
    let document = scenario.knockgate("stats --json").exits(0).json();
    let rows = document["fwknop"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["outcome"] == outcome);
    let row = row.unwrap_or_else(|| panic!("no {outcome} in {document}"));
    row["count"].as_u64().expect("a number")
}

/// Waits until so many packets have had an outcome.
#[track_caller]
fn counted(scenario: &Scenario, outcome: &str, number: u64) {
    wait_until(&format!("{number} packets are {outcome}"), || {
        let now = count(scenario, outcome);
        assert!(now <= number, "{now} packets are {outcome}");
        now == number
    });
}
