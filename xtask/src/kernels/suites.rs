//! The suites and rows that run on other kernels.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::figures::Figures;
use crate::{build::PROGRAM_VARIABLE, process, workspace};

/// Some rows of a suite.
pub(super) struct Check {
    /// The test target of the package in `tests/`.
    pub(super) suite: &'static str,
    pub(super) rows: &'static [&'static str],
    /// Whether it runs for every change, or only before a release.
    pub(super) when: When,
}

/// When a check runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    EveryChange,
    Release,
}

/// Measures the verifier's figures, which [`Figures::find`] reads from the output.
pub(super) const VERIFIER: Check = Check {
    suite: "verifier",
    rows: &["the_program_is_far_from_the_limits"],
    when: When::EveryChange,
};

/// The checks for each kernel. They include few rows of the `gate` suite, one that opens and one that closes, with both
/// families and attach modes: each loads the program, which takes ten times as long in a guest.
const CHECKS: [Check; 11] = [
    VERIFIER,
    Check {
        suite: "gate",
        rows: &[
            "clients::knockgate_knock::native",
            "grants::ends_in_time_with_no_process_running::generic",
        ],
        when: When::EveryChange,
    },
    Check {
        suite: "authenticated",
        rows: &[
            "program::every_outcome",
            "program::every_bit_counts",
            "program::its_length_and_place_may_vary",
            "program::keys_that_are_taken_back_open_nothing",
            "gates::a_key_opens_its_gate",
        ],
        when: When::EveryChange,
    },
    Check {
        suite: "fixtures",
        rows: &["rows_hold_in_the_kernel"],
        when: When::Release,
    },
    Check {
        suite: "concurrency",
        rows: &[
            "no_source_is_there_twice",
            "nobody_is_taken_for_as_far_as_another",
        ],
        when: When::EveryChange,
    },
    Check {
        suite: "chain",
        rows: &[
            "next::what_passes_goes_on_once_and_what_is_denied_does_not",
            "next::each_interface_has_a_next_of_its_own_or_none",
            "into::what_the_array_calls_is_guarded",
            "refusals::what_is_no_xdp_program_cannot_follow",
            "refusals::the_attach_type_must_be_ours",
            "refusals::frags_are_as_the_other_has_them",
            "refusals::frags_are_as_the_array_has_them",
            "refusals::an_array_of_other_programs_is_refused",
        ],
        when: When::EveryChange,
    },
    Check {
        suite: "evasions",
        rows: &[
            "of_modules::native",
            "of_modules::generic",
            "of_segments::native",
            "of_segments::without_link_headers",
        ],
        when: When::EveryChange,
    },
    Check {
        suite: "bare_ip",
        rows: &[
            "a_gate_that_rejects_answers_as_the_host_does",
            "ethernet_and_bare_ip_share_a_gate",
            "kinds::tunnels_are_guarded_by_what_is_inside",
            "kinds::gre_to_no_one_in_particular_is_refused",
        ],
        when: When::Release,
    },
    Check {
        suite: "protocols",
        rows: &["native", "generic"],
        when: When::EveryChange,
    },
    Check {
        suite: "reject",
        rows: &[
            "run::answers_are_what_they_should_be",
            "vlan::native",
            "vlan::generic",
        ],
        when: When::Release,
    },
    // The last row leaves something for `AFTER_CRASH`.
    Check {
        suite: "clock",
        rows: &[
            "knocks_follow_a_clock_that_is_set",
            "knocks_follow_an_offset_that_changes",
            "before_a_crash",
        ],
        when: When::Release,
    },
];

/// Runs on the same machine after a row of [`CHECKS`] has left something behind, and the machine was switched off.
pub(super) const AFTER_CRASH: Check = Check {
    suite: "clock",
    rows: &["after_a_crash"],
    when: When::Release,
};

/// Stands on the console before what a row leaves for [`AFTER_CRASH`].
const LEFT: &str = "left: ";

/// The executables of the suites, without debug information.
pub(super) struct Suites {
    folder: PathBuf,
    /// The checks to run, in this order.
    pub(super) checks: Vec<&'static Check>,
}

impl Check {
    /// Returns the arguments for a suite to run exactly these rows, one by one.
    pub(super) fn arguments(&self) -> impl Iterator<Item = &'static str> {
        let options = ["--exact", "--nocapture", "--test-threads=1"];
        options.into_iter().chain(self.rows.iter().copied())
    }

    /// Returns what a run has left for [`AFTER_CRASH`].
    pub(super) fn left(said: &str) -> Option<&str> {
        said.lines().find_map(|line| Some(line.split_once(LEFT)?.1))
    }

    /// Fails unless the output is that of a run in which every row exists and has passed. No row may be skipped, since
    /// the guest has everything that a row needs.
    pub(super) fn judge(&self, said: &str) -> Result<()> {
        let expected = format!(
            "test result: ok. {} passed; 0 failed; 0 ignored",
            self.rows.len()
        );
        ensure!(
            said.contains(&expected) && !said.contains("skipped; missing here"),
            "the suite `{}` did not pass:\n{said}",
            self.suite
        );
        Ok(())
    }
}

impl Suites {
    /// Builds the suites for the kernel program at this path: those for every change, all, or one beside [`VERIFIER`].
    pub(super) fn build(program: &Path, all: bool, only: Option<&str>) -> Result<Self> {
        let wanted = |check: &&Check| match only {
            Some(only) => check.suite == only || check.suite == VERIFIER.suite,
            None => all || check.when == When::EveryChange,
        };
        let checks: Vec<_> = CHECKS.iter().filter(wanted).collect();
        if let Some(only) = only {
            ensure!(
                checks.iter().any(|check| check.suite == only),
                "no suite `{only}` runs in other kernels"
            );
        }
        let folder = workspace::target().join("kernels/suites");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // The whole workspace, as `cargo xtask test` does, so that both share what is built.
        let mut command = Command::new(workspace::cargo());
        command
            .current_dir(workspace::root())
            .args(["test", "--workspace", "--no-run", "--target-dir"])
            .arg(workspace::target())
            .arg("--message-format=json-render-diagnostics")
            .env(PROGRAM_VARIABLE, program);
        for Check { suite, .. } in &checks {
            command.args(["--test", suite]);
        }
        // The compiler's messages go to the terminal.
        command.stderr(std::process::Stdio::inherit());
        let messages = process::stdout(&mut command)?;
        let suites = Self { folder, checks };
        for Check { suite, .. } in &suites.checks {
            let built = executable(&messages, suite)
                .with_context(|| format!("cargo built no suite `{suite}`"))?;
            process::run(Command::new("strip").args([
                OsString::from("-o"),
                suites.path(suite).into(),
                built.into(),
            ]))?;
        }
        Ok(suites)
    }

    pub(super) fn path(&self, suite: &str) -> PathBuf {
        self.folder.join(suite)
    }

    /// Measures the figures of this machine's kernel, which may have grown with `update`.
    pub(super) fn measure_here(&self, update: bool) -> Result<Vec<Figures>> {
        let mut command = process::as_root("env", "load the kernel program")?;
        command
            .arg("CI=true")
            .arg(self.path(VERIFIER.suite))
            .args(VERIFIER.arguments());
        let output = process::output(&mut command)?;
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        measured(&said, update).context("on this machine's kernel")
    }
}

/// Returns the figures of a run of [`VERIFIER`]. Fails if the run has failed, except with `update`.
pub(super) fn measured(said: &str, update: bool) -> Result<Vec<Figures>> {
    if !update {
        VERIFIER.judge(said)?;
    }
    let figures = Figures::find(said);
    if figures.is_empty() {
        bail!("the suite `{}` gave no figures:\n{said}", VERIFIER.suite);
    }
    Ok(figures)
}

/// Returns the executable of a test target, from cargo's messages.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == target)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_counts_only_with_all_of_its_rows() {
        let [_, gate, ..] = &CHECKS;
        assert!(
            gate.judge("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured")
                .is_ok()
        );
        for said in [
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored",
            "skipped; missing here: VLAN devices\ntest result: ok. 2 passed; 0 failed; 0 ignored",
            "",
        ] {
            assert!(gate.judge(said).is_err(), "{said}");
        }
    }

    #[test]
    fn what_a_machine_has_left_is_found() {
        let said = "test before_a_crash ... left: {\"a\":1}\nok\n";
        assert_eq!(Check::left(said), Some("{\"a\":1}"));
        assert_eq!(Check::left("test before_a_crash ... ok"), None);
    }

    #[test]
    fn executables_are_found_by_their_target() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"gate"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"gate"},"executable":"/t/gate-1"}
not for us
{"reason":"compiler-artifact","target":{"name":"json"},"executable":"/t/json-1"}"#;
        assert_eq!(executable(messages, "gate"), Some("/t/gate-1".into()));
        assert_eq!(executable(messages, "fixtures"), None);
    }
}
