//! `knockgate confirm`.

use anyhow::Result;

use crate::datapath::{Datapath, NothingUp, PinRoot};

/// Make what `up --try` brought up permanent
#[derive(Debug, Clone, clap::Args)]
pub struct Args {}

pub fn run(root: &PinRoot) -> Result<()> {
    let Some(_lock) = root.lock_existing()? else {
        return Err(NothingUp.into());
    };
    if Datapath::open(root)?.confirm()? {
        tracing::info!("confirmed: it stays up");
    } else {
        tracing::info!("what is up is on no trial: nothing to confirm");
    }
    Ok(())
}
