//! The metrics: what they say, how the service hands them out, and what Prometheus, its rules and the dashboard make of
//! them.

mod prometheus;
mod reading;
mod serving;

use knockgate_tests::{
    gate_config::Gate,
    lab::Family,
    run::Running,
    scenario::{Attach, Scenario},
};

/// Where the service hands out its metrics.
const LISTEN: &str = "127.0.0.1:9464";

/// A gate of alice's and one of bob's, behind a key of the whole file.
fn gates(key: &str) -> String {
    let gates = [Gate::ssh(), Gate::mail()].map(|gate| gate.within("1m").to_string());
    format!("{key}\n{}", gates.concat())
}

/// [`gates`], with metrics at an address.
fn gates_with_metrics(listen: &str) -> String {
    gates(&format!("metrics = {{ listen = \"{listen}\" }}"))
}

fn in_generic_mode(tools: &[&str], row: impl FnOnce(&Scenario)) {
    Scenario::run(Attach::Generic, Family::V4, tools, row);
}

/// Starts the service and waits until its instance is up.
fn serve(scenario: &Scenario) -> Running {
    scenario.lab.serve(&[])
}

/// The value of a sample, by its name with its labels.
fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))
        .map(|value| value.parse().expect("a value is a number"))
}
