//! `knockgate man`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Write manual pages, one for each command
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Directory for them; it is created where it does not exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Writes the pages of `command` and its subcommands.
pub fn run(args: &Args, command: clap::Command) -> Result<()> {
    let directory = &args.directory;
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    clap_mangen::generate_to(command, directory)
        .with_context(|| format!("cannot write manual pages to {}", directory.display()))
}
