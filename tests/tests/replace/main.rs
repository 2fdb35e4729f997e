//! Replacing what is in force in place: `reload`, `up` again, SIGHUP, trials.
//!
//! [`carried`] tests what lives on and what ends, [`streams`] that no packet is let through or lost meanwhile, [`killing`]
//! commands that are killed half-way, [`moments`] what is killed at any moment, [`between`] what happens while tables are copied,
//! [`trial`] `up --try` and `confirm`, [`program`] a newer version, and [`sessions`] connections that are open when an instance
//! comes up.

mod between;
mod carried;
mod killing;
mod moments;
mod program;
mod sessions;
mod streams;
mod trial;

use knockgate_tests::{
    gate_config::Gate,
    lab::Family,
    run::Running,
    scenario::{Attach, Scenario},
};

/// Runs `row` with every attach mode.
fn in_all_modes(row: impl Fn(&Scenario)) {
    for attach in Attach::ALL {
        Scenario::run(attach, Family::V4, &[], &row);
    }
}

/// Runs `row` with native attach, where the mode makes no difference.
fn in_native_mode(row: impl FnOnce(&Scenario)) {
    Scenario::run(Attach::Native, Family::V4, &[], row);
}

fn ssh() -> Gate {
    Gate::ssh().within("1m")
}

/// Writes another configuration and reloads it.
#[track_caller]
fn reload(scenario: &Scenario, config: impl std::fmt::Display) {
    scenario.configure(config);
    scenario.knockgate("reload").exits(0);
}

/// Starts the service on what is up, and waits until it serves.
#[track_caller]
fn serve(scenario: &Scenario) -> Running {
    scenario.lab.serve(&[])
}

/// Returns a configuration with other limits than [`Scenario::up`] writes.
fn with_limits(scenario: &Scenario, limits: &str) {
    let path = scenario.lab.config();
    let text = std::fs::read_to_string(path).expect("it was written before");
    let (before, rest) = text.split_once("limits = {").expect("it has limits");
    let (_, after) = rest.split_once('}').expect("a table ends");
    scenario
        .lab
        .configure(&format!("{before}limits = {{ {limits} }}{after}"));
}
