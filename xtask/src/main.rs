//! `cargo xtask`: everything a checkout of knockgate can do to itself.
//!
//! One arm a command, one file a command: [`setup`] makes sure of what the others need, [`build`] makes
//! the kernel program and the binary that carries it, [`mod@test`] runs every test, [`fuzz`] one of them
//! for as long as one likes, [`kernels`] some of them on other kernels, [`mutants`] has them notice faults,
//! [`instructions`] counts what a packet takes, [`demo`] shows the gate at work and [`mod@bench`] what it
//! costs, both in networks that exist only while they run. [`dist`] makes packages.

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
    /// Shows a gate at work in throw-away network namespaces; touches nothing else (15 seconds)
    Demo,
    /// Sets up, builds, then runs every test of the workspace
    Test {
        /// Passed on to `cargo test`, for example a test's name
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Looks for packets that the kernel program judges otherwise than its model
    Fuzz(fuzz::Options),
    /// Breaks a copy of the program in many ways, one by one, and has the tests notice each (an hour)
    Mutants(mutants::Options),
    /// Builds the kernel program and the `knockgate` that carries it
    Build(build::Options),
    /// Makes a Debian package and a tarball in target/dist
    Dist(dist::Options),
    /// Measures what the gate costs, beside floors measured in the same run; touches nothing else
    Bench(bench::Options),
    /// Boots other kernels in qemu, and has the program verified and tried in each (5 minutes)
    Kernels(kernels::Options),
    /// Runs what takes too long for every change: before a release (two hours)
    Release,
    /// Counts the instructions that the kernel program takes, by what comes of a packet
    Instructions(instructions::Options),
    /// Makes sure of what the other commands need; installs what is missing, and says so first
    Setup {
        /// What the machine is to be made ready for
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
        Command::Demo => demo::run(),
        Command::Test { arguments } => test::run(&arguments),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Mutants(options) => mutants::run(&options),
        Command::Build(options) => build::run(&options),
        Command::Dist(options) => dist::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Kernels(options) => kernels::run(&options),
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
