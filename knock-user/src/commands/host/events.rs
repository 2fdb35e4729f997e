//! `knockgate events`.

use std::io::{self, Write as _};

use anyhow::Result;

use crate::{
    datapath::PinRoot,
    service::{History, Record, each_event},
};

/// Print what happened, one line each
///
/// Prints the latest 1,000 events, which the service (`knockgate run`) keeps. Without a service, prints what the
/// kernel's ring buffer still holds, which empties it. With --follow, goes on with the next service or instance when
/// this one ends.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Go on with new events, until interrupted
    #[arg(long, short)]
    follow: bool,

    /// Print each event as a JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let history = if args.follow {
        History::Follow
    } else {
        History::Latest
    };
    each_event(root, history, |record| print(&record, args.json)).await
}

fn print(record: &Record, json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, record).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{record}")?;
    }
    out.flush()?;
    Ok(())
}
