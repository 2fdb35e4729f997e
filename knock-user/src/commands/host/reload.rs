//! `knockgate reload`.

use std::path::Path;

use anyhow::Result;

use super::up;
use crate::{
    datapath::{self, PinRoot},
    sys::links,
};

/// Apply the configuration file to what is up, in place
///
/// A file that does not pass `check` is refused, and what is in force stays. No packet is let through or lost, and grants,
/// sessions and progress that still apply live on.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Go on even if this cuts off the SSH session that gives the command
    #[arg(long)]
    anyway: bool,

    /// Replace the program alone, after an upgrade: the configuration that is in force stays, whatever the file says
    #[arg(long)]
    program: bool,
}

pub fn run(args: &Args, config: &Path, root: &PinRoot) -> Result<()> {
    let Args { anyway, program } = args;
    let session = up::session(*anyway);
    let (config, up) = if *program {
        datapath::replace_program(root, session.as_ref())?
    } else {
        datapath::reload(root, session.as_ref(), |named| {
            up::load(config, named.unwrap_or_default())
        })?
    };
    up::report(&config, &up);
    // One that is not there is guarded when it comes, by the service or the next `up`.
    let is_there = |name: &str| links::index_of(name).is_some();
    let (failed, awaited) = up.failed.into_iter().partition(|(name, _)| is_there(name));
    for (name, error) in awaited {
        tracing::warn!("{name}: {error:#}");
    }
    up::all_guarded(failed)
}
