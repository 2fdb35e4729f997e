//! `cargo xtask test`: builds the kernel program and the binary, and runs every test of the workspace with them.

use std::{env, ffi::OsString, process::Command, thread};

use anyhow::{Context as _, Result, bail};
use netlab::host::{find_program, is_root};

use crate::{
    build::{self, Built, PROGRAM_VARIABLE},
    process,
    setup::{self, Purpose},
    workspace,
};

/// The variable with the path of the `knockgate` to test.
const KNOCKGATE_VARIABLE: &str = "KNOCKGATE";

/// The variable with the number of tests that a suite runs at once.
const THREADS_VARIABLE: &str = "RUST_TEST_THREADS";

/// Sets up, builds and runs `cargo test --workspace` with further arguments.
///
/// Tests of the loaded program need root: for other users, cargo runs the test binaries, and only those, by sudo.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    run_with(arguments, None)
}

/// As [`run`], with one more environment variable for the tests.
pub(crate) fn run_with(arguments: &[OsString], variable: Option<(&str, String)>) -> Result<()> {
    let toolchain = setup::ready(Purpose::Test)?;
    let Built { program, knockgate } = build::release(&toolchain)?;
    let mut command = Command::new(workspace::cargo());
    command
        .current_dir(workspace::root())
        .args(["test", "--workspace", "--target-dir"])
        .arg(workspace::target())
        .args(arguments)
        .env(PROGRAM_VARIABLE, program)
        .env(KNOCKGATE_VARIABLE, knockgate)
        .envs(variable);
    if env::var_os(THREADS_VARIABLE).is_none() {
        command.env(THREADS_VARIABLE, threads().to_string());
    }
    if !is_root() {
        let (variable, runner) = sudo_runner()?;
        command.env(variable, runner);
    }
    process::run(&mut command)
}

/// Returns how many tests of a suite run at once; mostly they wait, for packets or for silence.
fn threads() -> usize {
    3 * thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the variable, with its value, that makes cargo run test binaries by sudo.
fn sudo_runner() -> Result<(String, String)> {
    let Some(sudo) = find_program("sudo") else {
        bail!(
            "tests of the kernel program need root, and there is no sudo here: run this again as root"
        );
    };
    // Asks for the password now, not in the middle of the tests' output.
    process::run(Command::new(&sudo).arg("--validate"))
        .context("tests of the kernel program need root")?;
    let said = process::stdout(Command::new(workspace::cargo()).arg("-vV"))?;
    let host = said
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("`cargo -vV` names no host")?;
    Ok((
        runner_variable(host),
        format!("{} --preserve-env", sudo.display()),
    ))
}

fn runner_variable(host: &str) -> String {
    format!(
        "CARGO_TARGET_{}_RUNNER",
        host.to_uppercase().replace(['-', '.'], "_")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_reads_the_runner_of_a_target_from_its_name_in_capitals() {
        assert_eq!(
            runner_variable("x86_64-unknown-linux-gnu"),
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER"
        );
    }
}
