//! Reads events for those who want to see them: from the service, or from the kernel's ring where none reads it.

use std::time::Duration;

use anyhow::Result;

use super::{
    log::drain,
    record::Record,
    socket::{History, is_served, read_events},
};
use crate::datapath::{Busy, Datapath, NothingUp, PinRoot};

/// How often the ring is looked into where no service does.
const PAUSE: Duration = Duration::from_millis(200);

/// Calls `each` with every event, oldest first. With [`History::Follow`] goes on with new ones, of the next service or
/// instance too, and ends only where `each` fails.
pub async fn each_event(
    root: &PinRoot,
    history: History,
    mut each: impl FnMut(Record) -> Result<()>,
) -> Result<()> {
    let mut datapath = Box::pin(Datapath::open_unlocked_async(root)).await?;
    let mut waits = false;
    loop {
        if read_events(root, history, &mut each).await? {
            if history == History::Latest {
                return Ok(());
            }
            tracing::info!("the service has ended; following the next one");
        }
        if !datapath.is_pinned()? {
            match Box::pin(Datapath::open_unlocked_async(root)).await {
                Ok(next) => datapath = next,
                Err(error) if history == History::Follow && error.is::<NothingUp>() => {
                    if !waits {
                        tracing::warn!("{error}; following the next one");
                    }
                    waits = true;
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        waits = false;
        if let Some(records) = read_ring(root, history, &mut datapath)? {
            for record in records {
                each(record)?;
            }
            if history == History::Latest {
                return Ok(());
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Takes the events out of the ring; `None` where that is not possible now: a service reads it, a command is at work that
/// [`History::Follow`] does not wait for, or it has been taken down.
///
/// One reader at a time, since it is the reader that says in the ring up to where it may be filled again. Each opens it anew and so
/// begins where the last one has ended. One that kept its place would read what has been written over since, and set back all
/// others; then the kernel finds no room, and leaves out every event.
fn read_ring(
    root: &PinRoot,
    history: History,
    datapath: &mut Datapath,
) -> Result<Option<Vec<Record>>> {
    let lock = match history {
        History::Latest => root.lock_existing(),
        History::Follow => root.try_lock(),
    };
    let _lock = match lock {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(None),
        Err(error) if history == History::Follow && error.is::<Busy>() => return Ok(None),
        Err(error) => return Err(error),
    };
    // A service that can be connected to later opens the ring under the lock, too.
    if is_served(root) == Some(true) || !datapath.is_pinned()? {
        return Ok(None);
    }
    if let Some(reopened) = datapath.reopened()? {
        *datapath = reopened;
    }
    Ok(Some(drain(&mut datapath.events()?, datapath)))
}
