//! `knockgate run`.

use std::path::Path;

use anyhow::Result;

use super::up;
use crate::{
    config::parse_interface,
    datapath::{self, Absent, Before, Datapath, IntoArgument, PinRoot, Request},
    logging,
    runtime::runtime,
    service,
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

    /// Put the program into a slot of another's array of programs instead of attaching it; without a slot, into the first free
    /// one
    #[arg(long, value_name = "PIN[SLOT]", value_parser = up::parse_into)]
    into: Option<IntoArgument>,

    /// Take knockgate down when the service ends
    #[arg(long)]
    down_on_exit: bool,

    /// Go on even if this cuts off the SSH session that gives the command
    #[arg(long)]
    anyway: bool,

    /// Form of the log
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub log: logging::service::Form,
}

pub fn run(args: &Args, config: &Path, root: &PinRoot) -> Result<()> {
    let file = config;
    let config = up::load(file, &args.interfaces)?;
    datapath::require()?;
    // Before the claim, which says that a service runs: one that does ends by a signal as it should.
    let runtime = runtime()?;
    let signals = runtime.block_on(async { service::Signals::catch() })?;
    // Before anything is changed: another service may be serving this gate.
    let claim = match service::Claim::to(root) {
        Err(error) if error.is::<service::Served>() => return Err(error),
        // What else keeps it from serving keeps no gate from closing.
        claim => claim,
    };
    let request = Request {
        named_interfaces: !args.interfaces.is_empty(),
        // A service that is started again does not make a trial permanent.
        keeps_trial: true,
        // Nor does it guard what somebody has taken down.
        keeps_down: true,
        into: args.into.clone(),
        session: up::session(args.anyway),
        ..Request::new(Absent::Await)
    };
    let up = datapath::up(&config, root, &request)?;
    if up.before == Before::Same {
        tracing::info!("taking over the instance on {}", up::names(&up.attachments));
    }
    up::report(&config, &up);
    let _claim = claim?;
    // The keys that it has are read anew by those who need them.
    drop(config);
    let datapath = Datapath::open_unlocked(root)?;
    let load = |interfaces: &[String]| up::load(file, interfaces);
    let serve = service::serve(signals, datapath, root, &up, file, &load, args.down_on_exit);
    runtime.block_on(serve)
}
