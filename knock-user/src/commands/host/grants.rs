//! `knockgate grants`.

use anyhow::Result;

use super::output;
use crate::datapath::{Datapath, PinRoot};

/// Show live grants: who may pass which gate, and for how long
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let grants = Datapath::look(root)?.named_grants()?;
    if args.json {
        return output::json(&grants);
    }
    let rows: Vec<_> = grants
        .grants
        .into_iter()
        .map(|grant| {
            [
                grant.gate,
                grant.user.unwrap_or_else(|| "(by hand)".into()),
                grant.source,
                output::duration(grant.expires_in_ms * 1_000_000),
                grant.connections.to_string(),
                grant.origin.unwrap_or_default(),
            ]
        })
        .collect();
    output::table(
        [
            "GATE",
            "USER",
            "SOURCE",
            "EXPIRES IN>",
            "CONNECTIONS>",
            "ORIGIN",
        ],
        &rows,
        "no grants",
    )
}
