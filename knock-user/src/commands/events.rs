//! `knockgate events`.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;

use crate::{
    datapath::{Datapath, NothingUp, PinRoot},
    service::{History, Record, drain, read_events},
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

/// How often the ring is looked into where no service does.
const PAUSE: Duration = Duration::from_millis(200);

pub async fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let mut datapath = Datapath::open(root)?;
    let history = if args.follow {
        History::Follow
    } else {
        History::Latest
    };
    let mut ring = None;
    let mut waits = false;
    loop {
        if read_events(root, history, |record| print(&record, args.json)).await? {
            if !args.follow {
                return Ok(());
            }
            tracing::info!("the service has ended; following the next one");
            // The service read the ring of this instance, and the next one has another.
            ring = None;
        }
        // No service: the ring is ours to read, until one starts.
        if !datapath.is_pinned()? {
            ring = None;
            match Datapath::open(root) {
                Ok(next) => datapath = next,
                Err(error) if error.is::<NothingUp>() => {
                    if !waits {
                        tracing::warn!("{error}; following the next one");
                    }
                    waits = true;
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        waits = false;
        let ring = match &mut ring {
            Some(ring) => ring,
            none => match datapath.events() {
                Ok(events) => none.insert(events),
                // Taken down since it was looked at.
                Err(_) if !datapath.is_pinned()? => continue,
                Err(error) => return Err(error),
            },
        };
        for record in drain(ring, &datapath) {
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
