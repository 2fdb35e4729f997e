//! The command line: global options, and one variant for each command.

#[cfg(feature = "host")]
pub mod host;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    commands::{completions, knock, man},
    logging,
};

#[cfg(feature = "host")]
const AFTER_HELP: &str = "\
Exit status: 0 done; 1 failed; 2 wrong usage; 3 invalid configuration; 4 not permitted; 5 nothing is \
up; 6 the port did not open (knock --then, knock --connect); 7 a configured interface is not guarded (status).

Start with `knockgate init`, `knockgate check`, `knockgate up`.";
#[cfg(not(feature = "host"))]
const AFTER_HELP: &str = "\
Exit status: 0 done; 1 failed; 2 wrong usage; 3 invalid profile; 6 the port did not open (knock --then, knock --connect).

This is the client alone.";

/// Keep ports closed until a client sends packets to a secret sequence of other ports
#[derive(Debug, Parser)]
#[command(name = "knockgate", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[cfg(feature = "host")]
    #[command(flatten)]
    pub host: host::Options,

    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Begins to log as the command wants it.
    pub fn begin_log(&self) -> Result<()> {
        match &self.command {
            #[cfg(feature = "host")]
            Command::Host(command) => command.begin_log(),
            Command::Knock(_) | Command::Completions(_) | Command::Man(_) => {
                logging::for_people();
                Ok(())
            }
        }
    }

    /// Returns whether it changes nothing: nobody misses what a reader that has gone has not read.
    pub fn only_prints(&self) -> bool {
        match &self.command {
            #[cfg(feature = "host")]
            Command::Host(command) => command.only_prints(),
            Command::Knock(_) => false,
            Command::Completions(_) | Command::Man(_) => true,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[cfg(feature = "host")]
    #[command(flatten)]
    Host(host::Command),
    Knock(knock::KnockArgs),
    Completions(completions::Args),
    Man(man::Args),
}
