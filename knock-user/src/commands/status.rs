//! `knockgate status`.

use anyhow::Result;
use serde::Serialize;

use super::output;
use crate::{
    config::{Mode, Port},
    gate::{Gate, OpenGate, PinRoot, Xdp, monotonic_now},
};

/// Show interfaces, gates, how full the tables are, and what was decided so far
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document {
    interfaces: Vec<Interface>,
    gates: Vec<GateStatus>,
    tables: Vec<Table>,
}

#[derive(Serialize)]
struct Interface {
    name: String,
    attach: Option<&'static str>,
    mode: &'static str,
    try_left_ms: Option<u64>,
}

#[derive(Serialize)]
struct GateStatus {
    name: String,
    protect: Vec<Port>,
    grants: usize,
}

#[derive(Serialize)]
struct Table {
    name: &'static str,
    used: u64,
    capacity: u32,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let gate = OpenGate::at(root)?;
    let document = Document::of(&gate)?;
    if args.json {
        return output::json(&document);
    }
    let mode = |interface: &Interface| {
        let attach = interface
            .attach
            .unwrap_or("detached: the interface is gone");
        [interface.name.clone(), attach.into(), interface.mode.into()]
    };
    let interfaces: Vec<_> = document.interfaces.iter().map(mode).collect();
    output::table(["INTERFACE", "ATTACH", "MODE"], &interfaces, "")?;
    output::line("")?;
    let gates: Vec<_> = document
        .gates
        .iter()
        .map(|gate| {
            let ports: Vec<String> = gate.protect.iter().map(ToString::to_string).collect();
            [gate.name.clone(), ports.join(" "), gate.grants.to_string()]
        })
        .collect();
    output::table(["GATE", "PROTECTS", "GRANTS>"], &gates, "no gates")?;
    output::line("")?;
    let tables: Vec<_> = document
        .tables
        .iter()
        .map(|table| {
            [
                table.name.into(),
                table.used.to_string(),
                table.capacity.to_string(),
            ]
        })
        .collect();
    output::table(["TABLE", "USED>", "CAPACITY>"], &tables, "")?;
    output::line("")?;
    let (passed, denied) = gate.packets()?.iter().fold((0, 0), |(pass, deny), row| {
        if row.reason.passes() {
            (pass + row.packets, deny)
        } else {
            (pass, deny + row.packets)
        }
    });
    let up_for = output::duration(monotonic_now().saturating_sub(gate.since));
    output::line(&format!(
        "{passed} packets passed, {denied} denied; up for {up_for}"
    ))
}

impl Document {
    fn of(gate: &Gate) -> Result<Self> {
        let grants = gate.grants()?;
        let mode = match gate.config.mode {
            Mode::Enforce => "enforce",
            Mode::Monitor => "monitor",
        };
        let interfaces = gate.attached()?.into_iter().map(|(name, xdp)| Interface {
            name,
            attach: xdp.map(
                |Xdp {
                     attached,
                     program: _,
                 }| attached.name(),
            ),
            mode,
            try_left_ms: None,
        });
        let gates = gate
            .config
            .gates
            .iter()
            .zip(0_u16..)
            .map(|(rules, index)| GateStatus {
                name: rules.name.clone(),
                protect: rules.protect.clone(),
                grants: grants.iter().filter(|grant| grant.gate == index).count(),
            });
        let tables = gate.tables()?.map(|row| Table {
            name: row.name,
            used: row.used,
            capacity: row.capacity,
        });
        Ok(Self {
            interfaces: interfaces.collect(),
            gates: gates.collect(),
            tables: tables.into(),
        })
    }
}
