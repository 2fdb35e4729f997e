//! `cargo xtask bench`: what knockgate costs, beside floors measured in the same run.
//!
//! What measures is a program of its own, `xtask/bench/`, so that this one stays small. It runs in namespaces of
//! its own, as the demo does, and leaves nothing behind but its figures.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{
    build::{self, Built},
    demo, process,
    setup::{self, Purpose},
    workspace,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Fewer and shorter rounds: a look, not a figure (5 minutes in place of 20)
    #[arg(long)]
    quick: bool,
    /// Only this part; may be given more than once
    #[arg(long, value_enum)]
    only: Vec<Section>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// The kernel program alone, run by the kernel without a network
    Packet,
    /// Frames on a veth pair, native and generic
    Live,
    /// Real knocks: how soon one opens the port, and whether it does under a flood
    Knocking,
    /// The table of sources that knock, when a flood has filled it (not in a quick look)
    Progress,
    /// Commands: time and memory
    Control,
}

/// Sets up, builds and measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { quick, only } = options;
    let toolchain = setup::ready(Purpose::Demo)?;
    let Built {
        program: _,
        knockgate,
    } = build::release(&toolchain)?;
    let programs = build::kernel_program(&toolchain, "knockgate-bench-ebpf", false)?;
    let bench = build_bench()?;
    let figures = figures(*quick)?;

    // The bench ends with this process, whatever ends it.
    let mut command = process::as_root("setpriv", "make the bench's network namespaces")?;
    command
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net"])
        .arg(bench)
        .arg("--knockgate")
        .arg(knockgate)
        .arg("--programs")
        .arg(programs)
        .arg("--output")
        .arg(figures)
        .arg("--outside")
        .args(demo::namespaces()?);
    if *quick {
        command.arg("--quick");
    }
    for section in only {
        let name = section.to_possible_value();
        let name = name.context("every part of the bench has a name")?;
        command.args(["--only", name.get_name()]);
    }
    let status = command.status().context("can't start the bench")?;
    ensure!(
        status.success(),
        "the bench did not get to its end; the lines above say why. Nothing of it is left"
    );
    Ok(())
}

/// Builds what measures.
fn build_bench() -> Result<PathBuf> {
    let target = workspace::target();
    let mut command = Command::new(workspace::cargo());
    command
        .current_dir(workspace::root())
        .args([
            "build",
            "--release",
            "--package",
            "knockgate-bench",
            "--target-dir",
        ])
        .arg(&target);
    process::run(&mut command)?;
    Ok(target.join("release/knockgate-bench"))
}

/// The file for the figures. Made here, so that it belongs to whoever runs this and not to root.
fn figures(quick: bool) -> Result<PathBuf> {
    let folder = workspace::target().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let path = folder.join(if quick { "quick.json" } else { "full.json" });
    File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    Ok(path)
}
