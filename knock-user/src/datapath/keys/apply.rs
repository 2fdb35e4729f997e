//! Puts keys into force, and asks the tables of an instance about them.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context as _, Result};
use knock_common::{grant::BY_HAND, knock::authenticated::key::KEY_USER};
use serde::{Deserialize, Serialize};

use super::{
    newest::{self, Kept, Newest},
    rows::KeyRows,
    tables::{self, KeyTables},
};
use crate::{
    config::Config,
    datapath::{Busy, open::Datapath, origin::Holder},
    keys::{Folder, KeySet},
    sys::{grace, state_directory},
};

/// Why there are no tables of keys.
const LOOKS: &str = "the tables were opened for reading alone";

/// Reads the keys of a configuration; none where no port takes authenticated knocks.
pub fn load(config: &Config) -> Result<KeySet> {
    if config.knock.ports.is_empty() {
        return Ok(KeySet::default());
    }
    Folder::open(&config.knock.keys).load()
}

/// Who has knocked. Neither a user nor a key: a grant was given by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Who {
    pub user: Option<String>,
    /// The key, where it was no sequence.
    pub key: Option<String>,
    /// The host of the fleet that has given the grant; `None`: this one.
    pub origin: Option<String>,
}

/// Looks up who numbers stand for, each once: the name of a key takes a system call.
pub struct Holders<'d> {
    datapath: &'d Datapath,
    known: HashMap<u32, Arc<Who>>,
}

impl Holders<'_> {
    /// Returns who has a grant with this number; `None`: it was given by hand.
    pub fn of(&mut self, number: Option<u32>) -> &Arc<Who> {
        let number = number.unwrap_or(BY_HAND);
        let who = || Arc::new(self.datapath.who(number));
        self.known.entry(number).or_insert_with(who)
    }
}

impl Datapath {
    pub(in crate::datapath) fn keys(&self) -> Result<&KeyTables> {
        self.keys.as_ref().context(LOOKS)
    }

    pub(in crate::datapath) fn keys_mut(&mut self) -> Result<&mut KeyTables> {
        self.keys.as_mut().context(LOOKS)
    }

    /// Puts the keys that there are now into force, and ends the grants of those that open nothing any more. `fresh`: the
    /// slots of keys that the caller has made itself, and that nobody can have used. Returns how many grants have ended.
    pub fn apply_keys(&mut self, set: &KeySet, fresh: &[u16]) -> Result<usize> {
        let rows = KeyRows::compile(set, &self.applied)?;
        self.apply_rows(&rows, fresh)
    }

    pub(super) fn apply_rows(&mut self, rows: &KeyRows, fresh: &[u16]) -> Result<usize> {
        let newest = Newest::going_on(self.config(), fresh, self.root.path());
        let of_lost = self.put_keys(rows, &newest)?;
        if !self.config().knock.ports.is_empty() {
            // A knock may be verified whose key was valid when the program looked, and give a grant.
            grace::wait();
        }
        let (grants, _) = self.end_outdated(None)?;
        Ok(of_lost + grants)
    }

    /// Makes the tables hold these keys, and ends the grants of those that are gone. Returns how many grants have ended.
    pub(in crate::datapath) fn put_keys(
        &mut self,
        rows: &KeyRows,
        newest: &Newest,
    ) -> Result<usize> {
        let lost = self.keys()?.close_all_but(rows);
        // Before the slot is emptied, and another key has it: it would have these grants, and whoever is stopped in between leaves
        // the slot to the next one.
        let ended = self.end_grants_of_keys(&lost)?;
        self.keys_mut()?.apply(rows, newest)?;
        Ok(ended)
    }

    /// Keeps the newest times while the program goes on, in case it ends with the host, and follows the host's clock.
    /// `last`: those that were kept last, by slot.
    pub fn keep_keys(&mut self, last: &mut Vec<u64>) -> Result<()> {
        if self.config().knock.ports.is_empty() {
            return Ok(());
        }
        self.keys_mut()?.follow_clock()?;
        if self.has_frozen_keys()? {
            // What was kept of them is all that is known.
            return Ok(());
        }
        // Before the names, which take a system call each. What is newer than these times is kept the next time.
        let times = self.keys()?.newest_by_slot();
        if times != *last {
            let (directory, pins) = (state_directory::path(), self.root.path());
            let before = Kept::read(&directory, pins)?;
            let kept = self.newest_times()?.with(before.clone(), 0);
            // The disk may be slow, and while it is, no command is to wait for the service.
            let synced = kept.write_beside(&directory, pins)?;
            // `down` says of the times that it keeps that they are complete, and `key reset` lowers them, which writing these after it
            // would take back. While a command is at work, they wait.
            let lock = match self.root.try_lock() {
                Ok(Some(lock)) => lock,
                Ok(None) => return Ok(()),
                Err(error) if error.is::<Busy>() => return Ok(()),
                Err(error) => return Err(error),
            };
            if !self.is_pinned()? || Kept::read(&directory, pins)? != before {
                return Ok(());
            }
            synced.replace()?;
            drop(lock);
            newest::sync(&directory)?;
            *last = times;
        }
        Ok(())
    }

    /// Returns whether a key accepts nothing because the process was killed that replaced its table.
    pub fn has_frozen_keys(&self) -> Result<bool> {
        Ok(self.keys()?.has_frozen())
    }

    /// Returns the newest times of the keys, to be kept while nothing is up.
    pub fn newest_times(&self) -> Result<Kept> {
        self.keys()?.newest()
    }

    /// Returns who a number in a grant stands for.
    pub fn who(&self, number: u32) -> Who {
        self.who_at(number, u64::MAX)
    }

    /// Returns who a number in an event of this time stands for, ns of `CLOCK_MONOTONIC`.
    pub fn who_at(&self, number: u32, time: u64) -> Who {
        let Holder { user, host } = Holder::of(number);
        let origin = self.origin(host);
        if user == BY_HAND {
            return Who {
                origin,
                ..Who::default()
            };
        }
        if user & KEY_USER == 0 {
            return Who {
                user: self.applied.user_name_at(user, time).map(ToOwned::to_owned),
                key: None,
                origin,
            };
        }
        let slot = u16::try_from(user & !KEY_USER).ok();
        let key = slot.and_then(|slot| self.key_name(slot));
        Who {
            user: key.as_deref().map(user_of).map(ToOwned::to_owned),
            key,
            origin,
        }
    }

    /// Returns what looks up the holders of many grants.
    pub fn holders(&self) -> Holders<'_> {
        Holders {
            datapath: self,
            known: HashMap::new(),
        }
    }

    /// Returns the name of the key in a slot.
    pub fn key_name(&self, slot: u16) -> Option<String> {
        tables::name(&self.key_names, slot)
    }
}

/// Returns the user of the key with this name.
pub fn user_of(name: &str) -> &str {
    name.split_once('/').map_or(name, |(user, _)| user)
}
