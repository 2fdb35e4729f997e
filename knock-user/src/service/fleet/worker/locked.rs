//! The lock of the tables, which a command may have.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::{
    select,
    time::{Instant, sleep, sleep_until},
};

use super::{PATIENCE, Worker};
use crate::{
    datapath::{Busy, Lock, NothingUp},
    fleet::engine::{Engine, Message},
};

/// How long a command may keep the tables locked.
const LOCKED: Duration = Duration::from_mins(1);
/// Between two attempts to lock them.
const BETWEEN: Duration = Duration::from_millis(20);
/// After so long a host has heard what had come while it was locked out: a busy fleet is never silent.
const BEHIND: Duration = Duration::from_secs(2);

/// A host that was isolated by a command that kept the tables locked, and is not any more. What had come by then is heard first,
/// which may be that the link was lost.
#[derive(Debug, Clone, Copy)]
pub struct Behind {
    /// That was all, if nothing has come until then.
    pub quiet: Instant,
    latest: Instant,
}

impl Behind {
    fn since(now: Instant) -> Self {
        Self {
            quiet: now + BETWEEN,
            latest: now + BEHIND,
        }
    }

    /// Notes that a message has been heard. Returns whether there may be more that came while the tables were locked.
    fn goes_on(&mut self, now: Instant) -> bool {
        self.quiet = now + BETWEEN;
        now < self.latest
    }
}

/// Waits for the next message; `None`: none has come until `quiet`.
pub async fn next_until<E: Engine>(engine: &mut E, quiet: Option<Instant>) -> Option<Message> {
    let quiet = async {
        match quiet {
            Some(quiet) => sleep_until(quiet).await,
            None => std::future::pending().await,
        }
    };
    select! {
        // One that waits is heard, however late it is.
        biased;
        message = engine.next() => Some(message),
        () = quiet => None,
    }
}

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
                    if is_reported {
                        self.behind = Some(Behind::since(Instant::now()));
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
            // The command may be one that revokes: what was asked for before it is known as such.
            self.hold_left()?;
            sleep(BETWEEN).await;
        }
    }

    /// Hears a message; `None`: all that had come while the tables were locked has been heard. Then this host knows what the others
    /// know, unless the link was lost meanwhile.
    pub(super) async fn hear_next(&mut self, message: Option<Message>) -> Result<()> {
        let is_told = message.is_some();
        if let Some(message) = message {
            self.hear(message).await?;
        }
        let goes_on = |behind: &mut Behind| is_told && behind.goes_on(Instant::now());
        if self.behind.take_if(|behind| !goes_on(behind)).is_some() && self.state.is_current() {
            self.joined();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::engine::Write;

    /// Tells something again and again.
    struct Teller {
        every: Duration,
        left: u32,
    }

    impl Engine for Teller {
        async fn next(&mut self) -> Message {
            if self.left == 0 {
                std::future::pending::<()>().await;
            }
            sleep(self.every).await;
            self.left -= 1;
            Message::Changed(Vec::new())
        }

        fn write(&mut self, _: Write) -> bool {
            false
        }

        fn begin_anew(&mut self, _: &str) {}
    }

    /// Returns for how long a host hears what had come, and how many messages.
    async fn heard(every: u64, left: u32) -> (Duration, u32) {
        let begun = Instant::now();
        let mut engine = Teller {
            every: Duration::from_millis(every),
            left,
        };
        let mut behind = Behind::since(begun);
        let mut messages = 0;
        while next_until(&mut engine, Some(behind.quiet)).await.is_some() {
            messages += 1;
            if !behind.goes_on(Instant::now()) {
                break;
            }
        }
        (begun.elapsed(), messages)
    }

    #[tokio::test(start_paused = true)]
    async fn what_had_come_is_heard_until_nothing_comes_or_for_a_while() {
        let milliseconds = Duration::from_millis;
        assert_eq!(heard(5, 0).await, (BETWEEN, 0));
        assert_eq!(heard(5, 3).await, (milliseconds(15) + BETWEEN, 3));
        // One that has come by now is heard first.
        assert_eq!(heard(0, 3).await.1, 3);
        // A busy fleet.
        assert_eq!(heard(5, u32::MAX).await, (BEHIND, 400));
    }
}
