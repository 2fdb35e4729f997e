//! `knockgate confirm`.

use anyhow::{Result, bail};

use crate::datapath::{Confirmed, Datapath, NothingUp, PinRoot};

/// Make what `up --try` brought up permanent
#[derive(Debug, Clone, clap::Args)]
pub struct Args {}

/// `has_returned`: the trial had ended, and the configuration before it has been put into force again right now.
pub fn run(root: &PinRoot, has_returned: bool) -> Result<()> {
    if has_returned {
        bail!(
            "too late: the trial has ended, and the configuration from before it is in force again"
        );
    }
    let Some(_lock) = root.lock_existing()? else {
        return Err(NothingUp.into());
    };
    match Datapath::open(root)?.confirm()? {
        Confirmed::Now => tracing::info!("confirmed: it stays up"),
        Confirmed::Before => {
            tracing::info!("what is up is on no trial any more: it has been confirmed");
        }
        // The service may have returned from one that had ended.
        Confirmed::Never => bail!("what is up is on no trial: nothing to confirm"),
    }
    Ok(())
}
