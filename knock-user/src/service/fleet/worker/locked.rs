//! The lock of the tables, which a command may have.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::{
    select,
    time::{Instant, sleep},
};

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
                    self.was_locked_out |= is_reported;
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
            // The command may be one that revokes: what was asked for before it is known as such.
            self.hold_left()?;
            sleep(BETWEEN).await;
        }
    }

    /// Hears the next of what has come while the tables were locked. When that is all, this host knows what the others know, unless
    /// the link was lost meanwhile.
    pub(super) async fn come_back(&mut self) -> Result<()> {
        let message = select! {
            biased;
            message = self.engine.next() => Some(message),
            // The link goes on meanwhile.
            () = sleep(BETWEEN) => None,
        };
        if let Some(message) = message {
            return self.hear(message).await;
        }
        self.was_locked_out = false;
        if self.state.is_current() {
            self.joined();
        }
        Ok(())
    }
}
