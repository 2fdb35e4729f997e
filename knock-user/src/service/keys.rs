//! Keeps the newest times of keys, and puts keys into force that could not be used before.

use anyhow::{Error, Result};
use tokio::time::Instant;

use super::complaint::Complaint;
use crate::datapath::Datapath;

/// Least time between two readings of the folder of keys, as a multiple of what one takes.
const SHARE: u32 = 50;

/// What was done about keys last.
pub struct Keys {
    /// The newest times that were written down.
    newest_times: Vec<u64>,
    /// What was said of times that could not be.
    unkept: Complaint,
    /// Some keys may not be in force that could be.
    is_due: bool,
    next_try: Instant,
    /// What was said of keys that cannot be used.
    unused: Complaint,
}

impl Keys {
    /// `unused`: why some keys could not be used when the program came up, which has been said.
    pub fn new(unused: Option<&Error>) -> Self {
        let mut said = Complaint::default();
        if let Some(error) = unused {
            said.about(error);
        }
        Self {
            newest_times: Vec::new(),
            unkept: Complaint::default(),
            is_due: unused.is_some(),
            next_try: Instant::now(),
            unused: said,
        }
    }

    /// Another configuration is in force, perhaps without keys, since a trial may have ended; or one has been undone, with its keys.
    pub fn may_be_others(&mut self) {
        self.is_due = true;
    }

    /// Keeps the newest times. What keeps them from being written is reported once, and tried again the next time.
    pub fn keep(&mut self, datapath: &mut Datapath) {
        if let Err(error) = datapath.keep_keys(&mut self.newest_times) {
            if let Some(error) = self.unkept.about(&error) {
                tracing::warn!("{error}");
            }
        } else {
            self.unkept.settle();
        }
    }

    /// Puts keys into force that could not be used before.
    pub fn retry(&mut self, datapath: &mut Datapath) -> Result<()> {
        let is_due = self.is_due || datapath.has_frozen_keys()?;
        let begun = Instant::now();
        if !is_due || begun < self.next_try {
            return Ok(());
        }
        let tried = datapath.retry_keys();
        self.next_try = begun + begun.elapsed() * SHARE;
        match tried {
            Ok(is_done) => {
                self.is_due = !is_done;
                if is_done {
                    self.unused.settle();
                }
            }
            Err(error) => {
                self.is_due = true;
                if let Some(error) = self.unused.about(&error) {
                    tracing::error!("{error}");
                }
            }
        }
        Ok(())
    }
}
