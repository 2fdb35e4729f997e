//! The options and commands of a host.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use anyhow::Result;
use clap::{Args, Subcommand};

#[cfg(feature = "fleet")]
use crate::commands::host::fleet;
use crate::{
    commands::host::{
        allow, check, confirm, down, events, grants, import, init, key, metrics, reload, revoke,
        run, sessions, sources, stats, status, top, up,
    },
    config::DEFAULT_PATH,
    datapath::{DEFAULT_ROOT, PinRoot},
    logging,
};

#[derive(Debug, Args)]
pub struct Options {
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
}

impl Options {
    pub fn pin_root(&self) -> PinRoot {
        PinRoot::new(&self.pin_root)
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
    #[cfg(feature = "fleet")]
    Fleet(fleet::Args),
}

impl Command {
    /// Begins to log: the service in the form that it was given, `top` not at all where standard error is the terminal on
    /// which it draws.
    pub(super) fn begin_log(&self) -> Result<()> {
        match self {
            Self::Run(args) => return logging::service::begin(args.log),
            Self::Top(_) if io::stderr().is_terminal() => {}
            _ => logging::for_people(),
        }
        Ok(())
    }

    /// Returns whether it changes nothing.
    pub(super) fn only_prints(&self) -> bool {
        match self {
            Self::Import(_)
            | Self::Check(_)
            | Self::Status(_)
            | Self::Grants(_)
            | Self::Sources(_)
            | Self::Sessions(_)
            | Self::Stats(_)
            | Self::Events(_)
            | Self::Top(_)
            | Self::Metrics(_) => true,
            Self::Init(_)
            | Self::Up(_)
            | Self::Confirm(_)
            | Self::Reload(_)
            | Self::Down(_)
            | Self::Run(_)
            | Self::Allow(_)
            | Self::Revoke(_) => false,
            Self::Key(args) => args.only_prints(),
            #[cfg(feature = "fleet")]
            Self::Fleet(args) => args.only_prints(),
        }
    }

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
            Self::Init(_) | Self::Import(_) | Self::Check(_) | Self::Down(_) => false,
            #[cfg(feature = "fleet")]
            Self::Fleet(_) => false,
        }
    }
}
