//! Reads events for those who want to see them: from the service, or from the kernel's ring where none reads it.

use std::time::Duration;

use anyhow::Result;

use super::{
    log::drain,
    record::Record,
    socket::{History, read_events},
};
use crate::datapath::{Datapath, NothingUp, PinRoot};

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
    let mut ring = None;
    let mut waits = false;
    loop {
        if read_events(root, history, &mut each).await? {
            if history == History::Latest {
                return Ok(());
            }
            tracing::info!("the service has ended; following the next one");
            // The service read the ring of this instance, and the next one has another.
            ring = None;
        }
        // No service: the ring is ours to read, until one starts.
        if !datapath.is_pinned()? {
            ring = None;
            match Box::pin(Datapath::open_unlocked_async(root)).await {
                Ok(next) => datapath = next,
                Err(error) if error.is::<NothingUp>() => {
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
        let ring = match &mut ring {
            Some(ring) => ring,
            none => match datapath.events() {
                Ok(events) => none.insert(events),
                // Taken down since it was looked at.
                Err(_) if !datapath.is_pinned()? => continue,
                Err(error) => return Err(error),
            },
        };
        for record in drain(ring, &datapath) {
            each(record)?;
        }
        if history == History::Latest {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
