//! The suites that run on a fault, cheapest first.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::copy::Copy;
use crate::{
    build::{self, PROGRAM_VARIABLE},
    process,
    setup::Toolchain,
    workspace,
};

/// Suites that are built together. The next stage runs only if no suite of this one notices the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Random packets, judged on the host and compared with the model.
    Oracle,
    /// Written cases, judged on the host.
    Decisions,
    /// Unit tests.
    Parts,
    /// The loaded program.
    Kernel,
}

/// A suite, and some of its tests.
struct Suite {
    /// Its name in the report.
    name: &'static str,
    package: &'static str,
    /// A test target; `None`: the unit tests of the package.
    target: Option<&'static str>,
    /// Exact names; none: all.
    tests: &'static [&'static str],
}

const TESTS: &str = "knockgate-tests";

/// Unit tests of the client that need only loopback.
const CLIENT: &[&str] = &[
    "client::pace::tests::clients_that_begin_together_do_not_stay_together",
    "client::pace::tests::each_retry_is_slower",
    "client::relay::tests::a_reset_is_an_error_and_what_came_before_is_kept",
    "client::relay::tests::what_is_still_to_be_sent_goes_out_after_the_peer_has_ended",
    "client::target::tests::a_link_local_address_needs_its_link",
    "client::tests::a_connection_that_is_reset_at_once_was_open",
    "client::tests::the_next_address_is_tried_when_one_does_not_answer",
    "client::turn::tests::a_turn_is_waited_for",
];

impl Stage {
    /// All stages, the cheapest to build first.
    pub(super) const ALL: [Self; 4] = [Self::Oracle, Self::Decisions, Self::Parts, Self::Kernel];

    const fn suites(self) -> &'static [Suite] {
        const fn suite(
            name: &'static str,
            package: &'static str,
            target: Option<&'static str>,
            tests: &'static [&'static str],
        ) -> Suite {
            Suite {
                name,
                package,
                target,
                tests,
            }
        }
        const ORACLE: &[Suite] = &[suite(
            "oracle",
            TESTS,
            Some("oracle"),
            &["host_functions_agree_with_the_model"],
        )];
        const DECISIONS: &[Suite] = &[
            suite("moments", TESTS, Some("moments"), &[]),
            suite(
                "fixtures",
                TESTS,
                Some("fixtures"),
                &[
                    "rows_hold_on_the_host",
                    "a_tag_without_a_link_header_is_malformed",
                ],
            ),
            suite("kept inputs", TESTS, Some("guided"), &[]),
        ];
        const PARTS: &[Suite] = &[
            suite("unit tests", "knock-common", None, &[]),
            suite("automaton", "knock-user", Some("automaton"), &[]),
            suite(
                "attachments",
                "knock-user",
                None,
                &[
                    "datapath::install::attachment::tests::a_link_that_carries_another_program_guards_nothing",
                    "datapath::install::attachment::tests::an_interface_in_another_namespace_guards_nothing_here",
                    "datapath::install::attachment::tests::an_interface_that_carries_the_program_is_guarded",
                    "datapath::install::attachment::tests::a_program_in_front_at_tcx_leaves_an_interface_unguarded",
                    "datapath::install::attachment::tests::at_tcx_the_interface_must_have_the_link_in_its_list",
                    "datapath::install::attachment::tests::a_renamed_interface_is_followed",
                    "datapath::install::attachment::tests::another_interface_under_the_name_is_not_guarded",
                    "datapath::install::attachment::tests::pins_guard_nothing",
                    "datapath::install::attachment::tests::two_that_have_swapped_names_are_guarded",
                ],
            ),
            suite("interfaces", "knock-user", None, INTERFACES),
            suite(
                "checks",
                "knock-user",
                None,
                &[
                    "config::host::tests::what_other_hosts_can_reach_is_listening",
                    "config::tests::warnings::a_tunnel_that_unwraps_behind_the_gate_is_warned_of_until_it_is_guarded",
                    "config::tests::warnings::every_weakness_is_warned_of_alone_and_in_its_place",
                    "sys::sock_diag::tests::a_socket_bound_to_the_loopback_device_faces_nobody_outside",
                ],
            ),
            suite("client", "knock-user", None, CLIENT),
        ];
        const KERNEL: &[Suite] = &[
            suite(
                "fixtures in the kernel",
                TESTS,
                Some("fixtures"),
                &[
                    "rows_hold_in_the_kernel",
                    "rows_hold_in_the_kernel_for_frames_in_several_buffers",
                    "rows_hold_in_the_kernel_at_tcx",
                ],
            ),
            suite(
                "oracle in the kernel",
                TESTS,
                Some("oracle"),
                &["program_agrees_with_the_model_on_a_fixed_seed"],
            ),
            suite(
                "several CPUs",
                TESTS,
                Some("concurrency"),
                &[
                    "every_cpu_has_the_time_of_the_kernel",
                    "when_a_revocation_is_done_no_packet_passes",
                ],
            ),
        ];
        match self {
            Self::Oracle => ORACLE,
            Self::Decisions => DECISIONS,
            Self::Parts => PARTS,
            Self::Kernel => KERNEL,
        }
    }
}

/// Unit tests about the properties of network devices.
const INTERFACES: &[&str] = &[
    "datapath::host::checksums::tests::a_bridge_of_cards_alone_completes_every_sum",
    "datapath::host::checksums::tests::hardware_completes_every_sum",
    "datapath::host::checksums::tests::software_does_not",
    "datapath::host::checksums::tests::what_stands_on_others_is_as_they_are",
    "datapath::host::tests::only_guarded_bonds_count",
    "datapath::install::native::tests::a_veths_limit_is_its_other_ends",
    "datapath::install::native::tests::an_mtu_above_a_page_is_named_with_the_command",
    "datapath::install::native::tests::several_buffers_are_asked_for_where_one_does_not_hold_a_frame",
];

/// How long a suite may take, which is seconds, or minutes on a busy machine; a suite that takes longer hangs, which
/// counts as a failure.
const PATIENCE: Duration = Duration::from_mins(30);

/// The suites of a copy of the sources.
pub(super) struct Suites<'a> {
    copy: &'a Copy,
    toolchain: &'a Toolchain,
    /// The target folder of the copy.
    target: PathBuf,
}

impl<'a> Suites<'a> {
    pub(super) fn new(copy: &'a Copy, toolchain: &'a Toolchain) -> Self {
        Self {
            copy,
            toolchain,
            target: workspace::target().join("mutants/target"),
        }
    }

    /// Builds the suites of a stage and runs them. Returns the names of those that fail; `None` if they do not build.
    pub(super) fn run(&self, stage: Stage) -> Result<Option<Vec<&'static str>>> {
        let mut program = None;
        if stage == Stage::Kernel {
            let (root, target) = (self.copy.root(), &self.target);
            let built = build::kernel_program_of(root, target, self.toolchain, "knock-ebpf", &[]);
            let Ok(built) = built else {
                return Ok(None);
            };
            program = Some(built);
        }
        let mut caught = Vec::new();
        // One build for each package, since the features that cargo chooses depend on the packages in a build.
        for suites in stage
            .suites()
            .chunk_by(|one, other| one.package == other.package)
        {
            let mut command = self.cargo(program.as_deref());
            command.args(["--package", suites[0].package]);
            for target in suites.iter().filter_map(|suite| suite.target) {
                command.args(["--test", target]);
            }
            // Several suites may be unit tests, for which cargo needs the option once.
            if suites.iter().any(|suite| suite.target.is_none()) {
                command.arg("--lib");
                // The same features as in the other builds, so that it is built once.
                if suites[0].package == "knock-common" {
                    command.args(["--features", "testing,user"]);
                }
            }
            let Some(executables) = executables(&mut command)? else {
                return Ok(None);
            };
            for suite in suites {
                if self.fails(stage, suite, &executables)? {
                    caught.push(suite.name);
                }
            }
        }
        Ok(Some(caught))
    }

    fn fails(
        &self,
        stage: Stage,
        suite: &Suite,
        executables: &[(String, PathBuf)],
    ) -> Result<bool> {
        let library = suite.package.replace('-', "_");
        let target = suite.target.unwrap_or(&library);
        let (_, executable) = executables
            .iter()
            .find(|(name, _)| name == target)
            .with_context(|| format!("cargo built no suite `{target}`"))?;
        let mut command = if stage == Stage::Kernel {
            let mut command = process::as_root("env", "load the kernel program")?;
            // A suite that cannot load the program must fail, not skip.
            command.arg("CI=true").arg(executable);
            command
        } else {
            Command::new(executable)
        };
        // The folder in which cargo would run it.
        command.current_dir(self.copy.root().join("tests"));
        command.arg("--exact").args(suite.tests);
        fails(&mut command)
    }

    fn cargo(&self, program: Option<&Path>) -> Command {
        let mut command = Command::new(workspace::cargo());
        command
            .current_dir(self.copy.root())
            .args(["test", "--no-run", "--message-format=json", "--target-dir"])
            .arg(&self.target)
            // Without debug information: each fault needs a new build, which takes longer than the suites.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env_remove(PROGRAM_VARIABLE)
            .envs(program.map(|program| (PROGRAM_VARIABLE, program)));
        command
    }
}

/// Runs a suite without its output. Returns whether it fails.
fn fails(command: &mut Command) -> Result<bool> {
    let nowhere = || File::options().write(true).open("/dev/null");
    command
        .stdin(Stdio::null())
        .stdout(nowhere()?)
        .stderr(nowhere()?);
    let mut child = command.spawn().context("cannot start a suite")?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(!status.success());
        }
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Builds test targets. Returns the executables by name; `None` if they do not build.
fn executables(command: &mut Command) -> Result<Option<Vec<(String, PathBuf)>>> {
    let output = process::output(command)?;
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let messages = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let built = messages.filter_map(|message| {
        let executable = message["executable"].as_str()?;
        let name = message["target"]["name"].as_str()?;
        Some((name.to_owned(), PathBuf::from(executable)))
    });
    Ok(Some(built.collect()))
}
