//! `knockgate sources`.

use anyhow::Result;
use serde::Serialize;

use super::output;
use crate::datapath::{Datapath, PinRoot};

/// Show sources that are part-way through a sequence
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document {
    sources: Vec<Source>,
}

#[derive(Serialize)]
struct Source {
    source: String,
    step: u8,
    of: u8,
    gates: Vec<String>,
    age_ms: u64,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let datapath = Datapath::open(root)?;
    let rows = datapath.sources()?;
    let sources = rows.iter().map(|row| Source {
        source: row.source.to_string(),
        step: row.step,
        of: row.of,
        gates: row
            .gates
            .iter()
            .filter_map(|id| datapath.applied.gate_name(*id))
            .map(ToOwned::to_owned)
            .collect(),
        age_ms: u64::try_from(row.age.as_millis()).unwrap_or(u64::MAX),
    });
    if args.json {
        return output::json(&Document {
            sources: sources.collect(),
        });
    }
    let rows: Vec<_> = sources
        .map(|source| {
            [
                source.source,
                format!("{} of {}", source.step, source.of),
                source.gates.join(" "),
                output::duration(source.age_ms * 1_000_000),
            ]
        })
        .collect();
    output::table(
        ["SOURCE", "STEP", "GATES", "AGE>"],
        &rows,
        "no source is in the middle of a sequence",
    )
}
