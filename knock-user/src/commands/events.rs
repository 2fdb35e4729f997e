//! `knockgate events`.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;

use crate::{
    gate::{OpenGate, PinRoot},
    service::{History, Record, drain, read_events},
};

/// Print what happened, one line each
///
/// With a service running (`knockgate run`), its latest 1,000 events; without one, what the kernel's
/// ring still holds, which is thereby used up.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Go on with what comes, until interrupted
    #[arg(long, short)]
    follow: bool,

    /// Print each event as a JSON object
    #[arg(long)]
    json: bool,
}

/// How often the ring is looked into where no service does.
const PAUSE: Duration = Duration::from_millis(200);

pub async fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let gate = OpenGate::at(root)?;
    let history = if args.follow {
        History::Follow
    } else {
        History::Latest
    };
    let mut ring = None;
    loop {
        if read_events(root, history, |record| print(&record, args.json)).await? {
            return Ok(());
        }
        // No service: the ring is ours to read, until one starts.
        let ring = match &mut ring {
            Some(ring) => ring,
            none => none.insert(gate.events()?),
        };
        for record in drain(ring, &gate) {
            print(&record, args.json)?;
        }
        if !args.follow {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
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
