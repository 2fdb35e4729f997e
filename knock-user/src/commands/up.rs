//! `knockgate up`.

use std::path::Path;

use anyhow::Result;

use crate::{
    config::{Config, Mode, parse_interface},
    gate::{self, PinRoot},
};

/// Load, attach and pin the gate, then exit: from there on the kernel enforces alone
///
/// Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. If anything fails, nothing is changed.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Interface to guard, in place of the configuration's; may be given several times
    #[arg(short, long = "interface", value_name = "IFACE", value_parser = parse_interface)]
    interfaces: Vec<String>,
}

/// Brings up what the file at `config` says, and says on standard error what is up.
pub fn run(args: &Args, config: &Path, root: &PinRoot) -> Result<()> {
    let config = load(config, &args.interfaces)?;
    bring_up(&config, root)
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

/// Brings the gate up and logs what was done.
pub fn bring_up(config: &Config, root: &PinRoot) -> Result<()> {
    for mounted in gate::up(config, root)? {
        let attached = mounted.attached.name();
        tracing::info!("{} is guarded ({attached} mode)", mounted.interface);
    }
    for gate in &config.gates {
        let ports: Vec<String> = gate.protect.iter().map(ToString::to_string).collect();
        let state = match config.mode {
            Mode::Enforce => "closed to all but those who knock",
            Mode::Monitor => "open to all: monitor mode counts what would be denied",
        };
        tracing::info!("gate {}: {} {state}", gate.name, ports.join(", "));
    }
    Ok(())
}
