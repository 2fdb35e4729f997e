//! `knockgate key reset`.

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::{Store, no_such_key};
use crate::keys::KeyName;

/// Let a key open gates again after this host's clock was set back
///
/// Each packet of a key must be newer than all before it. Where the clock was ahead, the newest one lies in the future, and the
/// key opens nothing until then. What was sent while the clock was ahead, and captured, could be used once more afterwards:
/// `knockgate key rotate` makes another key in its place, which is safe. Refuses where the newest packet is not ahead.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Name of the key
    #[arg(value_name = "USER[/DEVICE]")]
    name: KeyName,
}

pub(super) fn run(args: &Args, store: &Store<'_>) -> Result<()> {
    let change = store.change()?;
    let name = &args.name;
    let now = Timestamp::now();
    let usable = change
        .set
        .named(name)
        .filter(|key| key.ended(now).is_none());
    let slots: Vec<u16> = usable.map(|key| key.slot).collect();
    if slots.is_empty() {
        if change.set.named(name).next().is_some() {
            bail!("key {name} has ended: `knockgate key rotate {name}` makes another one");
        }
        return Err(no_such_key(name, &change.set));
    }
    let max_ahead = store.config.knock.max_ahead;
    let reset = change.held.reset(&name.to_string(), &slots, max_ahead)?;
    if reset == 0 {
        bail!("key {name} waits for nothing: its newest packet is not ahead of this host's clock");
    }
    tracing::warn!(
        "key {name} opens gates again; what was sent with it while this host's clock was ahead, and captured, could be used \
         once more: `knockgate key rotate {name}` is the safe way"
    );
    Ok(())
}
