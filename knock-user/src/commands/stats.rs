//! `knockgate stats`.

use std::{io::Write as _, thread, time::Duration};

use anyhow::Result;
use serde::Serialize;

use super::output;
use crate::{
    config::parse_duration,
    gate::{Gate, OpenGate, PinRoot},
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

#[derive(Serialize)]
struct Document {
    packets: Vec<Packets>,
    knocks: Vec<Knocks>,
}

#[derive(Serialize)]
struct Packets {
    verdict: &'static str,
    reason: &'static str,
    gate: Option<String>,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Knocks {
    gate: String,
    result: &'static str,
    count: u64,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    loop {
        // Opened anew each time, since the gate may have gone down or another have come up.
        print(&Document::of(&OpenGate::at(root)?)?, args.json)?;
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

impl Document {
    fn of(gate: &Gate) -> Result<Self> {
        let name = |index: u16| gate.name_of(index).unwrap_or_default().to_owned();
        let packets = gate.packets()?.into_iter().map(|row| Packets {
            verdict: if row.reason.passes() { "pass" } else { "deny" },
            reason: row.reason.name(),
            gate: row.gate.map(name),
            packets: row.packets,
            bytes: row.bytes,
        });
        let knocks = gate.knocks()?.into_iter().map(|row| Knocks {
            gate: name(row.gate),
            result: row.outcome.name(),
            count: row.count,
        });
        Ok(Self {
            packets: packets.collect(),
            knocks: knocks.collect(),
        })
    }
}

fn print(document: &Document, json: bool) -> Result<()> {
    if json {
        return output::json(document);
    }
    let packets: Vec<_> = document
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
    let knocks: Vec<_> = document
        .knocks
        .iter()
        .filter(|row| row.count != 0)
        .map(|row| [row.gate.clone(), row.result.into(), row.count.to_string()])
        .collect();
    output::table(["GATE", "KNOCKS", "COUNT>"], &knocks, "no knocks yet")
}
