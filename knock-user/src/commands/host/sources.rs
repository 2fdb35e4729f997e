//! `knockgate sources`.

use anyhow::Result;

use super::output;
use crate::datapath::{Datapath, PinRoot};

/// Show sources that are part-way through a sequence
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let sources = Datapath::look(root)?.named_sources()?;
    if args.json {
        return output::json(&sources);
    }
    let rows: Vec<_> = sources
        .sources
        .into_iter()
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
