//! `knockgate status`.

use anyhow::Result;
use serde::Serialize;

use super::output;
use crate::{
    config::{Mode, Port},
    gate::{Attachment, Gate, NotGuarded, OpenGate, PinRoot, describe, monotonic_now},
};

/// Show interfaces, gates, how full the tables are, and how many packets passed and were denied
///
/// Exit status 7: a configured interface is not guarded.
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
    index: Option<u32>,
    attach: Option<&'static str>,
    mode: &'static str,
    try_left_ms: Option<u64>,
    guarded: bool,
    renamed_from: Option<String>,
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
    let attachments = gate.attachments()?;
    let document = Document::of(&gate, &attachments)?;
    if args.json {
        output::json(&document)?;
    } else {
        print(&gate, &attachments, &document)?;
    }
    let mut open = attachments;
    open.retain(|attachment| !attachment.is_guarded());
    if open.is_empty() {
        Ok(())
    } else {
        Err(NotGuarded(open).into())
    }
}

fn print(gate: &Gate, attachments: &[Attachment], document: &Document) -> Result<()> {
    let row = |attachment: &Attachment| {
        let name = match attachment.renamed_from() {
            Some(before) => format!("{} (was {before})", attachment.name),
            None => attachment.name.clone(),
        };
        match &attachment.state {
            Ok(attached) => [name, attached.name().into(), mode(gate).into()],
            Err(lack) => {
                let other = attachment
                    .other
                    .map(|xdp| format!("; it carries {}", describe(xdp)));
                let why = format!("NOT GUARDED: {lack}{}", other.unwrap_or_default());
                [name, why, String::new()]
            }
        }
    };
    let interfaces: Vec<_> = attachments.iter().map(row).collect();
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
    fn of(gate: &Gate, attachments: &[Attachment]) -> Result<Self> {
        let grants = gate.grants()?;
        let interfaces = attachments.iter().map(|attachment| Interface {
            name: attachment.name.clone(),
            index: attachment.index,
            attach: attachment
                .state
                .as_ref()
                .ok()
                .map(|attached| attached.name()),
            mode: mode(gate),
            try_left_ms: None,
            guarded: attachment.is_guarded(),
            renamed_from: attachment.renamed_from().map(ToOwned::to_owned),
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

fn mode(gate: &Gate) -> &'static str {
    match gate.config.mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}
