//! `knockgate run`.

use std::path::Path;

use anyhow::Result;

use super::{runtime::runtime, up};
use crate::{
    config::parse_interface,
    datapath::{self, Absent, Datapath, PinRoot},
    service,
};

/// Serve: bring the gate up, or take over the one that is, then log events until SIGTERM
///
/// The gate stays up when this ends, however it ends. An interface that is absent is waited for, and one that
/// loses the gate gets it back.
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
    // Before anything is changed: another service may be serving this gate.
    service::refuse_second(root)?;
    let up = datapath::up(&config, root, Absent::Await)?;
    if up.was_up {
        tracing::info!("taking over the gate on {}", up::names(&up.attachments));
    }
    up::report(&config, &up);
    let datapath = Datapath::open(root)?;
    let serve = service::serve(datapath, root, &up, args.down_on_exit);
    runtime()?.block_on(serve)
}
