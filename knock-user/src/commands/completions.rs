//! `knockgate completions`.

use std::io::{self, Write as _};

use anyhow::Result;

/// Print a completion script for a shell
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the completions of `command`.
pub fn run(args: &Args, mut command: clap::Command) -> Result<()> {
    // Written to memory first: the generator panics on a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "knockgate", &mut script);
    io::stdout().write_all(&script)?;
    Ok(())
}
