//! What the metrics are made of.

use anyhow::Result;

use crate::{
    datapath::{Datapath, NothingUp, PinRoot, Snapshot},
    service,
};

/// The datapath at one moment, and whether the service runs.
#[derive(Debug)]
pub struct Reading {
    /// `None`: nothing is up.
    pub snapshot: Option<Snapshot>,
    pub is_served: bool,
}

impl Reading {
    /// Reads what is up under `root`. That nothing is up is no failure.
    ///
    /// Everything is opened anew, since another instance may have come up since the last time.
    pub fn take(root: &PinRoot) -> Result<Self> {
        let snapshot = match read(root) {
            Ok(snapshot) => Some(snapshot),
            Err(error) if error.is::<NothingUp>() => None,
            // It may have been taken down, or replaced, while it was read.
            Err(first) => match read(root) {
                Ok(snapshot) => Some(snapshot),
                Err(error) if error.is::<NothingUp>() => None,
                Err(_) => return Err(first),
            },
        };
        Ok(Self {
            snapshot,
            is_served: service::is_served(root),
        })
    }
}

fn read(root: &PinRoot) -> Result<Snapshot> {
    Datapath::look(root)?.snapshot()
}
