//! Measures the cost of knockgate, compared with floors that are measured in the same run. `cargo xtask bench` builds
//! and runs this program.
//!
//! [`host`] makes the namespaces, and [`instances`] the instances. [`per_packet`] measures the programs alone, [`cores`] on
//! all CPUs at once, [`live`]
//! frames on a wire, [`knocking`] knocks, [`progress`] a full table of sources, [`control`] the commands, and [`peers`]
//! the same traffic by another harness. Costs are CPU time, which other work on the machine changes little. Every round
//! measures every row, so that a drift affects all rows, and [`figures`] compares within a round. [`mod@plot`] draws
//! the figures.

mod clock;
mod control;
mod cores;
mod figures;
#[cfg(feature = "fleet")]
mod fleet;
mod frame;
mod host;
mod instance;
mod instances;
mod judge;
mod keys;
mod knocking;
mod live;
mod minimal;
mod peers;
mod per_packet;
mod plan;
mod plot;
mod programs;
mod progress;
mod recipe;
mod report;
mod service;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use knockgate_progress::Progress;
use serde_json::json;

pub use crate::plan::Plan;
use crate::{figures::Part, host::Host, instances::Instances, programs::Programs};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures
    Measure(Measure),
    /// Draws what was measured
    Plot {
        /// File of figures
        #[arg(long)]
        figures: PathBuf,
        /// Folder for the pictures
        #[arg(long)]
        folder: PathBuf,
    },
}

#[derive(Args)]
struct Measure {
    /// The `knockgate` to measure
    #[arg(long)]
    knockgate: PathBuf,
    /// The bench's own kernel programs
    #[arg(long)]
    programs: PathBuf,
    /// File for the figures, as JSON
    #[arg(long)]
    output: PathBuf,
    /// Fewer and shorter rounds, for a rough result
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// The folder of another harness
    #[arg(long)]
    peers: Option<PathBuf>,
    /// The namespaces from which the bench was started, and which it must have left
    #[arg(long, num_args = 2, required = true)]
    outside: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Packet,
    Cores,
    Live,
    Knocking,
    Progress,
    Control,
    /// Built only where it is asked for
    #[cfg(feature = "fleet")]
    Fleet,
    Peers,
}

impl Section {
    /// Whether it takes too long for a quick run.
    fn is_long(self) -> bool {
        #[cfg(feature = "fleet")]
        if self == Self::Fleet {
            return true;
        }
        matches!(self, Self::Progress | Self::Peers)
    }
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match command {
        Command::Measure(measure) => bench(&measure),
        Command::Plot { figures, folder } => plot(&figures, &folder),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn plot(figures: &Path, folder: &Path) -> Result<()> {
    for name in plot::draw(figures, folder)? {
        println!("{}", folder.join(name).display());
    }
    Ok(())
}

fn bench(arguments: &Measure) -> Result<()> {
    let Measure {
        knockgate,
        programs,
        output,
        quick,
        only,
        peers,
        outside,
    } = arguments;
    let plan = if *quick { Plan::QUICK } else { Plan::FULL };
    let by_default = |section: Section| !(*quick && section.is_long());
    let wanted = |section| only.contains(&section) || only.is_empty() && by_default(section);

    let host = Host::create(outside)?;
    let mut programs = Programs::load(&host, programs)?;
    let sections = Section::value_variants().iter();
    let sections = sections.filter(|section| wanted(**section));
    let sections = sections.filter(|section| **section != Section::Peers || peers.is_some());
    let mut figures = Figures {
        progress: Progress::new(sections.count()),
        file: output,
        quick: *quick,
        plan,
        parts: Vec::new(),
    };
    #[cfg(feature = "fleet")]
    if wanted(Section::Fleet) {
        figures.progress.begin("a fleet over etcd");
        figures.add(fleet::measure(&plan)?)?;
        figures.progress.done();
    }
    let mut instances = None;
    if [Section::Control, Section::Packet, Section::Cores]
        .into_iter()
        .any(wanted)
    {
        instances = Some(Instances::assemble(&host, &mut programs, knockgate)?);
    }
    if let Some(instances) = instances.as_ref().filter(|_| wanted(Section::Control)) {
        figures
            .progress
            .begin("commands and the service: time and memory");
        figures.add(control::measure(
            &host,
            &mut programs,
            knockgate,
            instances,
            &plan,
        )?)?;
        figures.progress.done();
    }
    if let Some(peers) = peers.as_ref().filter(|_| wanted(Section::Peers)) {
        figures.progress.begin("the peers' harness");
        figures.add(vec![peers::measure(&host, knockgate, peers, &plan)])?;
        figures.progress.done();
    }
    if wanted(Section::Knocking) {
        figures.progress.begin("real knocks, also through floods");
        figures.add(knocking::measure(&host, &mut programs, knockgate, &plan)?)?;
        figures.progress.done();
    }
    if wanted(Section::Progress) {
        figures.progress.begin("the table of sources that knock");
        figures.add(progress::measure(&host, &mut programs, knockgate, &plan)?)?;
        figures.progress.done();
    }
    if let Some(instances) = instances.as_ref().filter(|_| wanted(Section::Cores)) {
        figures.progress.begin("the kernel program on all CPUs");
        figures.add(vec![cores::measure(&mut programs, instances, &plan)?])?;
        figures.progress.done();
    }
    // After starting commands, which would inherit the CPU.
    let cpu = clock::stay()?;
    if let Some(instances) = instances.as_ref().filter(|_| wanted(Section::Packet)) {
        figures.progress.begin("the kernel program alone");
        figures.add(vec![
            per_packet::known(&mut programs, &plan)?,
            per_packet::verdicts(&mut programs, instances, &plan)?,
            per_packet::sequences(&mut programs, instances, &plan)?,
            per_packet::knock_ports(&mut programs, instances, &plan)?,
            per_packet::neighbours(&mut programs, instances, &plan)?,
            per_packet::authenticated(&mut programs, instances, &plan)?,
        ])?;
        figures.progress.done();
    }
    drop(instances);
    if wanted(Section::Live) {
        figures.progress.begin("frames on a veth pair");
        for mode in live::Mode::ALL {
            let part = live::measure(&host, &mut programs, knockgate, cpu, mode, &plan)?;
            figures.add(vec![part])?;
        }
        figures.progress.done();
    }
    drop(figures);
    println!("\nAll figures, round by round: {}", output.display());
    Ok(())
}

/// The figures so far.
struct Figures<'f> {
    progress: Progress,
    file: &'f Path,
    quick: bool,
    plan: Plan,
    parts: Vec<Part>,
}

impl Figures<'_> {
    /// Prints parts and writes them to the file, so that a later failure cannot lose them.
    fn add(&mut self, parts: Vec<Part>) -> Result<()> {
        self.progress.above(|| parts.iter().for_each(report::print));
        self.parts.extend(parts);
        let parts: Vec<_> = self.parts.iter().map(Part::json).collect();
        let document = json!({
            "machine": machine(),
            "quick": self.quick,
            "rounds": self.plan.rounds,
            "slices": self.plan.slices,
            "parts": parts,
        });
        fs::write(self.file, format!("{document:#}\n"))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }
}

/// Returns the properties of the machine on which the figures depend.
fn machine() -> serde_json::Value {
    let line = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let found = text.lines().find_map(|line| line.strip_prefix(key));
        found.map(|value| value.trim_start_matches([' ', '\t', ':']).to_owned())
    };
    json!({
        "kernel": line("/proc/sys/kernel/osrelease", ""),
        "processor": line("/proc/cpuinfo", "model name"),
        "load": line("/proc/loadavg", ""),
    })
}
