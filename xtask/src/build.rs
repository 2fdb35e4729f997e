//! `cargo xtask build` and `check`: build the kernel program and the `knockgate` that contains it, and check that this and the tests
//! compile for another processor.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    architecture::Architecture,
    process,
    setup::{self, Compiler, Cross, Linker, Purpose, Toolchain},
    workspace,
};

/// The kernel reads programs in its own byte order.
const KERNEL_TARGET: &str = "bpfel-unknown-none";

#[derive(Args)]
pub(crate) struct Options {
    /// Build `knockgate` itself without optimisation; the kernel program is always optimised
    #[arg(long)]
    debug: bool,
    /// Development: have the kernel program log every verdict
    #[arg(long, value_enum)]
    features: Option<Feature>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Feature {
    Log,
}

#[derive(Args)]
pub(crate) struct CheckOptions {
    /// The processor
    #[arg(long, value_enum)]
    arch: Architecture,
}

/// The results of a build; both paths are absolute.
pub(crate) struct Built {
    /// The kernel program, a BPF object.
    pub(crate) program: PathBuf,
    /// The binary, which contains that program.
    pub(crate) knockgate: PathBuf,
}

/// The variable with the path of the kernel program, for the build of `knockgate` and for tests.
pub(crate) const PROGRAM_VARIABLE: &str = "KNOCKGATE_KERNEL_PROGRAM";

/// `cargo xtask build`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let toolchain = setup::ready(Purpose::Build)?;
    let Built {
        program: _,
        knockgate,
    } = build(&toolchain, options, None)?;
    let knockgate = knockgate.display();
    println!("Built {knockgate}");
    println!("It contains its kernel program and needs no other file. Next:");
    println!("  {knockgate} --help     lists its commands");
    println!("  cargo xtask demo       shows it at work, separate from your network");
    Ok(())
}

/// `cargo xtask check`.
pub(crate) fn check(options: &CheckOptions) -> Result<()> {
    let toolchain = setup::ready(Purpose::Build)?;
    let cross = setup::cross(options.arch)?;
    let program = kernel_program(&toolchain, "knock-ebpf", false)?;
    let mut command = Command::new(workspace::cargo());
    command
        .current_dir(workspace::root())
        .args(["check", "--package", "knock-user"])
        .args(["--package", "knockgate-tests", "--all-targets"])
        .env(PROGRAM_VARIABLE, &program);
    direct(&mut command, cross.as_ref());
    process::run(&mut command)
}

/// Builds both for release.
pub(crate) fn release(toolchain: &Toolchain) -> Result<Built> {
    release_for(toolchain, None)
}

/// As [`release`], the binary for another processor. The kernel program is the same for each.
pub(crate) fn release_for(toolchain: &Toolchain, cross: Option<&Cross>) -> Result<Built> {
    let options = Options {
        debug: false,
        features: None,
    };
    build(toolchain, &options, cross)
}

fn build(toolchain: &Toolchain, options: &Options, cross: Option<&Cross>) -> Result<Built> {
    let Options { debug, features } = *options;
    if cfg!(target_endian = "big") {
        bail!(
            "knockgate's kernel program is built for little-endian machines only; this one is big-endian"
        );
    }
    let logging = features == Some(Feature::Log);
    // Cargo shows how far each of the two is.
    eprintln!("[1/2] the kernel program");
    let program = kernel_program(toolchain, "knock-ebpf", logging)?;
    eprintln!("[2/2] knockgate");

    let mut command = Command::new(workspace::cargo());
    command
        .current_dir(workspace::root())
        .args(["build", "--package", "knock-user", "--bin", "knockgate"])
        .env(PROGRAM_VARIABLE, &program);
    let target = direct(&mut command, cross);
    if !debug {
        command.arg("--release");
    }
    if logging {
        command.args(["--features", "log"]);
    }
    process::run(&mut command)?;
    let profile = if debug { "debug" } else { "release" };
    Ok(Built {
        program,
        knockgate: target.join(profile).join("knockgate"),
    })
}

/// Has a command of cargo's build for this machine, or for another processor. Returns the folder that has a folder for
/// each profile.
pub(crate) fn direct(command: &mut Command, cross: Option<&Cross>) -> PathBuf {
    if let Some(cross) = cross {
        cross.direct(command);
        return cross.folder().join(cross.architecture.target());
    }
    let target = workspace::target();
    command.arg("--target-dir").arg(&target);
    target
}

/// Builds a package of kernel programs into a target folder of its own, so that the two compilers do not discard each
/// other's results. Returns the object.
pub(crate) fn kernel_program(
    toolchain: &Toolchain,
    package: &str,
    logging: bool,
) -> Result<PathBuf> {
    let features: &[&str] = if logging { &["log"] } else { &[] };
    let (root, target) = (workspace::root(), workspace::target());
    kernel_program_of(&root, &target, toolchain, package, features)
}

/// As [`kernel_program`], of the workspace at `root` into the target folder `target`.
pub(crate) fn kernel_program_of(
    root: &Path,
    target: &Path,
    toolchain: &Toolchain,
    package: &str,
    features: &[&str],
) -> Result<PathBuf> {
    let Toolchain {
        compiler: Compiler { rustc, cargo, .. },
        linker: Linker { path: linker, .. },
    } = toolchain;
    let target = target.join("bpf");
    let mut command = Command::new(cargo);
    command
        .current_dir(root)
        .args(["build", "--package", package, "--bins", "--release"])
        .args([
            "-Z",
            "build-std=core",
            "--target",
            KERNEL_TARGET,
            "--target-dir",
        ])
        .arg(&target)
        // Allows a stable compiler to build `core`, as a nightly one can.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", rustc)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        // The user's flags, wrappers and toolchains are for the host. Flags from the environment would also replace
        // those that `.cargo/config.toml` has for this target.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN");
    if !features.is_empty() {
        command.arg("--features").arg(features.join(","));
    }
    process::run(&mut command)?;
    let program = target.join(KERNEL_TARGET).join("release").join(package);
    match fs::metadata(&program) {
        Ok(metadata) if metadata.len() > 0 => Ok(program),
        _ => bail!(
            "the build of the kernel program succeeded but left nothing at {}",
            program.display()
        ),
    }
}
