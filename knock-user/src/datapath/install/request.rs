//! How a configuration is to be put into force.

use std::time::Duration;

use crate::{config::SshSession, datapath::chain::IntoArgument, sys::clock::monotonic_now};

/// What happens where a configured interface is absent or refuses the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Nothing comes up.
    Refuse,
    /// The others come up; this one is left to a later repair.
    Await,
}

/// How a configuration is to be put into force.
#[derive(Debug, Clone)]
pub struct Request {
    pub absent: Absent,
    /// The interfaces were named on the command line.
    pub named_interfaces: bool,
    /// It lapses after this long, unless it is confirmed.
    pub trial: Option<Duration>,
    /// What is up already stays in force while it is on trial.
    pub keeps_trial: bool,
    /// Interfaces that were taken down by themselves stay down. In a slot none can be: one that has no pins there has not come up yet.
    pub keeps_down: bool,
    /// The array that the program is put into, in place of links. What is up already stays where it is without one.
    pub into: Option<IntoArgument>,
    /// What it is to replace, and only that; `None`: whatever is up.
    pub replaces: Option<Replaces>,
    /// The SSH session that must not be cut off.
    pub session: Option<SshSession>,
    pub wait: Wait,
}

/// Whether a command that is at work is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For a minute.
    ForAWhile,
    /// The service has other work to do meanwhile, and tries again by itself.
    Not,
}

/// What a configuration is to replace. It may have been decided before the lock was had, so it is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaces {
    /// The instance that came up at `since`, ns of `CLOCK_MONOTONIC`, with this generation of its configuration, unless it is on
    /// trial.
    Present { since: u64, generation: u32 },
    /// The program of the instance that came up at `since`, ns of `CLOCK_MONOTONIC`, with this generation of its configuration,
    /// which is to stay, unless it is on trial.
    Program { since: u64, generation: u32 },
    /// The instance that came up at `since`, ns of `CLOCK_MONOTONIC`, with this generation of its configuration, whose trial has
    /// ended. Nothing that is missing keeps the configuration before it from coming into force again: until then every packet
    /// passes.
    Lapsed { since: u64, generation: u32 },
}

impl Request {
    /// Returns whether it returns to the configuration before a trial.
    pub fn returns(&self) -> bool {
        matches!(self.replaces, Some(Replaces::Lapsed { .. }))
    }

    /// Returns whether it comes into force even if a neighbour or an interface does not fit; only that one is then left out. So do a
    /// service that begins and the end of a trial: until then, packets pass.
    pub fn bears_unfit(&self) -> bool {
        self.returns() || (self.absent == Absent::Await && self.replaces.is_none())
    }

    /// Returns whether it comes into force without keys that cannot be used, rather than not at all. The service, which begins
    /// with it or has it come back, tries them again.
    pub fn waits_for_keys(&self) -> bool {
        self.absent == Absent::Await && !matches!(self.replaces, Some(Replaces::Present { .. }))
    }

    /// Returns when its trial ends, ns of `CLOCK_MONOTONIC`; 0: it is none.
    pub fn deadline(&self) -> u64 {
        self.trial.map_or(0, |length| {
            let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
            monotonic_now().saturating_add(length)
        })
    }

    pub fn new(absent: Absent) -> Self {
        Self {
            absent,
            named_interfaces: false,
            trial: None,
            keeps_trial: false,
            keeps_down: false,
            into: None,
            replaces: None,
            session: None,
            wait: Wait::ForAWhile,
        }
    }
}
