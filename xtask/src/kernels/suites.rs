//! The suites and rows that run on other kernels.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::figures::Figures;
use crate::{
    architecture::Architecture,
    build::{self, PROGRAM_VARIABLE},
    process,
    setup::{self, Cross},
    workspace,
};

/// Some rows of a suite.
pub(super) struct Check {
    /// The test target of the package in `tests/`.
    pub(super) suite: &'static str,
    rows: Rows,
    /// Whether it runs for every change, or only before a release.
    pub(super) when: When,
}

/// Which rows of a suite.
#[derive(Clone, Copy)]
enum Rows {
    /// Exactly these.
    These(&'static [&'static str]),
    /// Exactly these, on kernels that have this module.
    With(&'static str, &'static [&'static str]),
    /// All but those whose names contain one of these.
    AllBut(&'static [&'static str]),
}

/// When a check runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    EveryChange,
    /// Before a release; for every change of the kernels for another processor, on which nothing else runs.
    EveryProcessor,
    Release,
}

/// Measures the verifier's figures, which [`Figures::find`] reads from the output.
pub(super) const VERIFIER: Check = Check {
    suite: "verifier",
    rows: Rows::These(&["the_program_is_far_from_the_limits"]),
    when: When::EveryChange,
};

/// The checks for each kernel. They include few rows of the `gate` suite, one that opens and one that closes, with both
/// families and attach modes: each loads the program, which takes ten times as long in a guest.
const CHECKS: [Check; 16] = [
    VERIFIER,
    Check {
        suite: "gate",
        rows: Rows::These(&[
            "clients::knockgate_knock::native",
            "grants::ends_in_time_with_no_process_running::generic",
            "grants::ends_in_time_with_no_process_running::tcx",
        ]),
        when: When::EveryChange,
    },
    // Where the kernel has no TCX, that it is refused.
    Check {
        suite: "attachment",
        rows: Rows::These(&[
            "tcx::it_is_in_front_of_programs_that_let_packets_by",
            "tcx::what_is_not_to_be_had_is_refused",
            "dispatcher::it_guards_behind_libxdps_programs",
        ]),
        when: When::EveryChange,
    },
    Check {
        suite: "authenticated",
        rows: Rows::These(&["program::every_outcome", "gates::a_key_opens_its_gate"]),
        when: When::EveryChange,
    },
    Check {
        suite: "authenticated",
        rows: Rows::These(&[
            "program::every_bit_counts",
            "program::its_length_and_place_may_vary",
            "program::keys_that_are_taken_back_open_nothing",
        ]),
        when: When::EveryProcessor,
    },
    Check {
        suite: "fixtures",
        rows: Rows::These(&["rows_hold_in_the_kernel"]),
        when: When::EveryProcessor,
    },
    Check {
        suite: "concurrency",
        rows: Rows::These(&[
            "no_source_is_there_twice",
            "nobody_is_taken_for_as_far_as_another",
            "every_cpu_has_the_time_of_the_kernel",
        ]),
        when: When::EveryChange,
    },
    Check {
        suite: "chain",
        rows: Rows::These(&[
            "next::what_passes_goes_on_once_and_what_is_denied_does_not",
            "into::what_the_array_calls_is_guarded",
        ]),
        when: When::EveryChange,
    },
    Check {
        suite: "chain",
        rows: Rows::These(&[
            "next::each_interface_has_a_next_of_its_own_or_none",
            "bond::its_interfaces_have_the_next_of_their_bond",
            "refusals::what_is_no_xdp_program_cannot_follow",
            "refusals::the_attach_type_must_be_ours",
            "refusals::frags_are_as_the_other_has_them",
            "refusals::frags_are_as_the_array_has_them",
            "refusals::an_array_of_other_programs_is_refused",
        ]),
        when: When::EveryProcessor,
    },
    Check {
        suite: "evasions",
        rows: Rows::These(&[
            "of_modules::native",
            "of_modules::generic",
            "of_modules::tcx",
            "of_segments::native",
            "of_segments::tcx",
            "of_segments::without_link_headers",
        ]),
        when: When::EveryProcessor,
    },
    Check {
        suite: "bare_ip",
        rows: Rows::These(&[
            "a_gate_that_rejects_answers_as_the_host_does",
            "ethernet_and_bare_ip_share_a_gate",
            "kinds::tunnels_are_guarded_by_what_is_inside",
            "kinds::gre_to_no_one_in_particular_is_refused",
        ]),
        when: When::Release,
    },
    Check {
        suite: "links",
        rows: Rows::These(&[
            "a_bond_is_guarded_on_each_of_its_interfaces",
            "a_bridge_is_guarded_by_itself",
            "a_macvlan_is_guarded_by_itself",
            "a_vlan_device_is_guarded_by_itself",
            "a_vrf_and_an_ipvlan_in_mode_l3s_are_refused",
            "an_ipvlan_is_guarded_by_itself",
            "an_interface_of_a_vrf_is_guarded",
            "ipsec::what_is_decrypted_is_judged_and_not_replied_to",
        ]),
        when: When::Release,
    },
    Check {
        suite: "links",
        // The kernels for virtual machines have none.
        rows: Rows::With("pppoe", &["a_ppp_device_of_pppoe_is_guarded_by_itself"]),
        when: When::Release,
    },
    Check {
        suite: "protocols",
        rows: Rows::These(&["native", "generic", "tcx"]),
        when: When::EveryProcessor,
    },
    Check {
        suite: "reject",
        rows: Rows::These(&[
            "native",
            "tcx",
            "run::answers_are_what_they_should_be",
            "run::so_they_are_at_tcx",
            "limits::honest_clients_are_refused_at_once",
            "stacked::bridge",
            "vlan::native",
            "vlan::generic",
            "vlan::tcx",
        ]),
        when: When::Release,
    },
    // The last row leaves something for `AFTER_CRASH`.
    Check {
        suite: "clock",
        rows: Rows::These(&[
            "knocks_follow_a_clock_that_is_set",
            "knocks_follow_an_offset_that_changes",
            "before_a_crash",
        ]),
        when: When::Release,
    },
];

/// Runs on the same machine after a row of [`CHECKS`] has left something behind, and the machine was switched off.
pub(super) const AFTER_CRASH: Check = Check {
    suite: "clock",
    rows: Rows::These(&["after_a_crash"]),
    when: When::Release,
};

/// For a processor on which no other run tries a gate, the whole suite of gates in place of the few rows of [`CHECKS`]; without
/// the rows about clients of others, whose programs a guest has not.
const WHOLE_GATE: Check = Check {
    suite: "gate",
    rows: Rows::AllBut(&["debian_knock", "plain_", "nmap", "openssh"]),
    when: When::EveryChange,
};

/// Runs alone on a kernel that is too old for the program.
pub(super) const REFUSED: Check = Check {
    suite: "old_kernel",
    rows: Rows::These(&["a_kernel_that_is_too_old_is_refused"]),
    when: When::Release,
};

/// Stands on the console before what a row leaves for [`AFTER_CRASH`].
const LEFT: &str = "left: ";

/// Which checks are wanted.
pub(super) struct Selection<'a> {
    pub(super) architecture: Architecture,
    /// Whether these are all, or those for every change.
    pub(super) all: bool,
    /// The suite to run beside [`VERIFIER`].
    pub(super) only: Option<&'a str>,
    /// Whether a kernel is tried that is too old for the program.
    pub(super) is_refused: bool,
}

/// The executables of the suites, without debug information.
pub(super) struct Suites {
    folder: PathBuf,
    /// The checks to run, in this order.
    pub(super) checks: Vec<&'static Check>,
}

impl Selection<'_> {
    fn checks(&self) -> Result<Vec<&'static Check>> {
        let is_arm64 = self.architecture == Architecture::Arm64;
        let wanted = |check: &&Check| match self.only {
            Some(only) => check.suite == only || check.suite == VERIFIER.suite,
            None => {
                self.all
                    || check.when == When::EveryChange
                    || is_arm64 && check.when == When::EveryProcessor
            }
        };
        let whole = |check: &'static Check| {
            if is_arm64 && check.suite == WHOLE_GATE.suite {
                &WHOLE_GATE
            } else {
                check
            }
        };
        let checks: Vec<_> = CHECKS.iter().filter(wanted).map(whole).collect();
        if let Some(only) = self.only {
            ensure!(
                checks.iter().any(|check| check.suite == only),
                "no suite `{only}` runs in other kernels"
            );
        }
        Ok(checks)
    }
}

impl Check {
    /// Returns whether it runs on a kernel, of which `has` says whether it has a module.
    pub(super) fn fits(&self, has: impl FnOnce(&str) -> bool) -> bool {
        match self.rows {
            Rows::With(module, _) => has(module),
            Rows::These(_) | Rows::AllBut(_) => true,
        }
    }

    /// Returns the arguments for a suite to run exactly these rows, one by one.
    pub(super) fn arguments(&self) -> Vec<&'static str> {
        let mut arguments = vec!["--nocapture", "--test-threads=1"];
        match self.rows {
            Rows::These(rows) | Rows::With(_, rows) => {
                arguments.push("--exact");
                arguments.extend(rows);
            }
            Rows::AllBut(names) => {
                arguments.extend(names.iter().flat_map(|name| ["--skip", name]));
            }
        }
        arguments
    }

    /// Returns what a run has left for [`AFTER_CRASH`].
    pub(super) fn left(said: &str) -> Option<&str> {
        said.lines().find_map(|line| Some(line.split_once(LEFT)?.1))
    }

    /// Returns how many rows have passed. Fails unless the output is that of a run in which every row exists and has
    /// passed. No row may be skipped, since the guest has everything that a row needs.
    pub(super) fn judge(&self, said: &str) -> Result<usize> {
        let passed = said.lines().find_map(|line| {
            let (passed, rest) = line.split_once("test result: ok. ")?.1.split_once(' ')?;
            let counted = rest.starts_with("passed; 0 failed; 0 ignored");
            passed.parse().ok().filter(|_| counted)
        });
        let passed = passed.filter(|passed| match self.rows {
            Rows::These(rows) | Rows::With(_, rows) => *passed == rows.len(),
            Rows::AllBut(_) => *passed > 0,
        });
        passed
            .filter(|_| !said.contains("skipped; missing here"))
            .with_context(|| format!("the suite `{}` did not pass:\n{said}", self.suite))
    }
}

impl Suites {
    /// Builds the suites of a selection for the kernel program at this path.
    pub(super) fn build(
        program: &Path,
        selection: &Selection<'_>,
        cross: Option<&Cross>,
    ) -> Result<Self> {
        let checks = selection.checks()?;
        let refused = selection.is_refused.then_some(REFUSED.suite);
        let suites: BTreeSet<_> = checks
            .iter()
            .map(|check| check.suite)
            .chain(refused)
            .collect();
        let folder = workspace::target().join(format!(
            "kernels/suites-{}",
            selection.architecture.debian()
        ));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // The whole workspace, as `cargo xtask test` does, so that both share what is built.
        let mut command = Command::new(workspace::cargo());
        command
            .current_dir(workspace::root())
            .args(["test", "--workspace", "--no-run"])
            .arg("--message-format=json-render-diagnostics")
            .env(PROGRAM_VARIABLE, program);
        build::direct(&mut command, cross);
        for suite in &suites {
            command.args(["--test", suite]);
        }
        // The compiler's messages go to the terminal.
        command.stderr(std::process::Stdio::inherit());
        let messages = process::stdout(&mut command)?;
        let this = Self { folder, checks };
        for suite in suites {
            let built = executable(&messages, suite)
                .with_context(|| format!("cargo built no suite `{suite}`"))?;
            process::run(Command::new(setup::strip(cross)).args([
                OsString::from("-o"),
                this.path(suite).into(),
                built.into(),
            ]))?;
        }
        Ok(this)
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
        let two = Check {
            suite: "gate",
            rows: Rows::These(&["one", "another"]),
            when: When::EveryChange,
        };
        assert!(
            two.judge("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured")
                .is_ok()
        );
        let said = "test result: ok. 31 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out";
        assert!(matches!(WHOLE_GATE.judge(said), Ok(31)));
        assert!(WHOLE_GATE.judge(&said.replace("31", "0")).is_err());
        for said in [
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored",
            "skipped; missing here: VLAN devices\ntest result: ok. 2 passed; 0 failed; 0 ignored",
            "",
        ] {
            assert!(two.judge(said).is_err(), "{said}");
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
