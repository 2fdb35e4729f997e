//! `knockgate run`.

use std::path::Path;

use anyhow::{Result, bail};

use super::{runtime, up};
use crate::{
    config::{Config, parse_interface},
    gate::{Gate, NothingUp, OpenGate, PinRoot},
    service,
};

/// Serve: bring the gate up, or take over the one that is, then log events until SIGTERM
///
/// The gate stays up when this ends, however it ends.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Interface to guard, in place of the configuration's; may be given several times
    #[arg(short, long = "interface", value_name = "IFACE", value_parser = parse_interface)]
    interfaces: Vec<String>,

    /// Take the gate down when the service ends
    #[arg(long)]
    down_on_exit: bool,
}

pub fn run(args: &Args, config: &Path, root: &PinRoot) -> Result<()> {
    let config = up::load(config, &args.interfaces)?;
    let brought_up = match OpenGate::at(root) {
        Ok(gate) => {
            take_over(&gate, &config)?;
            false
        }
        Err(error) if error.is::<NothingUp>() => {
            up::bring_up(&config, root)?;
            true
        }
        Err(error) => return Err(error),
    };
    let gate = OpenGate::at(root)?;
    let serve = service::serve(gate, root, brought_up, args.down_on_exit);
    runtime()?.block_on(serve)
}

/// The gate that is up serves on if it is the one that the configuration describes.
fn take_over(gate: &Gate, config: &Config) -> Result<()> {
    if gate.config != *config {
        bail!(
            "the gate that is up on {} was brought up with another configuration; take it down \
             with `knockgate down` to apply this one",
            gate.interfaces.join(", ")
        );
    }
    tracing::info!("taking over the gate on {}", gate.interfaces.join(", "));
    Ok(())
}
