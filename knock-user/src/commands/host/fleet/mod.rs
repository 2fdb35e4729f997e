//! `knockgate fleet`: hosts that open their gates together.

mod key;

use anyhow::Result;
use clap::Subcommand;

/// Make keys for hosts that open their gates together
///
/// The section [fleet] of the configuration makes this host one of a fleet.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    Key(key::Args),
}

pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Key(args) => key::run(args),
    }
}
