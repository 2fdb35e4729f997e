//! The commands of a host.

use anyhow::Result;

use crate::{
    cli::host::{Command, Options},
    datapath::{self, NotPermitted, NothingUp, PinRoot, StillLapsed, Unsettled},
    runtime::runtime,
};

pub mod allow;
pub mod check;
pub mod confirm;
pub mod down;
pub mod events;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod grants;
pub mod import;
pub mod init;
pub mod key;
pub mod metrics;
mod new_file;
pub(crate) mod output;
pub mod reload;
pub mod revoke;
pub mod run;
pub mod sessions;
pub mod sources;
pub mod stats;
pub mod status;
pub mod top;
pub mod up;

/// Finishes or undoes what a command that was killed has left, which this one would otherwise see or change half.
fn settle_killed(root: &PinRoot) {
    match datapath::settle_killed(root) {
        Err(error) if error.is::<Unsettled>() => tracing::warn!("{error:#}"),
        Err(error) => {
            tracing::debug!("cannot look for what a killed command has left: {error:#}");
        }
        Ok(_) => {}
    }
}

/// Ends a trial that has lapsed, where there is something to return to. A command that may not do that goes on: it shows
/// what is in force. Returns whether it has.
fn return_from_trial(root: &PinRoot) -> bool {
    let returned = datapath::return_from_trial_of(root);
    match &returned {
        Err(error) if error.is::<NothingUp>() || error.is::<NotPermitted>() => {}
        Err(error) if error.is::<StillLapsed>() => tracing::warn!("{error:#}"),
        Err(error) => tracing::debug!("cannot look for a trial that has ended: {error:#}"),
        Ok(_) => {}
    }
    matches!(returned, Ok(Some(_)))
}

pub(super) fn run(command: Command, options: &Options) -> Result<()> {
    let root = options.pin_root();
    let config = &options.config;
    let mut has_returned = false;
    if command.looks_at_the_datapath() {
        settle_killed(&root);
        has_returned = return_from_trial(&root);
    }
    match command {
        Command::Init(args) => init::run(&args, config),
        Command::Import(args) => import::run(&args),
        Command::Check(args) => check::run(&args, config, &root),
        Command::Up(args) => up::run(&args, config, &root),
        Command::Confirm(confirm::Args {}) => confirm::run(&root, has_returned),
        Command::Reload(args) => reload::run(&args, config, &root),
        Command::Down(args) => down::run(&args, &root),
        Command::Run(args) => run::run(&args, config, &root),
        Command::Status(args) => status::run(&args, &root),
        Command::Grants(args) => grants::run(&args, &root),
        Command::Sources(args) => sources::run(&args, &root),
        Command::Sessions(args) => sessions::run(&args, &root),
        Command::Stats(args) => stats::run(&args, &root),
        Command::Events(args) => runtime()?.block_on(events::run(&args, &root)),
        Command::Top(args) => runtime()?.block_on(top::run(&args, &root)),
        Command::Metrics(args) => metrics::run(&args, &root),
        Command::Allow(args) => allow::run(&args, &root),
        Command::Revoke(args) => revoke::run(&args, &root),
        Command::Key(args) => key::run(&args, config, &root),
        #[cfg(feature = "fleet")]
        Command::Fleet(args) => fleet::run(&args, config),
    }
}
