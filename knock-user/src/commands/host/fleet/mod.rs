//! `knockgate fleet`: hosts that open their gates together.

mod key;
mod status;

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;

/// Show hosts that open their gates together, and make keys for them
///
/// `[fleet]` in the configuration makes this host one of a fleet.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    Key(key::Args),
    Status(status::Args),
}

impl Args {
    /// Returns whether it makes no key.
    pub fn only_prints(&self) -> bool {
        matches!(self.command, Command::Status(_))
    }
}

/// `file`: the configuration.
pub fn run(args: &Args, file: &Path) -> Result<()> {
    match &args.command {
        Command::Key(args) => key::run(args),
        Command::Status(args) => status::run(args, file),
    }
}
