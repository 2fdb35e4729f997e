//! `cargo xtask`: builds, tests and measures a checkout of knockgate.
//!
//! Each command has one arm below and one file: [`setup`] installs what the others need, [`build`] builds the kernel
//! program and the binary that contains it, [`mod@test`] runs every test, [`fuzz`] runs one of them for a given time,
//! [`stops`] runs them while their processes stand still at random, [`kernels`] runs some of them on other kernels,
//! [`mutants`] checks that they notice faults, [`instructions`] counts the instructions for a packet, [`release`] runs the
//! slow checks, [`dist`] makes packages, [`demo`] shows a gate at work and [`mod@bench`] measures its cost, both in networks
//! that exist only while they run.

mod architecture;
mod archive;
mod bench;
mod build;
mod demo;
mod dist;
mod fuzz;
mod instructions;
mod kernels;
mod lan;
mod mutants;
mod process;
mod release;
mod setup;
mod stops;
mod test;
mod workspace;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::setup::Purpose;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about,
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows a gate or a fleet at work in throw-away network namespaces; touches nothing else (15 seconds)
    Demo {
        /// What to show
        #[arg(value_enum, default_value_t = demo::Show::Gate)]
        show: demo::Show,
    },
    /// Sets up, builds, then runs every test of the workspace
    Test {
        /// Arguments for `cargo test`, for example the name of a test
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Looks for packets that the kernel program and its model judge differently
    Fuzz(fuzz::Options),
    /// Puts many faults into a copy of the program, one by one, and checks that the tests notice each (an hour)
    Mutants(mutants::Options),
    /// Builds the kernel program and the `knockgate` that contains it
    Build(build::Options),
    /// Checks that `knockgate` and the tests compile for a processor
    Check(build::CheckOptions),
    /// Makes a Debian package and a tarball in target/dist
    Dist(dist::Options),
    /// Measures the cost of knockgate, compared with floors from the same run; touches nothing else
    Bench(bench::Options),
    /// Boots other kernels in qemu, and loads and tests the program on each (5 minutes)
    Kernels(kernels::Options),
    /// Runs suites while their processes stand still at random, as on a machine that stalls (40 minutes)
    Stops(stops::Options),
    /// Runs the checks that take too long for every change, as before a release (three hours)
    Release,
    /// Counts the instructions that the kernel program takes for a packet, by verdict
    Instructions(instructions::Options),
    /// Finds what the other commands need, and installs what is missing after listing it
    Setup {
        /// The purpose to set up for
        #[arg(long = "for", value_enum, default_value_t = Purpose::Test)]
        purpose: Purpose,
    },
    /// The demo itself, run by `demo` as root inside namespaces of its own
    #[command(hide = true)]
    DemoStage(demo::Stage),
    /// The trial of a package, run by `dist --test` as root inside namespaces of its own
    #[command(hide = true)]
    DistStage(dist::Stage),
    /// The service that demo and trial put behind the gate
    #[command(hide = true)]
    DemoService(demo::Service),
    /// A visitor of that service
    #[command(hide = true)]
    DemoVisit(demo::Visit),
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match command {
        Command::Demo { show } => demo::run(show),
        Command::Test { arguments } => test::run(&arguments),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Mutants(options) => mutants::run(&options),
        Command::Build(options) => build::run(&options),
        Command::Check(options) => build::check(&options),
        Command::Dist(options) => dist::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Kernels(options) => kernels::run(&options),
        Command::Stops(options) => stops::run(&options),
        Command::Release => release::run(),
        Command::Instructions(options) => instructions::run(&options),
        Command::Setup { purpose } => setup::run(purpose),
        Command::DemoStage(stage) => stage.run(),
        Command::DistStage(stage) => stage.run(),
        Command::DemoService(service) => service.run(),
        Command::DemoVisit(visit) => visit.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
