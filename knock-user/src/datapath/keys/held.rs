//! What is up, kept as it is while its keys change.

use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};

use super::{newest::Kept, rows::KeyRows};
use crate::{
    datapath::{
        error::NothingUp,
        install::pins::{lock::Lock, root::PinRoot},
        open::Datapath,
    },
    keys::{KeySet, newest_after_reset},
    sys::state_directory,
};

/// What is up under a root, if anything is. No other command changes it until this is dropped.
pub struct Held {
    root: PinRoot,
    datapath: Option<Datapath>,
    /// `None`: there is no root, and nothing keeps another command from bringing something up.
    lock: Option<Lock>,
}

impl Held {
    /// # Errors
    /// Where what is up may not be opened, or another version has brought it up.
    pub fn of(root: &PinRoot) -> Result<Self> {
        let lock = root.lock_existing()?;
        let datapath = match lock.as_ref().map(|_| Datapath::open(root)).transpose() {
            Err(error) if error.is::<NothingUp>() => None,
            opened => opened?,
        };
        Ok(Self {
            root: root.clone(),
            datapath,
            lock,
        })
    }

    /// As [`Held::of`], now: something may have come up meanwhile.
    pub fn again(self) -> Result<Self> {
        if self.lock.is_some() {
            return Ok(self);
        }
        Self::of(&self.root)
    }

    /// Returns what is up; `None` where nothing is.
    pub fn datapath(&self) -> Option<&Datapath> {
        self.datapath.as_ref()
    }

    /// Refuses keys that cannot be put into force.
    pub fn require_fit(&self, set: &KeySet) -> Result<()> {
        match self.takes_knocks() {
            Some(datapath) => KeyRows::compile(set, &datapath.applied).map(drop),
            None => Ok(()),
        }
    }

    /// Puts these keys into force, as far as they fit: none keeps another from being revoked. `fresh`: the slots of those that the
    /// command has made itself. Returns how many grants have ended.
    pub fn apply(&mut self, set: &KeySet, fresh: &[u16]) -> Result<usize> {
        if self.takes_knocks().is_none() {
            return Ok(0);
        }
        let Some(datapath) = &mut self.datapath else {
            return Ok(0);
        };
        let (rows, unfit) = KeyRows::of_fitting(set, &datapath.applied);
        for error in unfit {
            tracing::warn!("{error:#}");
        }
        datapath.apply_rows(&rows, fresh)
    }

    /// Without ports, there are no tables for keys.
    fn takes_knocks(&self) -> Option<&Datapath> {
        let datapath = self.datapath.as_ref();
        datapath.filter(|datapath| !datapath.config().knock.ports.is_empty())
    }

    /// Sets the newest time of the keys with this name in these slots to the latest that a knock can have now, where it is
    /// later: while the program is up, in its table, or else in what is kept. Returns how many were later.
    pub fn reset(&self, name: &str, slots: &[u16], max_ahead: Duration) -> Result<usize> {
        let now = Timestamp::now();
        let max_ahead = SignedDuration::try_from(max_ahead)?;
        let latest = |newest: u64| {
            let newest = Timestamp::from_nanosecond(newest.into()).unwrap_or(Timestamp::MAX);
            newest_after_reset(newest, now, max_ahead)
                .and_then(|latest| u64::try_from(latest.as_nanosecond()).ok())
        };
        let (directory, pins) = (state_directory::path(), self.root.path());
        let mut count = 0;
        let Some(datapath) = &self.datapath else {
            let mut kept = Kept::read(&directory, pins)?;
            let times = kept.keys.entry(name.to_owned()).or_default();
            for (_, newest) in times.iter_mut().filter(|(slot, _)| slots.contains(slot)) {
                if let Some(latest) = latest(*newest) {
                    *newest = latest;
                    count += 1;
                }
            }
            if count != 0 {
                kept.write(&directory, pins)?;
            }
            return Ok(count);
        };
        let keys = datapath.keys()?;
        for slot in slots {
            if let Some(latest) = keys.newest_of(*slot).and_then(latest) {
                keys.lower_newest(*slot, latest);
                count += 1;
            }
        }
        // Or what is kept would bring the later time back after a crash.
        let kept = datapath.newest_times()?;
        kept.with(Kept::read(&directory, pins)?, 0)
            .write(&directory, pins)?;
        Ok(count)
    }
}
