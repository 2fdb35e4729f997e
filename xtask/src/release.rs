//! `cargo xtask release`: the checks that take too long for every change.

use anyhow::Result;

use crate::{kernels, mutants, stops, test};

/// The variable that makes suites try what takes too long for every change.
const THOROUGH_VARIABLE: &str = "KNOCKGATE_THOROUGH";

/// Runs every test with more packets, suites whose processes stand still at random, every check on every kernel, and every
/// deliberate fault.
pub(crate) fn run() -> Result<()> {
    test::run_with(&[], &[(THOROUGH_VARIABLE, "1".to_owned())])?;
    stops::run(&stops::Options::default())?;
    kernels::run(&kernels::Options {
        arch: None,
        all: true,
        kernel: None,
        only: None,
        update: false,
    })?;
    mutants::run(&mutants::Options::default())
}
