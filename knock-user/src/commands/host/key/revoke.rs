//! `knockgate key revoke`.

use anyhow::{Context as _, Result};

use super::{Store, make::now, no_such_key};
use crate::{
    config::count,
    keys::{HostKey, KeyName, KeyState},
};

/// End a key for good, and the grants that it gave
///
/// Every key of the name ends, also one that was replaced and still works.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Name of the key
    #[arg(value_name = "USER[/DEVICE]")]
    name: KeyName,
}

pub(super) fn run(args: &Args, store: &Store<'_>) -> Result<()> {
    let (lock, set) = store.change()?;
    let name = &args.name;
    let since = now();
    let mut keys: Vec<HostKey> = set.named(name).cloned().collect();
    if keys.is_empty() {
        return Err(no_such_key(name, &set));
    }
    keys.sort_by_key(|key| (key.replaced, std::cmp::Reverse(key.created)));
    let mut ended = 0;
    for key in keys.iter_mut().filter(|key| key.ended(since).is_none()) {
        key.state = KeyState::Revoked { since };
        ended += 1;
    }
    if ended == 0 {
        tracing::info!("key {name} has ended already");
        return Ok(());
    }
    lock.save(name, &keys)?;
    store
        .put_into_force(&lock)
        .context("the key is revoked, but this is not in force yet: it still opens gates")?;
    tracing::info!("revoked {} of {name}", count(ended, "key"));
    Ok(())
}
