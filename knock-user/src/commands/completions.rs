//! `knockgate completions`.

use std::io::{self, Write as _};

use anyhow::Result;
use clap::CommandFactory as _;

use crate::cli::Cli;

/// Print a completion script for a shell
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<()> {
    // Written to memory first: the generator panics on a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "knockgate", &mut script);
    io::stdout().write_all(&script)?;
    Ok(())
}
