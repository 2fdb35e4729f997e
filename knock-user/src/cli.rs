//! The command line: global options, and one variant for each command.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use clap::{Parser, Subcommand};

use crate::{
    commands::{
        allow, check, completions, confirm, down, events, grants, import, init, key, knock, man,
        metrics, reload, revoke, run, sessions, sources, stats, status, top, up,
    },
    config::DEFAULT_PATH,
    datapath::{DEFAULT_ROOT, PinRoot},
    logging,
};

const EXIT_STATUSES: &str = "\
Exit status: 0 done; 1 failed; 2 wrong usage; 3 invalid configuration; 4 not permitted; 5 nothing is \
up; 6 the port did not open (knock --then, knock --connect); 7 a configured interface is not guarded (status).

Start with `knockgate init`, `knockgate check`, `knockgate up`.";

/// Keep ports closed until a client sends packets to a secret sequence of other ports
#[derive(Debug, Parser)]
#[command(name = "knockgate", version, after_help = EXIT_STATUSES, max_term_width = 100)]
pub struct Cli {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,

    /// Directory of the pins; each holds an instance of its own
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "KNOCKGATE_PIN_ROOT",
        default_value = DEFAULT_ROOT
    )]
    pin_root: PathBuf,

    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    pub fn pin_root(&self) -> PinRoot {
        PinRoot::new(&self.pin_root)
    }

    /// Returns whether the command draws on the whole terminal and standard error goes there too: a log would spoil what is
    /// drawn.
    pub fn owns_terminal(&self) -> bool {
        matches!(self.command, Command::Top(_)) && io::stderr().is_terminal()
    }

    /// Returns the form of the service's log; `None` for other commands.
    pub fn log(&self) -> Option<logging::Form> {
        match &self.command {
            Command::Run(args) => Some(args.log),
            _ => None,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Init(init::Args),
    Import(import::Args),
    Check(check::Args),
    Up(up::Args),
    Confirm(confirm::Args),
    Reload(reload::Args),
    Down(down::Args),
    Run(run::Args),
    Status(status::Args),
    Grants(grants::Args),
    Sources(sources::Args),
    Sessions(sessions::Args),
    Stats(stats::Args),
    Events(events::Args),
    Top(top::Args),
    Metrics(metrics::Args),
    Allow(allow::Args),
    Revoke(revoke::Args),
    Key(key::Args),
    Knock(knock::KnockArgs),
    Completions(completions::Args),
    Man(man::Args),
}

impl Command {
    /// Returns whether it looks at what is in force or changes it. `down` removes whatever there is.
    pub fn looks_at_the_datapath(&self) -> bool {
        match self {
            Self::Up(_)
            | Self::Confirm(_)
            | Self::Reload(_)
            | Self::Run(_)
            | Self::Status(_)
            | Self::Grants(_)
            | Self::Sources(_)
            | Self::Sessions(_)
            | Self::Stats(_)
            | Self::Metrics(_)
            | Self::Top(_)
            | Self::Events(_)
            | Self::Allow(_)
            | Self::Revoke(_)
            | Self::Key(_) => true,
            Self::Init(_)
            | Self::Import(_)
            | Self::Check(_)
            | Self::Down(_)
            | Self::Knock(_)
            | Self::Completions(_)
            | Self::Man(_) => false,
        }
    }
}
