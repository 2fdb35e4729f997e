//! `knockgate key revoke`.

use anyhow::{Context as _, Result};

use super::{Store, make::now, no_such_key};
use crate::{config::count, keys::KeyName};

/// End a key for good, and the grants that it gave
///
/// Every key of the name ends, also one that was replaced and still works, and one that has expired: what it has opened ends too.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Name of the key
    #[arg(value_name = "USER[/DEVICE]")]
    name: KeyName,
}

pub(super) fn run(args: &Args, store: &Store<'_>) -> Result<()> {
    let mut change = store.change()?;
    let name = &args.name;
    let since = now();
    if change.set.named(name).next().is_none() {
        return Err(no_such_key(name, &change.set));
    }
    let mut ended = 0;
    for key in change.set.keys.iter_mut().filter(|key| key.name == *name) {
        // Also one that has expired: what it has opened may be open still.
        ended += usize::from(key.revoke(since));
    }
    if ended != 0 {
        change.lock.save(name, &change.set.newest_first(name))?;
    }
    // Also where they all were revoked before: a command that was stopped has not put that into force.
    change.put_into_force().context(
        "the key is revoked, but this is not in force yet, and it still opens gates: give this command again",
    )?;
    if ended == 0 {
        tracing::info!("key {name} was revoked already");
    } else {
        tracing::info!("revoked {} of {name}", count(ended, "key"));
    }
    Ok(())
}
