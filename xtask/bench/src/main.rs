//! What knockgate costs, beside floors that are measured in the same run: `cargo xtask bench` builds and
//! runs this.
//!
//! [`stage`] makes the namespaces, [`cast`] the gates, and three files measure: [`per_packet`] the
//! programs alone, [`live`] frames on a wire, [`control`] the commands. All costs are CPU time, of which
//! other work on the machine takes little away; every round visits every row, so that whatever drifts,
//! drifts for all; and [`figures`] compares within a round.

mod cast;
mod clock;
mod control;
mod figures;
mod frame;
mod gate;
mod knocking;
mod live;
mod per_packet;
mod programs;
mod progress;
mod raw;
mod recipe;
mod report;
mod service;
mod stage;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde_json::json;

use crate::{cast::Cast, figures::Part, knocking::Rate, programs::Programs, stage::Stage};

#[derive(Parser)]
struct Arguments {
    /// The `knockgate` to measure
    #[arg(long)]
    knockgate: PathBuf,
    /// The bench's own kernel programs
    #[arg(long)]
    programs: PathBuf,
    /// File for the figures, as JSON
    #[arg(long)]
    output: PathBuf,
    /// Fewer and shorter rounds: a look, not a figure
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// The namespaces that the bench was started from, and must have left
    #[arg(long, num_args = 2, required = true)]
    outside: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Packet,
    Live,
    Knocking,
    Progress,
    Control,
}

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    /// Runs of a program in one sample.
    pub repeat: u32,
    /// Frames of one sample on a wire.
    pub frames: u32,
    /// Samples a round and row, of which the cheapest counts: what disturbs only ever adds.
    pub samples: usize,
    /// Rounds of real knocks.
    pub trials: usize,
    /// Sources that knock in one trial, and the time from one to the next.
    pub knocks: u32,
    pub every: Duration,
    /// How long a source that has knocked tries the port.
    pub patience: Duration,
    /// What floods they knock through.
    pub floods: &'static [Rate],
}

impl Plan {
    const FULL: Self = Self {
        rounds: 9,
        repeat: 400_000,
        frames: 200_000,
        samples: 3,
        trials: 3,
        knocks: 40,
        every: Duration::from_millis(100),
        patience: Duration::from_secs(2),
        floods: &[
            Rate::None,
            Rate::PerSecond(1_000),
            Rate::PerSecond(10_000),
            Rate::PerSecond(100_000),
            Rate::Fastest,
        ],
    };
    const QUICK: Self = Self {
        rounds: 3,
        repeat: 100_000,
        frames: 100_000,
        samples: 2,
        trials: 1,
        knocks: 10,
        every: Duration::from_millis(100),
        patience: Duration::from_millis(600),
        floods: &[Rate::None, Rate::PerSecond(10_000), Rate::Fastest],
    };
}

fn main() -> ExitCode {
    match bench(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &Arguments) -> Result<()> {
    let Arguments {
        knockgate,
        programs,
        output,
        quick,
        only,
        outside,
    } = arguments;
    let plan = if *quick { Plan::QUICK } else { Plan::FULL };
    // How a table of the kernel's behaves is no matter of a look.
    let by_default = |section| !(*quick && section == Section::Progress);
    let wanted = |section| only.contains(&section) || only.is_empty() && by_default(section);

    let stage = Stage::create(outside)?;
    let mut programs = Programs::load(&stage, programs)?;
    let mut parts: Vec<Part> = Vec::new();
    let mut done = |part: Part| {
        report::print(&part);
        parts.push(part);
    };
    let mut cast = None;
    if wanted(Section::Control) || wanted(Section::Packet) {
        cast = Some(Cast::assemble(&stage, &mut programs, knockgate)?);
    }
    if let Some(cast) = cast.as_ref().filter(|_| wanted(Section::Control)) {
        control::measure(&stage, knockgate, cast, &plan)?
            .into_iter()
            .for_each(&mut done);
    }
    if wanted(Section::Knocking) {
        knocking::measure(&stage, &mut programs, knockgate, &plan)?
            .into_iter()
            .for_each(&mut done);
    }
    if wanted(Section::Progress) {
        progress::measure(&stage, &mut programs, &plan)?
            .into_iter()
            .for_each(&mut done);
    }
    // Only now, since what a command starts stays there too.
    let cpu = clock::stay()?;
    if let Some(cast) = cast.as_ref().filter(|_| wanted(Section::Packet)) {
        done(per_packet::verdicts(&mut programs, cast, &plan)?);
        done(per_packet::sequences(&mut programs, cast, &plan)?);
    }
    drop(cast);
    if wanted(Section::Live) {
        for mode in live::Mode::ALL {
            done(live::measure(
                &stage,
                &mut programs,
                knockgate,
                cpu,
                mode,
                &plan,
            )?);
        }
    }
    let document = json!({
        "machine": machine(),
        "quick": quick,
        "rounds": plan.rounds,
        "parts": parts.iter().map(Part::json).collect::<Vec<_>>(),
    });
    fs::write(output, format!("{document:#}\n"))
        .with_context(|| format!("can't write {}", output.display()))?;
    println!("\nAll figures, round by round: {}", output.display());
    Ok(())
}

/// What the figures depend on.
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
