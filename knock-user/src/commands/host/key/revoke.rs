//! `knockgate key revoke`.

use anyhow::{Context as _, Result};

use super::{Store, gates_of, make::now, no_such_key};
use crate::{
    config::count,
    datapath::{Datapath, NothingUp},
    keys::KeyName,
};

/// End a key for good, and the grants that it gave, with their sessions
///
/// Every key of the name ends, also one that was replaced and still works, and one that has expired: what it has opened ends too.
/// A session whose grant has ended already goes on.
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
    let own: Vec<String> = change
        .set
        .named(name)
        .flat_map(|key| key.gates.clone())
        .collect();
    let mut ended = 0;
    for key in change.set.keys.iter_mut().filter(|key| key.name == *name) {
        // Also one that has expired: what it has opened may be open still.
        ended += usize::from(key.revoke(since));
    }
    if ended != 0 {
        change.lock.save(name, &change.set.newest_first(name))?;
    }
    // Also where they all were revoked before: a command that was stopped has not put that into force.
    change.put_into_force(&[]).context(
        "the key is revoked, but this is not in force yet, and it still opens gates: give this command again",
    )?;
    if ended == 0 {
        tracing::info!("key {name} was revoked already");
    } else {
        tracing::info!("revoked {} of {name}", count(ended, "key"));
    }
    warn_of_outlived(store, name, &own);
    Ok(())
}

/// Warns of sessions that may be those of a key that was revoked, and go on. A session does not say who began it: its grant does,
/// while there is one. `own`: the gates in the key's own file.
pub(super) fn warn_of_outlived(store: &Store<'_>, name: &KeyName, own: &[String]) {
    let gates = gates_of(store.config, name, own);
    let outlived = Datapath::look(store.root).and_then(|datapath| datapath.count_outlived(&gates));
    match outlived {
        Ok(0) => {}
        Ok(outlived) => tracing::warn!(
            "{} at {} {} on past grants that have ended, so whose they are is not known: `knockgate sessions` lists \
             them, `knockgate revoke ADDRESS` ends those of a source",
            count(outlived, "session"),
            gates.join(", "),
            if outlived == 1 { "goes" } else { "go" },
        ),
        Err(error) if error.is::<NothingUp>() => {}
        Err(error) => tracing::warn!("cannot tell whether sessions of the key go on: {error:#}"),
    }
}
