//! The lock of the tables, which a command may have.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, Worker};
use crate::{
    datapath::{Busy, Lock, NothingUp},
    fleet::engine::Engine,
};

/// How long a command may keep the tables locked.
const LOCKED: Duration = Duration::from_mins(1);
/// Between two attempts to lock them.
const BETWEEN: Duration = Duration::from_millis(20);

impl<E: Engine> Worker<E> {
    /// Has what is decided by stay in force while the tables are changed.
    pub(super) async fn lock(&mut self) -> Result<Lock> {
        let lock = self.locked().await?;
        if !self.datapath.is_pinned()? {
            return Err(anyhow!(NothingUp));
        }
        if let Some(reopened) = self.datapath.reopened()? {
            self.take_over(reopened)?;
        } else {
            // A command may have removed a key since they were read.
            self.has_other_rules |= self.rules.read_keys(&self.datapath)?;
        }
        Ok(lock)
    }

    /// Waits for the lock as long as a command may have it. The link to the engine goes on meanwhile; this host is isolated as
    /// well, as it does nothing of what it is told.
    async fn locked(&mut self) -> Result<Lock> {
        let begun = Instant::now();
        let mut is_reported = false;
        loop {
            match self.root.try_lock() {
                Ok(Some(lock)) => {
                    if is_reported && self.state.is_current() {
                        self.joined();
                    }
                    return Ok(lock);
                }
                Ok(None) => return Err(anyhow!(NothingUp)),
                Err(error) if !error.is::<Busy>() => return Err(error),
                Err(error) => {
                    if begun.elapsed() >= LOCKED || self.stopped.has_come() {
                        return Err(error);
                    }
                    if !is_reported && begun.elapsed() >= PATIENCE {
                        is_reported = true;
                        self.isolated(&format!("{error:#}"));
                    }
                }
            }
            sleep(BETWEEN).await;
        }
    }
}
