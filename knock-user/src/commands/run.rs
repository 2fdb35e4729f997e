//! `knockgate run`.

use std::path::Path;

use anyhow::Result;

use super::{runtime::runtime, up};
use crate::{
    config::parse_interface,
    datapath::{self, Absent, Datapath, PinRoot},
    logging, service,
};

/// Run the service: bring knockgate up or take over what is up, then log events
///
/// Runs until SIGTERM. The ports stay closed when the service ends, however it ends. It waits for interfaces that are
/// absent, and attaches the program again to those that lose it.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Interface to guard, in place of the configuration's; may be repeated
    #[arg(short, long = "interface", value_name = "IFACE", value_parser = parse_interface)]
    interfaces: Vec<String>,

    /// Take knockgate down when the service ends
    #[arg(long)]
    down_on_exit: bool,

    /// Form of the log
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub log: logging::Form,
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
