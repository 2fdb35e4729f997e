//! `knockgate sessions`.

use anyhow::Result;

use super::output;
use crate::datapath::{Datapath, PinRoot};

/// Show flows that began under a grant and may outlive it
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let sessions = Datapath::look(root)?.named_sessions()?;
    if args.json {
        return output::json(&sessions);
    }
    let rows: Vec<_> = sessions
        .sessions
        .into_iter()
        .map(|session| {
            [
                session.gate,
                session.protocol.into(),
                session.source,
                session.destination,
                output::duration(session.idle_ms * 1_000_000),
            ]
        })
        .collect();
    output::table(
        ["GATE", "PROTOCOL", "SOURCE", "DESTINATION", "IDLE>"],
        &rows,
        "no sessions",
    )
}
