//! `knockgate status`.

use anyhow::Result;

use super::output;
use crate::datapath::{Attachment, Datapath, NotGuarded, PinRoot, Snapshot, describe};

/// Show interfaces, gates, how full the tables are, and totals
///
/// Exit status 7: a configured interface is not guarded.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let datapath = Datapath::look(root)?;
    let status = if args.json {
        let status = datapath.status()?;
        output::json(&status)?;
        status
    } else {
        let snapshot = datapath.snapshot()?;
        print(&snapshot)?;
        snapshot.status
    };
    match NotGuarded::among(&status.attachments) {
        None => Ok(()),
        Some(not_guarded) => Err(not_guarded.into()),
    }
}

fn print(snapshot: &Snapshot) -> Result<()> {
    let Snapshot {
        status, counters, ..
    } = snapshot;
    let interfaces = status.interfaces.iter().zip(&status.attachments);
    let interfaces: Vec<_> = interfaces
        .map(|(interface, attachment)| row(attachment, interface.mode))
        .collect();
    output::table(["INTERFACE", "ATTACH", "MODE"], &interfaces, "")?;
    output::line("")?;
    let gates: Vec<_> = status
        .gates
        .iter()
        .map(|gate| {
            let ports: Vec<String> = gate.protect.iter().map(ToString::to_string).collect();
            [gate.name.clone(), ports.join(" "), gate.grants.to_string()]
        })
        .collect();
    output::table(["GATE", "PROTECTS", "GRANTS>"], &gates, "no gates")?;
    output::line("")?;
    let tables: Vec<_> = status
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
    let (passed, denied) = counters.totals();
    let up_for = u64::try_from(status.up_for.as_nanos()).unwrap_or(u64::MAX);
    let up_for = output::duration(up_for);
    output::line(&format!(
        "{passed} packets passed, {denied} denied; up for {up_for}"
    ))
}

fn row(attachment: &Attachment, mode: &str) -> [String; 3] {
    let name = match attachment.renamed_from() {
        Some(before) => format!("{} (was {before})", attachment.name),
        None => attachment.name.clone(),
    };
    match &attachment.state {
        Ok(attached) => [name, attached.name().into(), mode.into()],
        Err(lack) => {
            let other = attachment
                .other
                .map(|xdp| format!("; it carries {}", describe(xdp)));
            let why = format!("NOT GUARDED: {lack}{}", other.unwrap_or_default());
            [name, why, String::new()]
        }
    }
}
