//! `cargo xtask test`: builds the kernel program and the binary, and runs every test of the workspace with them.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, Seek as _},
    process::{Child, Command},
    thread,
};

use anyhow::{Context as _, Result, bail};
use netlab::host::{find_program, is_root};
use serde_json::{Value, json};

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

/// A suite that mostly waits: its fleets live one at a time. It runs beside all others.
const BESIDE: &str = "fleet";

/// Sets up, builds and runs `cargo test --workspace` with further arguments; without any, suites side by side.
///
/// Tests of the loaded program need root: for other users, cargo runs the test binaries, and only those, by sudo.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    run_with(arguments, &[])
}

/// As [`run`], with more environment variables for the tests.
pub(crate) fn run_with(arguments: &[OsString], variables: &[(&str, String)]) -> Result<()> {
    let toolchain = setup::ready(Purpose::Test)?;
    let Built { program, knockgate } = build::release(&toolchain)?;
    let runner = if is_root() {
        None
    } else {
        Some(sudo_runner()?)
    };
    let cargo_test = || {
        let mut command = Command::new(workspace::cargo());
        command
            .current_dir(workspace::root())
            .args(["test", "--workspace", "--target-dir"])
            .arg(workspace::target())
            .env(PROGRAM_VARIABLE, &program)
            .env(KNOCKGATE_VARIABLE, &knockgate)
            .envs(variables.iter().cloned())
            .envs(runner.clone());
        if env::var_os(THREADS_VARIABLE).is_none() {
            command.env(THREADS_VARIABLE, threads().to_string());
        }
        command
    };
    let goes_on: &[_] = &[OsString::from("--no-fail-fast")];
    if arguments.is_empty() || arguments == goes_on {
        side_by_side(|| {
            let mut command = cargo_test();
            command.args(arguments);
            command
        })
    } else {
        process::run(cargo_test().args(arguments))
    }
}

/// Runs every test, one suite beside all others.
fn side_by_side(cargo_test: impl Fn() -> Command) -> Result<()> {
    process::run(cargo_test().arg("--no-run"))?;
    let mut others = cargo_test();
    others.args(["--lib", "--bins"]);
    for suite in suites()?.iter().filter(|suite| **suite != BESIDE) {
        others.args(["--test", suite]);
    }
    let beside = Beside::start(cargo_test().args(["--test", BESIDE]))?;
    eprintln!("the suite `{BESIDE}` runs beside the others; what it says comes after theirs");
    let ran = process::run(&mut others);
    let ran_beside = beside.end();
    ran.and(ran_beside)?;
    process::run(cargo_test().arg("--doc"))
}

/// A command that runs beside others, with its output.
struct Beside {
    child: Child,
    output: File,
}

impl Beside {
    fn start(command: &mut Command) -> Result<Self> {
        let output = tempfile::tempfile().context("cannot make a temporary file")?;
        let child = command
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .spawn()
            .context("cannot start cargo")?;
        Ok(Self { child, output })
    }

    /// Waits for its end, and shows what it has said.
    fn end(mut self) -> Result<()> {
        let status = self.child.wait()?;
        self.output.rewind()?;
        io::copy(&mut self.output, &mut io::stdout().lock())?;
        if !status.success() {
            bail!("the suite `{BESIDE}` failed ({status}); its own lines above say why");
        }
        Ok(())
    }
}

/// Returns the names of all test targets.
fn suites() -> Result<Vec<String>> {
    let mut command = Command::new(workspace::cargo());
    command
        .current_dir(workspace::root())
        .args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&process::stdout(&mut command)?)
        .context("`cargo metadata` cannot be read")?;
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let targets = array(&metadata["packages"])
        .into_iter()
        .flat_map(|package| array(&package["targets"]));
    let suites = targets.filter(|target| target["kind"] == json!(["test"]));
    let names = suites.filter_map(|target| Some(target["name"].as_str()?.to_owned()));
    Ok(names.collect())
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
    fn every_suite_is_known() {
        let suites = suites().expect("cargo knows its workspace");
        for suite in [BESIDE, "gate", "documentation"] {
            assert!(suites.iter().any(|known| known == suite), "{suite}");
        }
    }

    #[test]
    fn cargo_reads_the_runner_of_a_target_from_its_name_in_capitals() {
        assert_eq!(
            runner_variable("x86_64-unknown-linux-gnu"),
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER"
        );
    }
}
