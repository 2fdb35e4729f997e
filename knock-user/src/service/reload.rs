//! Applying the configuration file again, and returning from a trial.

use anyhow::Result;
use sd_notify::NotifyState;

use super::{
    complaint::Complaint, log::Log, manager::notify, names::CONFIG_REJECTED, record::Record,
};
use crate::{
    config::Config,
    datapath::{self, Busy, Datapath, NothingUp, PinRoot, Wait},
};

/// Reads the configuration file, for the interfaces that were named on the command line, if any were.
pub type Load<'l> = &'l dyn Fn(&[String]) -> Result<Config>;

/// Applies the configuration file to what is up. What is in force stays where the file is invalid or cannot be applied. That
/// it was applied is said when the service sees it, as after `knockgate reload`. `is_ready`: the service manager has been told that
/// the service is ready, and so is told of this.
pub fn reload(load: Load<'_>, root: &PinRoot, log: &mut Log, is_ready: bool) {
    if is_ready {
        // The time in the same message: systemd takes the one without the other for nothing.
        let now = NotifyState::monotonic_usec_now();
        let states: Vec<_> = [NotifyState::Reloading].into_iter().chain(now).collect();
        notify(&states);
    }
    // Waits for a command that is at work, for longer than the service otherwise says nothing.
    notify(&[NotifyState::Watchdog]);
    if let Err(error) = datapath::reload(root, None, |named| load(named.unwrap_or_default())) {
        tracing::error!("the configuration in force stays: {error:#}");
        log.say(Record {
            reason: format!("{error:#}").lines().next().map(ToOwned::to_owned),
            ..Record::now(CONFIG_REJECTED)
        });
    }
    if is_ready {
        notify(&[NotifyState::Ready]);
    }
}

/// Ends a trial that has lapsed, unless a command is at work. Returns whether another configuration is in force now. `complaint`: what
/// was said of the last try.
pub fn return_from_trial(datapath: &Datapath, complaint: &mut Complaint) -> bool {
    match datapath::return_from_trial(datapath, Wait::Not) {
        Err(error) if error.is::<Busy>() => false,
        Err(error) if !error.is::<NothingUp>() => {
            if let Some(error) = complaint.about(&error) {
                tracing::warn!("{error}");
            }
            false
        }
        returned => {
            complaint.settle();
            matches!(returned, Ok(Some(_)))
        }
    }
}
