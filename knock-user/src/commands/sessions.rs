//! `knockgate sessions`.

use anyhow::Result;
use serde::Serialize;

use super::output;
use crate::{
    config::Protocol,
    datapath::{Datapath, PinRoot},
};

/// Show flows that began under a grant and may outlive it
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document {
    sessions: Vec<Session>,
}

#[derive(Serialize)]
struct Session {
    gate: String,
    protocol: &'static str,
    source: String,
    destination: String,
    idle_ms: u64,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let datapath = Datapath::open(root)?;
    let rows = datapath.sessions()?;
    let applied = &datapath.applied;
    let sessions = rows.iter().map(|row| Session {
        gate: applied.gate_name(row.gate).unwrap_or_default().to_owned(),
        protocol: match row.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        },
        source: row.source.to_string(),
        destination: row.destination.to_string(),
        idle_ms: u64::try_from(row.idle.as_millis()).unwrap_or(u64::MAX),
    });
    if args.json {
        return output::json(&Document {
            sessions: sessions.collect(),
        });
    }
    let rows: Vec<_> = sessions
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
