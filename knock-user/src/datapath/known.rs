//! What is known of an instance by the tables that say what it is, whatever other pins somebody has removed.

use std::path::Path;

use anyhow::Result;

use super::{
    compile::applied::{Applied, Trial},
    error::NothingUp,
    install::pins::{
        directory::{self, Directory, Holds},
        root::PinRoot,
    },
    open,
    tables::{self, Access, PinDirectory},
    trial::{self, TrialState},
};

/// Returns whether what is pinned in these directories is or was on trial, as far as anything says it: the configuration, or the end
/// that has been set. `false` as well where both are gone.
pub(super) fn may_be_on_trial(directories: &[Directory]) -> bool {
    directories.iter().any(|of| {
        let is_one = |applied: Applied| applied.circumstances.trial.is_some();
        match deadline(&of.path) {
            Ok(end) => end != 0,
            Err(_) => open::applied(&of.path).is_ok_and(is_one),
        }
    })
}

/// Reads when the trial of what is pinned in a directory ends, ns of `CLOCK_MONOTONIC`; 0: it is on none.
fn deadline(directory: &Path) -> Result<u64> {
    let pins = PinDirectory {
        path: directory.to_owned(),
        access: Access::Change,
    };
    Ok(tables::DEADLINE.open(&pins)?.get(&0, 0)?)
}

/// An instance without its other tables.
pub struct Known {
    /// As in [`Datapath`](super::Datapath).
    pub since: u64,
    pub generation: u32,
    pub applied: Applied,
    pub trial: TrialState,
}

impl Known {
    /// Reads what is pinned under `root`, for those who do not hold its lock. Fails with [`NothingUp`].
    pub fn look(root: &PinRoot) -> Result<Self> {
        open::settled(|| root.lock_existing(), || Self::of(&root.directories()?))
    }

    /// Reads what is pinned in these directories, from the first of the instance that says it.
    pub(super) fn of(directories: &[Directory]) -> Result<Self> {
        let mut failed = None;
        for directory in directories.iter().filter(|of| of.holds == Holds::Instance) {
            match Self::read(&directory.path) {
                Err(error) => failed = failed.or(Some(error)),
                known => return known,
            }
        }
        Err(failed.unwrap_or_else(|| NothingUp.into()))
    }

    fn read(directory: &Path) -> Result<Self> {
        let meta = directory::meta(directory)?;
        let applied = open::applied(directory)?;
        let trial = if applied.circumstances.trial.is_some() {
            trial::state(&applied, deadline(directory)?)
        } else {
            TrialState::None
        };
        Ok(Self {
            since: meta.since,
            generation: meta.generation,
            applied,
            trial,
        })
    }

    /// Returns what a trial that begins now returns to.
    pub(super) fn before_trial(&self) -> Trial {
        trial::before(&self.applied, self.trial)
    }
}
