//! One file for each command.

use anyhow::Result;
use clap::CommandFactory as _;

use crate::{
    cli::{Cli, Command},
    runtime::runtime,
};

pub mod allow;
pub mod check;
pub mod completions;
pub mod down;
pub mod events;
pub mod grants;
pub mod init;
pub mod knock;
pub mod man;
pub mod metrics;
pub(crate) mod output;
pub mod revoke;
pub mod run;
pub mod sessions;
pub mod sources;
pub mod stats;
pub mod status;
pub mod top;
pub mod up;

/// Runs the command that the command line names.
pub fn run(cli: Cli) -> Result<()> {
    let root = cli.pin_root();
    match cli.command {
        Command::Init(args) => init::run(&args, &cli.config),
        Command::Check(args) => check::run(&args, &cli.config),
        Command::Up(args) => up::run(&args, &cli.config, &root),
        Command::Down(args) => down::run(&args, &root),
        Command::Run(args) => run::run(&args, &cli.config, &root),
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
        Command::Knock(args) => runtime()?.block_on(knock::run(args)),
        Command::Completions(args) => completions::run(&args, Cli::command()),
        Command::Man(args) => man::run(&args, Cli::command()),
    }
}
