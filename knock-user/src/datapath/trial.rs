//! Configurations on trial (`up --try`). The deadline is in a table of the program, which passes every packet from then on, so
//! it holds whatever becomes of the processes.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{compile::applied::Trial, open::Datapath};
use crate::{config::Config, sys::clock::monotonic_now, values::HumanDuration};

/// How the trial of the configuration in force stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialState {
    /// It is on no trial, or has been confirmed.
    None,
    /// It goes on for this long.
    Left(Duration),
    /// It has ended, and every packet passes.
    Lapsed,
}

/// What has become of a trial by `confirm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// It is permanent now.
    Now,
    /// It was permanent before.
    Before,
    /// There was none.
    Never,
}

impl Datapath {
    /// Returns how its trial stands.
    pub fn trial(&self) -> Result<TrialState> {
        if self.applied.circumstances.trial.is_none() {
            return Ok(TrialState::None);
        }
        Ok(match self.deadline.get(&0, 0)? {
            0 => TrialState::None,
            deadline => match deadline.checked_sub(monotonic_now()) {
                None | Some(0) => TrialState::Lapsed,
                Some(left) => TrialState::Left(Duration::from_nanos(left)),
            },
        })
    }

    /// Makes a trial permanent. Fails where it has lapsed.
    pub fn confirm(&mut self) -> Result<Confirmed> {
        match self.trial()? {
            TrialState::None if self.applied.circumstances.trial.is_some() => Ok(Confirmed::Before),
            TrialState::None => Ok(Confirmed::Never),
            TrialState::Lapsed => bail!(
                "the trial has ended, and every packet passes; bring the gates up again with `knockgate up`"
            ),
            TrialState::Left(_) => {
                self.deadline.set(0, 0, 0)?;
                Ok(Confirmed::Now)
            }
        }
    }

    /// Returns the configuration that it returns to when its trial ends; `None` where it is on no trial, or came up with it.
    pub fn returns_to(&self) -> Result<Option<&Config>> {
        if self.trial()? == TrialState::None {
            return Ok(None);
        }
        let trial = self.applied.circumstances.trial.as_ref();
        let previous = trial.and_then(|trial| trial.previous.as_ref());
        Ok(previous.map(|(config, _)| config))
    }

    /// Returns what a trial that begins now returns to: what is in force, or what that would return to itself.
    pub(super) fn before_trial(&self) -> Result<Trial> {
        if self.trial()? != TrialState::None
            && let Some(trial) = &self.applied.circumstances.trial
        {
            return Ok(trial.clone());
        }
        Ok(Trial {
            previous: Some((
                self.config().clone(),
                self.applied.circumstances.named_interfaces,
            )),
        })
    }
}

/// Returns what to say of a trial in progress.
pub fn reminder(left: Duration) -> String {
    let left = Duration::from_secs(left.as_secs().max(1));
    format!(
        "on trial for {}: `knockgate confirm` makes it permanent",
        HumanDuration(left)
    )
}
