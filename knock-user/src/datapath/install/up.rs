//! Brings a configuration up.

use std::fmt;

use anyhow::{Context as _, Result, bail};

use super::{
    attach::Guarded,
    attachment::Attachment,
    bring_up::bring_up,
    complete::warn_of,
    cut_off::{After, refuse_to_cut_off},
    damaged::{circumstances_of, left, pin_again, pin_programs_again, replace_damaged},
    pins::{
        directory::{self, Directory, Holds},
        root::PinRoot,
    },
    program,
    repair::{self, Repair},
    replace::{Replaced, replace},
    request::{Absent, Replaces, Request, Wait},
    requirements,
    settle::settle,
    tcx,
};
use crate::{
    config::Config,
    datapath::{
        chain::{
            self, IntoArgument, Renewed,
            into::{self, IntoSlot},
        },
        compile::{
            Contents,
            applied::{Circumstances, Trial},
            compile_as,
        },
        error::{NothingUp, other_version},
        keys::Keys,
        known::{self, Known},
        open::Datapath,
        trial::{self, TrialState},
    },
    sys::bpf,
};

/// What was up before [`up`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Nothing,
    /// The same program with the same configuration.
    Same,
    /// What has been replaced in place.
    Another,
}

/// The outcome of [`up`].
#[derive(Debug)]
pub struct Up {
    pub before: Before,
    /// Interfaces that the program has been attached to now.
    pub guarded: Vec<Guarded>,
    /// The slot that the program is in, in place of links.
    pub into: Option<IntoSlot>,
    /// Interfaces whose packets go on to another program now, which has been pinned in place of the one before.
    pub renewed: Vec<String>,
    /// How the program is attached to every interface now.
    pub attachments: Vec<Attachment>,
    /// Interfaces that it could not be attached to, and why.
    pub failed: Vec<(String, anyhow::Error)>,
    /// Why some keys, or all, cannot be used.
    pub unused_keys: Option<anyhow::Error>,
}

/// Puts `config` into force: loads the program, attaches it to its interfaces and pins everything, or changes nothing. Where
/// the same configuration is up, repairs what is broken about it; another one is replaced in place, with every grant and
/// session that still applies. When this returns, the kernel enforces alone.
pub fn up(config: &Config, root: &PinRoot, request: &Request) -> Result<Up> {
    requirements::require()?;
    if config.interfaces.is_empty() {
        bail!(
            "no interface to guard: name one with `-i IFACE`, or with `interfaces = [...]` in the \
             configuration"
        );
    }
    bpf::learn_features()?;
    root.make()?;
    let _lock = match request.wait {
        Wait::ForAWhile => root.lock()?,
        Wait::Not => root.try_lock()?.ok_or(NothingUp)?,
    };
    let result = up_locked(config, root, request);
    // Under the lock: another command may be about to pin something there.
    root.tidy();
    result
}

fn up_locked(config: &Config, root: &PinRoot, request: &Request) -> Result<Up> {
    let (present, damaged) = present(root)?;
    require_replaced(present.as_ref(), &damaged, request)?;
    if !request.returns() {
        requirements::require_time(config)?;
    }
    let keys = Keys::read(config, !request.waits_for_keys())?;
    let now = match &present {
        Some(datapath) => Some(datapath.applied.circumstances.clone()),
        None => circumstances_of(&damaged),
    };
    // Held until the program is in the slot that is chosen now.
    let _turn = match (&request.into, &now) {
        (Some(argument), None) => into::turn(&argument.pin, root)?,
        _ => None,
    };
    let into = slot(now, request)?;
    if let Some(into) = &into
        && !request.bears_unfit()
    {
        into::require_one_framing(config, into)?;
    }
    tcx::require(config, into.is_some())?;
    let neighbours = require_neighbours(config, into.as_ref(), request);
    let mut circumstances = Circumstances {
        named_interfaces: request.named_interfaces,
        program: program::fingerprint()?,
        trial: request.trial.map(|_| Trial::default()),
        into,
    };
    let Some(mut datapath) = present else {
        match neighbours {
            // A neighbour that does not fit never keeps interfaces from being guarded, and its owner may mend it.
            Err(error) if request.bears_unfit() => tracing::warn!("{error:#}"),
            neighbours => neighbours?,
        }
        if !damaged.is_empty() {
            let known = Known::of(&damaged);
            if request.keeps_trial {
                match &known {
                    Ok(known) => refuse_damaged_trial(known.trial)?,
                    Err(_) if known::may_be_on_trial(&damaged) => bail!(
                        "what is up may be on trial, and somebody has removed pins that say more of it, so it cannot be taken \
                         over: `knockgate up` brings up what is in the file"
                    ),
                    Err(_) => {}
                }
            }
            if request.trial.is_some() {
                let known = known.context(
                    "what is up lacks pins that say what it is, so a trial could not return to it: give `knockgate up` \
                     without --try",
                )?;
                circumstances.trial = Some(known.before_trial());
            }
        }
        let left = left(&damaged, root);
        let left = left.as_ref();
        refuse_to_cut_off(config, left.map_or(After::Nothing, After::Damaged), request)?;
        // As it knows the gates: whether a connection has passed is asked by their numbers.
        let contents = compile_as(config, left.map(|of| &of.applied.ids), circumstances)?;
        if damaged.is_empty() {
            return bring_up(&contents, root, request, &keys);
        }
        let replaced = replace_damaged(&damaged, left, &contents, &keys, root, request)?;
        return Ok(outcome(replaced, &contents, root, Before::Nothing));
    };
    let has_been_attached = repair::has_been_attached(&datapath, root)?;
    let request = &Request {
        // Else the ones that are missing were never there.
        keeps_down: request.keeps_down && has_been_attached && circumstances.into.is_none(),
        ..request.clone()
    };
    let on_trial = datapath.trial()?;
    if request.keeps_trial && on_trial != TrialState::None {
        match on_trial {
            TrialState::Left(left) => {
                tracing::warn!("what is up is {}", trial::reminder(left));
            }
            // To replace it would make it permanent as well. Where there is something to return to, that is tried again.
            TrialState::Lapsed | TrialState::None => tracing::warn!(
                "the trial of what is up has ended, and every packet passes: `knockgate up` brings the gates up again"
            ),
        }
        // Those of the trial's own folder.
        let keys = Keys::read(datapath.config(), !request.waits_for_keys())?;
        return take_over(datapath, &damaged, root, request, &keys);
    }
    let is_same_config = request.trial.is_none()
        && on_trial == TrialState::None
        && datapath.config() == config
        && datapath.applied.circumstances.named_interfaces == request.named_interfaces;
    let is_same = is_same_config
        && datapath.applied.circumstances.program == circumstances.program
        // Where they do not go with any program, the one that is up stays.
        && (neighbours.is_err() || datapath.goes_with_neighbours()?);
    let before = if has_been_attached {
        After::Present(&datapath)
    } else {
        After::Nothing
    };
    if is_same {
        refuse_repair_that_cuts_off(config, &datapath, before, request)?;
        let up = take_over(datapath, &damaged, root, request, &keys)?;
        // Said only now: an interface is guarded first, whatever is to follow on it.
        match neighbours {
            Err(error) if request.absent == Absent::Await => tracing::warn!("{error:#}"),
            neighbours => neighbours?,
        }
        return Ok(up);
    }
    let fit = neighbours.and_then(|()| {
        if request.returns() {
            Ok(())
        } else {
            chain::require_next(config)
        }
    });
    match fit {
        // The program that is up has what follows, and decides as the configuration says. Without a service, some knocks would not open.
        Err(error) if request.bears_unfit() && is_same_config => {
            tracing::warn!("{error:#}; until that is mended, the program that is up stays");
            refuse_repair_that_cuts_off(config, &datapath, before, request)?;
            return take_over(datapath, &damaged, root, request, &keys);
        }
        fit => fit?,
    }
    refuse_to_cut_off(config, before, request)?;
    if request.trial.is_some() {
        circumstances.trial = Some(datapath.before_trial()?);
    }
    let contents = compile_as(config, Some(&datapath.applied.ids), circumstances)?;
    let replaced = replace(&mut datapath, &contents, &keys, root, request)?;
    Ok(outcome(replaced, &contents, root, Before::Another))
}

/// Refuses to cut off the SSH session that gives the command by attaching the program where it is missing now.
fn refuse_repair_that_cuts_off(
    config: &Config,
    datapath: &Datapath,
    before: After<'_>,
    request: &Request,
) -> Result<()> {
    if datapath.attachments()?.iter().any(Attachment::is_open) {
        refuse_to_cut_off(config, before, request)?;
    }
    Ok(())
}

/// Returns the outcome of what has come into force in place of something.
fn outcome(replaced: Replaced, contents: &Contents, root: &PinRoot, before: Before) -> Up {
    let Replaced {
        mut guarded,
        mut failed,
        unused_keys,
    } = replaced;
    let attachments = repaired(root, &mut guarded, &mut failed).unwrap_or_else(|error| {
        warn_of(&error);
        Vec::new()
    });
    Up {
        before,
        guarded,
        into: contents.applied.circumstances.into.clone(),
        renewed: Vec::new(),
        attachments,
        failed,
        unused_keys,
    }
}

/// Repairs what needs it: the program is to be in front of others now, others have come since, or somebody has detached it meanwhile.
/// Returns how it is attached then. `guarded` and `failed`: what has been attached, and what could not be.
fn repaired(
    root: &PinRoot,
    guarded: &mut Vec<Guarded>,
    failed: &mut Vec<(String, anyhow::Error)>,
) -> Result<Vec<Attachment>> {
    let mut datapath = Datapath::open(root)?;
    let attachments = datapath.attachments()?;
    let has_failed = |row: &Attachment| failed.iter().any(|(name, _)| *name == row.configured);
    if !attachments
        .iter()
        .any(|row| row.needs_repair() && row.index.is_some() && !has_failed(row))
    {
        return Ok(attachments);
    }
    let repair = repair::repair(&mut datapath, root)?;
    guarded.extend(repair.guarded);
    failed.extend(repair.failed);
    datapath.attachments()
}

/// What was to be replaced is not up any more, or has not lapsed.
#[derive(Debug)]
pub struct Superseded;

impl fmt::Display for Superseded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another command has changed what is up meanwhile")
    }
}

impl std::error::Error for Superseded {}

/// Refuses to replace another instance than the request says, and one on trial, which that would make permanent. `damaged`: where
/// nothing is whole, what the request has seen may be in these directories.
fn require_replaced(
    present: Option<&Datapath>,
    damaged: &[Directory],
    request: &Request,
) -> Result<()> {
    let Some(replaces) = request.replaces else {
        return Ok(());
    };
    let (Replaces::Present { since, generation }
    | Replaces::Program { since, generation }
    | Replaces::Lapsed { since, generation }) = replaces;
    let seen = match (present, damaged) {
        (Some(of), _) => Some(((of.since, of.generation), of.trial()?)),
        (None, [first, ..]) => {
            // Its grants would end: but under a trial that has ended, every packet passes without one.
            if !request.returns() {
                directory::require_whole(&first.path)?;
            }
            let of = Known::of(damaged)?;
            Some(((of.since, of.generation), of.trial))
        }
        (None, []) => None,
    };
    if seen.is_none() && !request.returns() {
        return Err(NothingUp.into());
    }
    let seen = seen.filter(|(of, _)| *of == (since, generation));
    let (_, trial) = seen.ok_or(Superseded)?;
    match (replaces, trial) {
        (Replaces::Lapsed { .. }, TrialState::Lapsed) => Ok(()),
        (Replaces::Lapsed { .. }, _) => Err(Superseded.into()),
        (Replaces::Program { .. }, TrialState::Lapsed) => {
            bail!("the trial of what is up has ended, and every packet passes")
        }
        (_, trial) => refuse_trial(trial),
    }
}

/// Refuses to begin a service where pins of what is on trial are gone: what it would bring up in its place would be permanent.
fn refuse_damaged_trial(trial: TrialState) -> Result<()> {
    match trial {
        TrialState::None => Ok(()),
        TrialState::Left(left) => bail!(
            "what is up is on trial for {}, and somebody has removed pins of it, so it cannot be taken over: `knockgate up` \
             brings up what is in the file",
            trial::shown(left)
        ),
        TrialState::Lapsed => bail!(
            "the trial of what is up has ended, and every packet passes: `knockgate up` brings the gates up again"
        ),
    }
}

/// Refuses to replace what is on trial, which that would make permanent.
fn refuse_trial(trial: TrialState) -> Result<()> {
    match trial {
        TrialState::Left(left) => bail!(
            "what is up is {}; give that first, or wait until the trial has ended",
            trial::reminder(left)
        ),
        TrialState::None | TrialState::Lapsed => Ok(()),
    }
}

/// Refuses neighbours that no program of ours goes with, or that are not there.
fn require_neighbours(config: &Config, into: Option<&IntoSlot>, request: &Request) -> Result<()> {
    if request.returns() {
        return Ok(());
    }
    if request.absent == Absent::Refuse {
        chain::require_next(config)?;
    }
    chain::frags_of(config, into).map(drop)
}

/// Returns the slot that the program belongs in; `None` where it is attached by links. `now`: of what is up, as far as that is known.
fn slot(now: Option<Circumstances>, request: &Request) -> Result<Option<IntoSlot>> {
    let Some(Circumstances { into: now, .. }) = now else {
        return request.into.as_ref().map(into::choose).transpose();
    };
    let Some(IntoArgument { pin, slot }) = &request.into else {
        return Ok(now);
    };
    let is_same = |into: &&IntoSlot| into.pin == *pin && slot.is_none_or(|slot| slot == into.slot);
    match now.as_ref().filter(is_same) {
        Some(_) => Ok(now),
        None => bail!(
            "it is up {}, and cannot change to another place without a moment in which nothing is guarded: `knockgate down`, \
             then `knockgate up --into {}{}`",
            now.as_ref().map_or_else(
                || "by links of its own".to_owned(),
                |into| format!("in {into}")
            ),
            pin.display(),
            slot.map_or_else(String::new, |slot| format!("[{slot}]"))
        ),
    }
}

/// Returns what is up, after finishing or removing what killed processes have left, and the directories of it that guard something,
/// but from which somebody has removed pins. Without any other there is nothing to go on from.
fn present(root: &PinRoot) -> Result<(Option<Datapath>, Vec<Directory>)> {
    settle(root)?;
    let (mut is_up, mut damaged) = (false, Vec::new());
    for directory in root.directories()? {
        match directory.holds {
            Holds::OtherVersion => return Err(other_version(&directory.path)),
            Holds::Instance if directory::is_whole(&directory.path) => is_up = true,
            Holds::Instance => damaged.push(directory),
            Holds::Unfinished | Holds::Foreign(_) => {}
        }
    }
    let present = is_up.then(|| Datapath::open(root)).transpose()?;
    if let Some(datapath) = &present {
        // Tried again where each interface is attached: by then what it lacks may be there.
        if let Err(error) = tcx::complete_all(root, &datapath.applied) {
            tracing::warn!("{error:#}");
        }
    }
    Ok((present, damaged))
}

fn take_over(
    mut datapath: Datapath,
    damaged: &[Directory],
    root: &PinRoot,
    request: &Request,
    keys: &Keys,
) -> Result<Up> {
    let compiled = keys.compile(&datapath.applied, Some(&datapath))?;
    let unused_keys = datapath.apply_compiled(compiled)?;
    if !repair::has_been_attached(&datapath, root)? {
        datapath.adopt_connections(None)?;
    }
    for of in damaged {
        pin_again(&datapath, root, &of.interface)?;
    }
    pin_programs_again(&datapath)?;
    let Repair { guarded, failed } = if request.keeps_down {
        repair::repair(&mut datapath, root)?
    } else {
        repair::repair_all(&mut datapath, root)?
    };
    let attachments = datapath.attachments()?;
    let Renewed { renewed, unfit } = datapath.renew_next(&attachments);
    for (_, error) in unfit {
        tracing::warn!("{error:#}");
    }
    // The host's addresses may have changed while no service was there to follow them.
    let state = datapath.read_host_state(&attachments)?;
    datapath.set_host_state(&state)?;
    Ok(Up {
        before: Before::Same,
        guarded,
        into: datapath.applied.circumstances.into.clone(),
        renewed,
        attachments,
        failed,
        unused_keys,
    })
}
