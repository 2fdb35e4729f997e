//! `knockgate stats`.

use std::{io::Write as _, thread, time::Duration};

use anyhow::Result;

use super::output;
use crate::{
    datapath::{Counters, Datapath, PinRoot},
    values::parse_duration,
};

/// Show every counter of packets and knocks, summed over CPUs
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print one JSON document, or one for each --watch
    #[arg(long)]
    json: bool,

    /// Print again after each such pause, until interrupted
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    watch: Option<Duration>,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    loop {
        // Opened anew each time, since another instance may have come up.
        print(&Datapath::look(root)?.counters()?, args.json)?;
        let Some(pause) = args.watch else {
            return Ok(());
        };
        if !args.json {
            output::line("")?;
        }
        std::io::stdout().flush()?;
        thread::sleep(pause);
    }
}

fn print(counters: &Counters, json: bool) -> Result<()> {
    if json {
        return output::json(counters);
    }
    let packets: Vec<_> = counters
        .packets
        .iter()
        .map(|row| {
            [
                row.verdict.into(),
                row.reason.into(),
                row.gate.clone().unwrap_or_else(|| "-".into()),
                row.packets.to_string(),
                row.bytes.to_string(),
            ]
        })
        .collect();
    output::table(
        ["VERDICT", "REASON", "GATE", "PACKETS>", "BYTES>"],
        &packets,
        "no packets yet",
    )?;
    output::line("")?;
    let knocks: Vec<_> = counters
        .knocks
        .iter()
        .filter(|row| row.count != 0)
        .map(|row| [row.gate.clone(), row.result.into(), row.count.to_string()])
        .collect();
    output::table(["GATE", "KNOCKS", "COUNT>"], &knocks, "no knocks yet")?;
    let authenticated: Vec<_> = counters
        .authenticated
        .iter()
        .filter(|row| row.count != 0)
        .map(|row| [row.outcome.into(), row.count.to_string()])
        .collect();
    if !authenticated.is_empty() {
        output::line("")?;
        output::table(["AUTHENTICATED KNOCKS", "COUNT>"], &authenticated, "")?;
    }
    if counters.fwknop.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let packets: Vec<_> = counters
        .fwknop
        .iter()
        .filter(|row| row.count != 0)
        .map(|row| [row.outcome.into(), row.count.to_string()])
        .collect();
    let none = "no packets of fwknop's clients yet";
    output::table(["FWKNOP", "COUNT>"], &packets, none)
}
