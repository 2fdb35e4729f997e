//! What the metrics are made of.

use anyhow::Result;

use crate::{
    datapath::{Datapath, NothingUp, PinRoot, Snapshot},
    service::{self, fleet::Counted},
};

/// The datapath at one moment, and what the service adds.
#[derive(Debug)]
pub struct Reading {
    /// `None`: nothing is up.
    pub snapshot: Option<Snapshot>,
    /// `None`: this user may not know.
    pub is_served: Option<bool>,
    /// Runs of hooks that have failed, by reason; empty where the service does not tell.
    pub hook_failures: Vec<(&'static str, u64)>,
    /// `None` where there is no fleet, or the service does not tell.
    pub fleet: Option<Counted>,
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
            hook_failures: Vec::new(),
            fleet: None,
        })
    }

    /// Adds what the service alone knows.
    #[must_use]
    pub fn of_service(
        self,
        hook_failures: Vec<(&'static str, u64)>,
        fleet: Option<Counted>,
    ) -> Self {
        Self {
            hook_failures,
            fleet,
            ..self
        }
    }
}

fn read(root: &PinRoot) -> Result<Snapshot> {
    Datapath::look(root)?.snapshot()
}
