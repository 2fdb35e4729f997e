//! `knockgate grants`.

use anyhow::Result;
use serde::Serialize;

use super::output;
use crate::{
    datapath::{Datapath, PinRoot},
    sys::clock::monotonic_now,
};

/// Show live grants: who may pass which gate, and for how long
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document {
    grants: Vec<Grant>,
}

#[derive(Serialize)]
struct Grant {
    gate: String,
    /// Null where it was given by hand.
    user: Option<String>,
    source: String,
    expires_in_ms: u64,
    /// New connections admitted so far.
    connections: u32,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let datapath = Datapath::open(root)?;
    let rows = datapath.grants()?;
    let applied = &datapath.applied;
    let now = monotonic_now();
    let grants = rows.iter().map(|row| Grant {
        gate: applied.gate_name(row.gate).unwrap_or_default().to_owned(),
        user: row
            .user
            .and_then(|user| applied.user_name(user))
            .map(ToOwned::to_owned),
        source: row.source.to_string(),
        expires_in_ms: output::milliseconds(row.until.saturating_sub(now)),
        connections: row.connections,
    });
    if args.json {
        return output::json(&Document {
            grants: grants.collect(),
        });
    }
    let rows: Vec<_> = grants
        .map(|grant| {
            [
                grant.gate,
                grant.user.unwrap_or_else(|| "(by hand)".into()),
                grant.source,
                output::duration(grant.expires_in_ms * 1_000_000),
                grant.connections.to_string(),
            ]
        })
        .collect();
    output::table(
        ["GATE", "USER", "SOURCE", "EXPIRES IN>", "CONNECTIONS>"],
        &rows,
        "no grants: every gate is closed",
    )
}
