//! Keys for authenticated knocks in the kernel's tables.

mod newest;
mod rows;
mod tables;

pub use newest::{Kept, Newest};
pub use rows::KeyRows;
pub use tables::KeyTables;

use anyhow::Result;

use super::{install::pins::root::PinRoot, open::Datapath};
use crate::{
    config::Config,
    keys::{Folder, KeySet},
};

/// Reads the keys of a configuration; none where no port takes authenticated knocks.
pub fn load(config: &Config) -> Result<KeySet> {
    if config.knock.ports.is_empty() {
        return Ok(KeySet::default());
    }
    Folder::open(&config.knock.keys).load()
}

impl Datapath {
    /// Puts the keys that there are now into force, and ends the grants of those that open nothing any more. Returns how many
    /// grants have ended.
    pub fn apply_keys(&mut self, set: &KeySet) -> Result<usize> {
        let rows = KeyRows::compile(set, &self.applied)?;
        self.keys.apply(&rows, &Newest::running(self.config()))?;
        let (grants, _) = self.end_outdated(None)?;
        Ok(grants)
    }

    /// Returns the newest times of the keys, to be kept while nothing is up.
    pub fn newest_times(&self) -> Result<Kept> {
        self.keys.newest()
    }

    /// Returns the name of the key in a slot.
    pub fn key_name(&self, slot: u16) -> Option<String> {
        self.keys.name(slot)
    }
}

/// Puts the keys of the configuration in force under `root` into force. Returns how many grants have ended; `None` where
/// nothing is up.
pub fn put_into_force(root: &PinRoot) -> Result<Option<usize>> {
    use super::error::NothingUp;

    let _lock = match root.lock_existing()? {
        Some(lock) => lock,
        None => return Ok(None),
    };
    let mut datapath = match Datapath::open(root) {
        Ok(datapath) => datapath,
        Err(error) if error.is::<NothingUp>() => return Ok(None),
        Err(error) => return Err(error),
    };
    let set = load(datapath.config())?;
    datapath.apply_keys(&set).map(Some)
}
