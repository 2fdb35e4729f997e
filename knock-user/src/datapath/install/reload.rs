//! Applies the configuration file to what is up, replaces the program alone, and returns from a trial to the configuration
//! before it.

use std::fmt;

use anyhow::{Context as _, Result};

use super::{
    pins::{lock::Busy, root::PinRoot},
    request::{Absent, Replaces, Request, Wait},
    up::{Superseded, Up, up},
};
use crate::{
    config::{Config, SshSession},
    datapath::{
        compile::applied::{Applied, Trial},
        known::Known,
        open::Datapath,
        trial::TrialState,
    },
};

/// Puts the configuration into force that `load` reads, in place of what is up. Interfaces that were named on the command
/// line stay as they are: `load` is given them. Where the file names none, those that are guarded stay as well. Fails during a
/// trial, which it would make permanent, and with [`NothingUp`](crate::datapath::NothingUp). `session`: must not be cut off.
pub fn reload(
    root: &PinRoot,
    session: Option<&SshSession>,
    load: impl Fn(Option<&[String]>) -> Result<Config>,
) -> Result<(Config, Up)> {
    replace_present(root, session, |datapath| {
        let interfaces = &datapath.config().interfaces;
        let named = datapath.applied.circumstances.named_interfaces;
        let mut config = load(named.then_some(interfaces))?;
        if config.interfaces.is_empty() {
            config.interfaces.clone_from(interfaces);
        }
        let replaces = Replaces::Present {
            since: datapath.since,
            generation: datapath.generation,
        };
        Ok((config, replaces))
    })
}

/// Puts the program of this build in place of the one that is up, with the configuration that is in force. Interfaces that were
/// taken down stay down. Fails during a trial, and with [`NothingUp`](crate::datapath::NothingUp). `session`: must not be cut off.
pub fn replace_program(root: &PinRoot, session: Option<&SshSession>) -> Result<(Config, Up)> {
    replace_present(root, session, |datapath| {
        let replaces = Replaces::Program {
            since: datapath.since,
            generation: datapath.generation,
        };
        Ok((datapath.config().clone(), replaces))
    })
}

/// Puts the configuration into force that `next` makes of what is up. Where another command has changed that meanwhile, begins anew:
/// what it has been told on its command line is to stay.
fn replace_present(
    root: &PinRoot,
    session: Option<&SshSession>,
    next: impl Fn(&Datapath) -> Result<(Config, Replaces)>,
) -> Result<(Config, Up)> {
    loop {
        let datapath = Datapath::open_unlocked(root)?;
        let (config, replaces) = next(&datapath)?;
        let request = Request {
            named_interfaces: datapath.applied.circumstances.named_interfaces,
            keeps_down: matches!(replaces, Replaces::Program { .. }),
            session: session.cloned(),
            replaces: Some(replaces),
            ..Request::new(Absent::Await)
        };
        match up(&config, root, &request) {
            Err(error) if error.is::<Superseded>() => {}
            up => return Ok((config, up?)),
        }
    }
}

/// A trial has ended, and the configuration from before it could not be put into force again.
#[derive(Debug)]
pub struct StillLapsed;

impl fmt::Display for StillLapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot return from the trial, which has ended, so every packet passes")
    }
}

/// Puts the configuration into force again that was there before the trial of this one, which has ended. Returns `None` where
/// there is nothing to return to, or something else is up.
///
/// # Errors
/// Also [`Busy`]: another process has had the lock, with [`Wait::Not`] at this moment.
pub fn return_from_trial(datapath: &Datapath, wait: Wait) -> Result<Option<Up>> {
    if datapath.trial()? != TrialState::Lapsed {
        return Ok(None);
    }
    let lapsed = Replaces::Lapsed {
        since: datapath.since,
        generation: datapath.generation,
    };
    return_from(&datapath.applied, lapsed, datapath.root(), wait)
}

/// As [`return_from_trial`], of what is up under `root`, also where somebody has removed pins. Waits for a command that is at work.
pub fn return_from_trial_of(root: &PinRoot) -> Result<Option<Up>> {
    let Known {
        since,
        generation,
        applied,
        trial,
    } = Known::look(root)?;
    if trial != TrialState::Lapsed {
        return Ok(None);
    }
    let lapsed = Replaces::Lapsed { since, generation };
    return_from(&applied, lapsed, root, Wait::ForAWhile)
}

fn return_from(
    applied: &Applied,
    lapsed: Replaces,
    root: &PinRoot,
    wait: Wait,
) -> Result<Option<Up>> {
    let Some(Trial {
        previous: Some((config, named_interfaces)),
    }) = &applied.circumstances.trial
    else {
        return Ok(None);
    };
    let request = Request {
        named_interfaces: *named_interfaces,
        keeps_down: true,
        replaces: Some(lapsed),
        wait,
        ..Request::new(Absent::Await)
    };
    let up = match up(config, root, &request) {
        // Somebody else has been faster.
        Err(error) if error.is::<Superseded>() => return Ok(None),
        Err(error) if wait == Wait::Not && error.is::<Busy>() => return Err(error),
        up => up.context(StillLapsed)?,
    };
    // The service tries them again, and says it then.
    if wait != Wait::Not
        && let Some(error) = &up.unused_keys
    {
        tracing::error!("{error:#}");
    }
    tracing::warn!(
        "the trial has ended without `knockgate confirm`: the configuration from before it is in force again"
    );
    Ok(Some(up))
}
