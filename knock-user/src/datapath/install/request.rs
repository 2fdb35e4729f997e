//! How a configuration is to be put into force.

use std::time::Duration;

use crate::{config::SshSession, datapath::chain::IntoArgument};

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
    /// The array that the program is put into, in place of links. What is up already stays where it is without one.
    pub into: Option<IntoArgument>,
    /// It was in force before a trial that has ended. Nothing that is missing keeps it from coming into force again: until then
    /// every packet passes.
    pub returns: bool,
    /// The SSH session that must not be cut off.
    pub session: Option<SshSession>,
}

impl Request {
    pub fn new(absent: Absent) -> Self {
        Self {
            absent,
            named_interfaces: false,
            trial: None,
            keeps_trial: false,
            into: None,
            returns: false,
            session: None,
        }
    }
}
