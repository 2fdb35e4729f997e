//! What guards something, but from which somebody has removed pins. It guards until something else is in its place.

use anyhow::{Context as _, Result};

use super::{
    attach::Guarded,
    attachment::{self, Attachment},
    bring_up::{begin_keys, entries},
    complete::{give_up_place, succeeds},
    exchange::{Exchange, Undo},
    owned,
    pinning::pin,
    pins::{
        change,
        directory::{self, Directory},
        root::PinRoot,
    },
    program::{self, Origin},
    repair::has_been_attached,
    replace::{
        Replaced, add_tcx_entries, entries_in_use, refuse_other_mode, require_known_slot,
        warn_of_left_out,
    },
    request::Request,
    settle::{forget, generation, take_place},
    tcx,
};
use crate::{
    datapath::{
        chain::into,
        compile::{Contents, applied::Circumstances},
        error::other_version,
        keys::Keys,
        open::{self, Datapath},
    },
    sys::grace,
};

/// Returns how what is left in these directories came to be in force; `None` where nothing says it any more.
pub(super) fn circumstances_of(damaged: &[Directory]) -> Option<Circumstances> {
    let mut known = damaged.iter().filter_map(|of| open::applied(&of.path).ok());
    known.next().map(|applied| applied.circumstances)
}

/// Returns what these directories are of, where it opens with what is left of them and has judged packets.
pub(super) fn left(damaged: &[Directory], root: &PinRoot) -> Option<Datapath> {
    if damaged.is_empty() {
        return None;
    }
    let left = Datapath::open(root).ok()?;
    has_been_attached(&left, root).ok()?.then_some(left)
}

/// Brings a configuration up in place of what is left in these directories, with no moment in which an interface is not guarded. Its
/// grants and sessions are not carried over: the tables may be among what is gone. Where this fails, what is left stays. `left`: as far
/// as it opens.
pub(super) fn replace_damaged(
    damaged: &[Directory],
    left: Option<&Datapath>,
    contents: &Contents,
    keys: &Keys,
    root: &PinRoot,
    request: &Request,
) -> Result<Replaced> {
    let config = &contents.applied.config;
    let into = contents.applied.circumstances.into.as_ref();
    require_known_slot(root, into)?;
    for Directory { path, .. } in damaged {
        // To be undone; the kernel may keep it from being told whose program it is.
        if let Err(error) = owned::pin_carried(path, into) {
            tracing::warn!("{error:#}");
        }
    }
    // It needs pins that may be gone, and to be guarded at all matters more.
    if let Err(error) = tcx::complete_all(root, &contents.applied) {
        tracing::warn!("{error:#}");
    }
    let attachments = attachment::attachments(root, &config.interfaces, into, config.order)?;
    if !request.returns() {
        refuse_other_mode(config, into, &attachments)?;
    }
    let mut entries = entries(config, request.absent)?;
    entries.extend(entries_in_use(root)?);
    let mut origin = Origin::now(request.deadline())?;
    // As of a replacement: one that is killed is undone until the first directory has changed places, and finished from then on.
    for directory in damaged {
        let generation = directory::meta(&directory.path)?.generation;
        origin.generation = origin.generation.max(generation + 1);
    }
    let ebpf = program::load(contents, &entries, origin)?;
    let unused_keys = begin_keys(&ebpf, contents, keys, root)?;
    let first = config.interfaces.first().context("no interface to guard")?;
    let mut undo = Undo::new(root);
    undo.fill(&config.interfaces, |directory| pin(&ebpf, directory))?;
    add_tcx_entries(root, &entries, contents, &config.interfaces)?;
    let mut new = Datapath::open_new(root, root.unnamed(first), contents)?;
    match left {
        Some(left) => new.adopt_connections_of(left)?,
        None => new.adopt_connections(None)?,
    }
    let exchange = Exchange {
        new: &mut new,
        root,
        interfaces: &config.interfaces,
        attachments: &attachments,
        absent: request.absent,
    };
    let (mut guarded, failed) = exchange.run(undo, None)?;
    for Attachment {
        name,
        configured,
        state,
        ..
    } in &attachments
    {
        let mut names = [name, configured].into_iter();
        if let Ok(attached) = *state
            && names.any(|name| config.interfaces.contains(name))
        {
            guarded.push(Guarded {
                interface: name.clone(),
                attached,
            });
        }
    }
    // The tables that are left are removed next.
    grace::wait();
    for Directory { interface, .. } in damaged {
        if !config.interfaces.contains(interface) {
            succeeds(give_up_place(root, interface));
        }
        let replaced = root.unnamed(interface);
        if generation(&replaced) == Some(new.generation) {
            // It has not got its name, so whoever comes next gives it that.
            continue;
        }
        // What is known of no slot may be in one.
        succeeds(into::leave(&replaced).and_then(|()| forget(root, &replaced)));
    }
    warn_of_left_out(config, &attachments);
    Ok(Replaced {
        guarded,
        failed,
        unused_keys,
    })
}

/// Pins again what is gone from the directory of an interface: what is up has it elsewhere too. Links and slot stay as they are.
pub(super) fn pin_again(datapath: &Datapath, root: &PinRoot, interface: &str) -> Result<()> {
    let whole = datapath.whole_directory()?;
    let whole = whole.ok_or_else(|| other_version(root.path()))?;
    let filled = root.fill_beside(interface, |directory| {
        // Its own first: each directory may have loaded an entry for itself, and its link or the slot has that one.
        change::copy_programs(&root.of(interface), directory)?;
        change::copy(&whole, directory)
    });
    if filled.is_err()
        && let Err(error) = change::unpin(&root.unnamed(interface))
    {
        tracing::warn!("{error:#}");
    }
    filled?;
    take_place(root, interface, &[])?;
    forget(root, &root.unnamed(interface))
}

/// Pins in each directory of what is up the programs that another one has and it lacks: its links may carry them.
pub(super) fn pin_programs_again(datapath: &Datapath) -> Result<()> {
    let directories = datapath.directories()?;
    for to in &directories {
        for from in directories.iter().filter(|from| from.path != to.path) {
            change::add_programs(&from.path, &to.path)?;
        }
    }
    Ok(())
}
