//! Replaces the configuration in force, or the program, in place.
//!
//! Each packet is judged by the old program with the old configuration or by the new one with the new configuration: the
//! kernel changes the program of a link between two packets. Tables that both can use are shared, the others are carried over;
//! see [`carry`]. Whatever fails before the first directory has changed places is undone.

use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;

use super::{
    attach::{Guarded, admits, pin_programs},
    attachment::{Attachment, Lack, all_programs},
    complete::{complete, give_up_place, succeeds},
    entry::Entry,
    exchange::{Exchange, Undo, instance},
    framing::{framing, index_of},
    native,
    pinning::pin,
    pins::root::PinRoot,
    program::{self, Origin},
    repair::{has_been_attached, repair_unpinned},
    request::Request,
    xdp::Attached,
};
use crate::{
    config::{Attach, Config},
    datapath::{
        carry::{self, Room},
        chain::into::{self, IntoSlot},
        compile::Contents,
        error::other_version,
        keys::{Compiled, Keys, Newest},
        open::Datapath,
        tables::{self, Definition, Group},
    },
    sys::{bpf::Hook, clock::monotonic_now, ethtool},
};

/// The outcome of [`replace`].
pub struct Replaced {
    /// Interfaces that the program has been attached to now.
    pub guarded: Vec<Guarded>,
    /// Interfaces that it could not be attached to, and why.
    pub failed: Vec<(String, anyhow::Error)>,
    /// Why some keys, or all, cannot be used.
    pub unused_keys: Option<anyhow::Error>,
}

/// Replaces what is in force under `root`, which is `old`, by `contents`. Needs the lock. Where it fails, `old` stays in force.
pub(super) fn replace(
    old: &mut Datapath,
    contents: &Contents,
    keys: &Keys,
    root: &PinRoot,
    request: &Request,
) -> Result<Replaced> {
    let config = &contents.applied.config;
    require_known_slot(root, old.applied.circumstances.into.as_ref())?;
    old.end_outdated(None)?;
    if let Err(error) = repair_unpinned(old, root) {
        if !request.returns() {
            return Err(error);
        }
        tracing::warn!("{error:#}");
    }
    let attachments = old.attachments()?;
    if !request.returns() {
        refuse_other_mode(
            config,
            contents.applied.circumstances.into.as_ref(),
            &attachments,
        )?;
    }
    let from = old.whole_directory()?;
    let from = from.ok_or_else(|| other_version(root.path()))?;
    let lasting = lasting(old, contents)?;
    let in_use = entries_in_use(root)?;
    let interfaces = interfaces(config, &attachments, request);
    let next = load(
        old,
        &from,
        contents,
        &lasting,
        (&attachments, &in_use),
        request.deadline(),
    )?;
    let mut undo = Undo::new(root);
    undo.fill(&interfaces, |directory| pin(&next, directory))?;
    add_tcx_entries(root, &in_use, contents, &interfaces)?;
    let first = interfaces.first().context("no interface to guard")?;
    let mut new = Datapath::open_new(root, root.unnamed(first), contents)?;
    let Compiled { rows, unused } = keys.compile(&new.applied, Some(old))?;
    // Their slots may be other keys' from now on.
    let lost = old.keys()?.lost(&rows);
    let keeps_keys = lasting.contains(&Group::Keys);
    let begin = if keeps_keys {
        Newest::going_on(config, &[], root.path())
    } else {
        Newest::frozen(config)
    };
    // Those that the program before uses too are changed last, when nothing keeps the new one from coming into force.
    if keeps_keys {
        new.keys_mut()?.prepare(&rows, &lost)?;
    } else {
        new.keys_mut()?.apply(&rows, &begin)?;
    }
    let enough = if request.returns() {
        Room::ForSome
    } else {
        Room::ForAll
    };
    let copied = carry::before(old, &mut new, &lasting, enough)?;
    old.look_for_lengths(config, enough, monotonic_now())?;
    let has_been_attached = has_been_attached(old, root)?;
    new.adopt_connections(has_been_attached.then_some(&*old))?;

    let exchange = Exchange {
        new: &mut new,
        root,
        interfaces: &interfaces,
        attachments: &attachments,
        absent: request.absent,
    };
    let (guarded, failed) = exchange.run(undo, keeps_keys.then_some((&rows, &begin)))?;
    for name in &old.config().interfaces {
        if !config.interfaces.contains(name) {
            succeeds(give_up_place(root, name));
        }
    }
    complete(root, old, &mut new, (&rows, &lost), &lasting, &copied);
    warn_of_left_out(config, &attachments);
    warn_of_lost_replies(config, &attachments);
    Ok(Replaced {
        guarded,
        failed,
        unused_keys: unused,
    })
}

/// Fails where it cannot be seen whether what is in the slot is to be replaced. Also where that is a trial that has ended: what stayed in
/// the slot would pass every packet, and soon nothing would lead to it.
pub(super) fn require_known_slot(root: &PinRoot, into: Option<&IntoSlot>) -> Result<()> {
    let Some(into) = into else {
        return Ok(());
    };
    into::require_known(into, &all_programs(&root.directories()?)?)
}

/// Warns of interfaces that were guarded before and that the configuration does not name.
pub(super) fn warn_of_left_out(config: &Config, attachments: &[Attachment]) {
    let is_named = |name| config.interfaces.iter().any(|of| of == name);
    for Attachment {
        name, configured, ..
    } in attachments
        .iter()
        .filter(|of| of.state.is_ok() && !is_named(&of.name) && !is_named(&of.configured))
    {
        tracing::warn!("{name} is no longer guarded: the configuration does not name {configured}");
    }
}

/// Warns of interfaces that may lose replies in native mode: a replacement keeps the mode of each.
fn warn_of_lost_replies(config: &Config, attachments: &[Attachment]) {
    for Attachment { name, state, .. } in attachments {
        let driver = ethtool::driver(name).unwrap_or_default();
        if *state == Ok(Attached::Native)
            && let Some(lost) = native::lost_replies(config, name, &driver)
        {
            let until = match config.attach {
                Attach::Auto => "; it stays in that mode until `knockgate down`",
                _ => "",
            };
            tracing::warn!("{lost}{until}");
        }
    }
}

/// Returns the configured interfaces, without those that are to stay down, unless there are no others.
fn interfaces(config: &Config, attachments: &[Attachment], request: &Request) -> Vec<String> {
    let is_down = |name: &String| {
        let mut rows = attachments.iter().filter(|row| row.configured == *name);
        rows.any(|row| row.state == Err(Lack::Down))
    };
    let mut interfaces = config.interfaces.clone();
    interfaces.retain(|name| !request.keeps_down || !is_down(name));
    if interfaces.is_empty() {
        return config.interfaces.clone();
    }
    interfaces
}

/// Returns the entries that are pinned for any interface: one that only one interface has come to need is pinned for that one
/// alone.
pub(super) fn entries_in_use(root: &PinRoot) -> Result<BTreeSet<Entry>> {
    let mut in_use = BTreeSet::new();
    for directory in instance(root)? {
        let is_pinned = |entry: &Entry| directory.join(entry.pin()).exists();
        in_use.extend(Entry::ALL.into_iter().filter(is_pinned));
    }
    Ok(in_use)
}

/// Loads the entries for TCX that are in use, and pins them beside the others.
pub(super) fn add_tcx_entries(
    root: &PinRoot,
    in_use: &BTreeSet<Entry>,
    contents: &Contents,
    interfaces: &[String],
) -> Result<()> {
    let applied = &contents.applied;
    let first = interfaces.first().context("no interface to guard")?;
    for entry in in_use.iter().filter(|entry| entry.hook == Hook::Tcx) {
        let ebpf = program::load_onto(&root.unnamed(first), applied, *entry)?;
        for name in interfaces {
            pin_programs(&ebpf, &root.unnamed(name))?;
        }
    }
    Ok(())
}

/// Returns the groups of tables that stay.
fn lasting(old: &Datapath, contents: &Contents) -> Result<HashSet<Group>> {
    let mut lasting = tables::lasting(&old.counts()?, &contents.counts());
    if !old.contents()?.automaton.numbers_like(&contents.automaton) {
        lasting.remove(&Group::Progress);
    }
    // Earlier configurations may have made the counters larger than the present one needs.
    if old.counters_hold(contents.gates.len()) {
        lasting.insert(Group::Counters);
    } else {
        lasting.remove(&Group::Counters);
    }
    Ok(lasting)
}

fn load(
    old: &Datapath,
    from: &Path,
    contents: &Contents,
    lasting: &HashSet<Group>,
    (attachments, in_use): (&[Attachment], &BTreeSet<Entry>),
    deadline: u64,
) -> Result<Ebpf> {
    let (before, after) = (old.counts()?, contents.counts());
    let is_kept = |table: &Definition| match table.group {
        Group::Config => false,
        Group::Single => table.entries(&before) == table.entries(&after),
        group => lasting.contains(&group),
    };
    let mut entries = in_use.clone();
    let missing = |name: &&String| {
        let mut guarded = attachments.iter().filter(|row| row.is_attached());
        !guarded.any(|row| row.configured == **name)
    };
    let config = &contents.applied.config;
    for name in config.interfaces.iter().filter(missing) {
        // Reported when the interface cannot be guarded. One for TCX is loaded when it is attached.
        let framing = index_of(name).and_then(|index| framing(name, index));
        entries.extend(
            framing
                .ok()
                .map(Entry::xdp)
                .filter(|_| config.attach != Attach::Tcx),
        );
    }
    let origin = Origin {
        since: old.since,
        seed: old.seed,
        generation: old.generation + 1,
        secret: match old.secret()? {
            0 => Origin::now(0)?.secret,
            secret => secret,
        },
        deadline,
    };
    program::load_beside(from, attachments, &is_kept, contents, &entries, origin)
}

/// Refuses a mode of attachment other than an interface has: the kernel has no way to change it without a moment in which
/// nothing is attached.
pub(super) fn refuse_other_mode(
    config: &Config,
    into: Option<&IntoSlot>,
    attachments: &[Attachment],
) -> Result<()> {
    for row in attachments.iter().filter(|_| into.is_none()) {
        let attached = match row.state {
            Ok(attached) => attached,
            Err(Lack::Behind(_)) => Attached::Tcx,
            Err(_) => continue,
        };
        if admits(config, &row.configured, attached) || !config.interfaces.contains(&row.configured)
        {
            continue;
        }
        let wanted = match config.attach {
            Attach::Auto => bail!(
                "{} is guarded at TCX, where no XDP program can be called, and it has a `next` now: `knockgate down`, \
                 then `knockgate up`",
                row.name
            ),
            Attach::Native => Attached::Native,
            Attach::Generic => Attached::Generic,
            Attach::Tcx => Attached::Tcx,
        };
        bail!(
            "{} is attached in {} mode; the kernel cannot change that to {} without a moment in which the interface is not \
             guarded: `knockgate down`, then `knockgate up`",
            row.name,
            attached.name(),
            wanted.name()
        );
    }
    Ok(())
}
