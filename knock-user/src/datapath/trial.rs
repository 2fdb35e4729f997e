//! Configurations on trial (`up --try`). The deadline is in a table of the program, which passes every packet from then on, so
//! it holds whatever becomes of the processes.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{
    compile::applied::{Applied, Circumstances, Trial},
    open::Datapath,
};
use crate::{config::Config, sys::clock::monotonic_now, values::HumanDuration};

/// What is said of a trial that has ended where nothing was up before.
pub const LAPSED: &str =
    "the trial has ended, and every packet passes: `knockgate up` brings the gates up again";

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
        Ok(state(&self.applied, self.deadline.get(&0, 0)?))
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

    /// Returns what a trial that begins now returns to.
    pub(super) fn before_trial(&self) -> Result<Trial> {
        Ok(before(&self.applied, self.trial()?))
    }
}

/// Returns how the trial of what is in force stands. `deadline`: what the table says, ns of `CLOCK_MONOTONIC`.
pub(super) fn state(applied: &Applied, deadline: u64) -> TrialState {
    if applied.circumstances.trial.is_none() || deadline == 0 {
        return TrialState::None;
    }
    match deadline.checked_sub(monotonic_now()) {
        None | Some(0) => TrialState::Lapsed,
        Some(left) => TrialState::Left(Duration::from_nanos(left)),
    }
}

/// Returns what a trial that begins now returns to: what is in force, or what that would return to itself.
pub(super) fn before(applied: &Applied, state: TrialState) -> Trial {
    let Circumstances {
        trial,
        named_interfaces,
        ..
    } = &applied.circumstances;
    match trial {
        Some(trial) if state != TrialState::None => trial.clone(),
        _ => Trial {
            previous: Some((applied.config.clone(), *named_interfaces)),
        },
    }
}

/// Returns what to say of a trial in progress.
pub fn reminder(left: Duration) -> String {
    let left = shown(left);
    format!("on trial for {left}: `knockgate confirm` makes it permanent")
}

/// Returns the time that is left of a trial, as it is said.
pub(super) fn shown(left: Duration) -> HumanDuration {
    HumanDuration(Duration::from_secs(left.as_secs().max(1)))
}
