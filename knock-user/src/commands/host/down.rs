//! `knockgate down`.

use anyhow::Result;

use crate::{
    config::parse_interface,
    datapath::{PinRoot, down},
};

/// Detach the kernel program and remove its pins; does nothing where nothing is up
///
/// Needs no configuration.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only this interface; may be repeated
    #[arg(short, long = "interface", value_name = "IFACE", value_parser = parse_interface)]
    interfaces: Vec<String>,

    /// Every interface under the pin root; this is the default
    #[arg(long, conflicts_with = "interfaces")]
    all: bool,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    // Naming the default does not change it.
    let Args { interfaces, all: _ } = args;
    let removed = down(root, interfaces)?;
    if removed.is_empty() {
        // Others may be.
        let on = match &interfaces[..] {
            [] => String::new(),
            names => format!(" on {}", names.join(", ")),
        };
        tracing::info!("nothing was up{on}");
    }
    for name in removed {
        tracing::info!("{name} is no longer guarded");
    }
    Ok(())
}
