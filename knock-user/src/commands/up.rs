//! `knockgate up`.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{
    config::{Config, Mode, parse_interface},
    datapath::{self, Absent, Attachment, PinRoot, Up},
};

/// Load, attach and pin the kernel program, then exit: the kernel enforces from then on
///
/// Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. If anything fails, nothing is changed. Where it is up already,
/// but an interface is no longer guarded (it was created again, or the program was detached), attaches the program
/// there again and keeps all grants.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Interface to guard, in place of the configuration's; may be repeated
    #[arg(short, long = "interface", value_name = "IFACE", value_parser = parse_interface)]
    interfaces: Vec<String>,
}

/// Brings up what the file at `config` says, and says on standard error what is up.
pub fn run(args: &Args, config: &Path, root: &PinRoot) -> Result<()> {
    let config = load(config, &args.interfaces)?;
    let up = datapath::up(&config, root, Absent::Refuse)?;
    if up.was_up && up.guarded.is_empty() && up.failed.is_empty() {
        bail!(
            "this gate is up already on {} (pins in {}); to bring it up afresh, take it down first with \
             `knockgate down`",
            names(&up.attachments),
            root.path().display()
        );
    }
    report(&config, &up);
    let failed =
        |(name, error): (String, anyhow::Error)| error.context(format!("{name} is NOT GUARDED"));
    let mut errors = up.failed.into_iter().map(failed);
    let Some(first) = errors.next() else {
        return Ok(());
    };
    for error in errors {
        tracing::error!("{error:#}");
    }
    Err(first)
}

/// The configuration, with its warnings logged, for the interfaces that were asked for.
pub fn load(path: &Path, interfaces: &[String]) -> Result<Config> {
    let (mut config, warnings) = Config::load(path)?;
    for warning in warnings {
        tracing::warn!("{}", warning.headline());
    }
    if !interfaces.is_empty() {
        config.interfaces = interfaces.to_vec();
    }
    config.interfaces.sort();
    config.interfaces.dedup();
    Ok(config)
}

/// Logs what has been brought up or repaired, and what is not guarded.
pub fn report(config: &Config, up: &Up) {
    for guarded in &up.guarded {
        let again = if up.was_up {
            " again, with the grants that there were"
        } else {
            ""
        };
        let attached = guarded.attached.name();
        tracing::info!("{} is guarded{again} ({attached} mode)", guarded.interface);
    }
    for attachment in &up.attachments {
        if let (Some(before), Ok(_)) = (attachment.renamed_from(), &attachment.state) {
            tracing::warn!(
                "{before} is called {} now; the gate has stayed on it",
                attachment.name
            );
        }
    }
    if up.was_up {
        return;
    }
    for gate in &config.gates {
        let ports: Vec<String> = gate.protect.iter().map(ToString::to_string).collect();
        let state = match config.mode {
            Mode::Enforce => "closed to all but those who knock",
            Mode::Monitor => "open to all: monitor mode counts what would be denied",
        };
        tracing::info!("gate {}: {} {state}", gate.name, ports.join(", "));
    }
}

/// The interfaces that are guarded, by their present names.
pub fn names(attachments: &[Attachment]) -> String {
    let guarded = attachments.iter().filter(|row| row.is_guarded());
    let names: Vec<&str> = guarded.map(|row| row.name.as_str()).collect();
    names.join(", ")
}
