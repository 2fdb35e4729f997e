//! `cargo xtask bench`: measures the cost of knockgate, compared with floors that are measured in the same run.
//!
//! The measuring program is separate, in `xtask/bench/`, so that this one stays small. It runs in namespaces of its
//! own, as the demo does, and leaves nothing behind but its figures.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use netlab::host::namespaces;

use crate::{
    build::{self, Built},
    process,
    setup::{self, Purpose, Toolchain},
    workspace,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Fewer and shorter rounds, for a rough result
    #[arg(long)]
    quick: bool,
    /// Only this part; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// Measures by another harness too: the folder with its `bench_live.py`
    #[arg(long, value_name = "FOLDER")]
    peers: Option<PathBuf>,
    /// Measures nothing; draws the latest full run, or the figures in this file, to docs/development/bench/
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only", "peers"])]
    #[expect(
        clippy::option_option,
        reason = "clap's type for an option whose value may be left out"
    )]
    plot: Option<Option<PathBuf>>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// The kernel program alone, run by the kernel without a network
    Packet,
    /// The same on one CPU, and on all at once
    Cores,
    /// Frames on a veth pair, native and generic
    Live,
    /// Real knocks: how soon one opens the port, and whether it does under a flood
    Knocking,
    /// The table of sources that knock, when a flood has filled it (not with --quick)
    Progress,
    /// Commands: time and memory
    Control,
    /// A fleet of three hosts over three etcd members (not with --quick)
    Fleet,
    /// Live traffic by the harness of --peers (not with --quick)
    Peers,
}

/// Sets up, builds and measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options {
        quick,
        only,
        peers,
        plot,
    } = options;
    if let Some(file) = plot {
        return draw(file.as_deref());
    }
    let wanted = |section| only.contains(&section) || only.is_empty();
    let peers = peers.as_deref().map(harness).transpose()?;
    ensure!(
        peers.is_some() || !only.contains(&Section::Peers),
        "`--only peers` needs the folder of a harness: add `--peers FOLDER`"
    );
    let peers = peers.filter(|_| only.contains(&Section::Peers) || only.is_empty() && !quick);
    let has_fleet = only.contains(&Section::Fleet) || only.is_empty() && !quick;
    if has_fleet {
        // Its members and hosts are those of the tests.
        setup::ready(Purpose::Test)?;
    }
    let toolchain = if peers.is_some() {
        ready(Purpose::Peers)?
    } else if wanted(Section::Knocking) || wanted(Section::Live) {
        ready(Purpose::Bench)?
    } else {
        setup::ready(Purpose::Demo)?
    };
    let Built {
        program: _,
        knockgate,
    } = build::release(&toolchain)?;
    let programs = build::kernel_program(&toolchain, "knockgate-bench-ebpf", false)?;
    let bench = build_bench(has_fleet)?;
    let figures = figures(*quick)?;

    // The kernel kills the bench when this process ends, for whatever reason.
    let mut command = process::as_root("setpriv", "make the bench's network namespaces")?;
    command
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net"])
        .arg(bench)
        .arg("measure")
        .env("KNOCKGATE", &knockgate)
        .arg("--knockgate")
        .arg(knockgate)
        .arg("--programs")
        .arg(programs)
        .arg("--output")
        .arg(figures)
        .arg("--outside")
        .args(namespaces()?);
    if *quick {
        command.arg("--quick");
    }
    if let Some(peers) = peers {
        command.arg("--peers").arg(peers);
    }
    for section in only {
        let name = section.to_possible_value();
        let name = name.context("every part of the bench has a name")?;
        command.args(["--only", name.get_name()]);
    }
    let status = command.status().context("cannot start the bench")?;
    ensure!(
        status.success(),
        "the bench failed; the lines above say why. It has left nothing behind"
    );
    Ok(())
}

/// Sets up, including the programs that knockgate is compared with. If these cannot be installed, sets up without them;
/// their rows then say what is missing.
fn ready(purpose: Purpose) -> Result<Toolchain> {
    setup::ready(purpose).or_else(|error| {
        eprintln!("warning: some rows will be missing: {error:#}");
        setup::ready(Purpose::Demo)
    })
}

/// Returns the full path of a folder with another harness.
fn harness(folder: &Path) -> Result<PathBuf> {
    const PROGRAM: &str = "bench_live.py";
    ensure!(
        folder.join(PROGRAM).is_file(),
        "there is no {PROGRAM} in {}",
        folder.display()
    );
    folder
        .canonicalize()
        .with_context(|| format!("cannot find {}", folder.display()))
}

/// Draws the figures of a file, or of the latest full run.
fn draw(file: Option<&Path>) -> Result<()> {
    let latest = workspace::target().join("bench/full.json");
    let figures = file.unwrap_or(&latest);
    ensure!(
        figures.is_file(),
        "there is no {}: run `cargo xtask bench` first",
        figures.display()
    );
    let mut command = Command::new(build_bench(false)?);
    command
        .args(["plot", "--figures"])
        .arg(figures)
        .arg("--folder")
        .arg(workspace::root().join("docs/development/bench"));
    process::run(&mut command)
}

/// Builds the measuring program. `has_fleet`: with the part about fleets, which needs all that a fleet and its tests do.
fn build_bench(has_fleet: bool) -> Result<PathBuf> {
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
    if has_fleet {
        command.args(["--features", "fleet"]);
    }
    process::run(&mut command)?;
    Ok(target.join("release/knockgate-bench"))
}

/// Creates the file for the figures, here so that it belongs to the user and not to root.
fn figures(quick: bool) -> Result<PathBuf> {
    let folder = workspace::target().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(if quick { "quick.json" } else { "full.json" });
    File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
