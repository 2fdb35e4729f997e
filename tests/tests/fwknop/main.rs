//! Debian's client of fwknop, unmodified, opens gates of `knockgate run`.
//!
//! [`opening`]: what it opens, and for whom. [`refusals`]: what it cannot open, and how that is counted. [`lookalikes`]: what
//! others send to the same port.

mod lookalikes;
mod opening;
mod refusals;

use knockgate_tests::{
    lab::Family,
    run::Running,
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
