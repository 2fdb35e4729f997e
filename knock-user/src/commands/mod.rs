//! One file for each command.

pub mod completions;
#[cfg(feature = "host")]
pub mod host;
pub mod knock;
pub mod man;

use anyhow::Result;
use clap::CommandFactory as _;

use crate::{
    cli::{Cli, Command},
    runtime::runtime,
};

/// Runs the command that the command line names.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        #[cfg(feature = "host")]
        Command::Host(command) => host::run(command, &cli.host),
        Command::Knock(args) => runtime()?.block_on(knock::run(args)),
        Command::Completions(args) => completions::run(&args, Cli::command()),
        Command::Man(args) => man::run(&args, Cli::command()),
    }
}
