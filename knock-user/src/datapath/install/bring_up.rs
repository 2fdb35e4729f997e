//! Brings a configuration up where nothing is.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Result;
use aya::Ebpf;

use super::{
    attach::{Guarded, guard, pin_programs},
    attachment,
    entry::Entry,
    framing::{Framing, framing, index_of},
    pinning::pin,
    pins::{change, root::PinRoot},
    program::{self, Origin},
    request::{Absent, Request},
    up::{Before, Up},
};
use crate::{
    config::{Attach, Config},
    datapath::{
        compile::Contents,
        keys::{Compiled, Kept, KeyTables, Keys, Newest},
        open::Datapath,
    },
    sys::{links, state_directory},
};

/// Brings up what nothing was up of before.
pub(super) fn bring_up(
    contents: &Contents,
    root: &PinRoot,
    request: &Request,
    keys: &Keys,
) -> Result<Up> {
    let config = &contents.applied.config;
    let absent = request.absent;
    let is_tcx = config.attach == Attach::Tcx;
    let entries = entries(config, absent)?;
    let ebpf = program::load(contents, &entries, Origin::now(request.deadline())?)?;
    let unused_keys = begin_keys(&ebpf, contents, keys, root)?;
    let mut undo = Undo::default();
    for name in &config.interfaces {
        let directory = root.fill(name, |directory| pin(&ebpf, directory))?;
        undo.0.push(directory);
    }
    if let (true, Some(first)) = (is_tcx, config.interfaces.first()) {
        for entry in entries {
            let ebpf = program::load_onto(&root.of(first), &contents.applied, entry)?;
            for name in &config.interfaces {
                pin_programs(&ebpf, &root.of(name))?;
            }
        }
    }
    Datapath::open(root)?.adopt_connections(None)?;
    let (mut guarded, mut failed) = (Vec::new(), Vec::new());
    // A slot has room for the entry of one kind: where there are both, for that of Ethernet.
    let mut names: Vec<_> = config.interfaces.iter().collect();
    names.sort_by_key(|name| framing_now(name).ok() == Some(Framing::BareIp));
    for name in names {
        match guard(root, name, &contents.applied) {
            Ok(attached) => guarded.extend(attached.map(|attached| Guarded {
                interface: name.clone(),
                attached,
            })),
            Err(error) if absent == Absent::Refuse => return Err(error),
            Err(error) => failed.push((name.clone(), error)),
        }
    }
    // Absent interfaces may appear later, but one that is there and refuses the program will go on to refuse it.
    let is_there = |(name, _): &(String, anyhow::Error)| links::index_of(name).is_some();
    if guarded.is_empty()
        && let Some(index) = failed.iter().position(is_there)
    {
        return Err(failed.swap_remove(index).1);
    }
    let into = contents.applied.circumstances.into.as_ref();
    let attachments = attachment::attachments(root, &config.interfaces, into, config.order)?;
    undo.0.clear();
    Ok(Up {
        before: Before::Nothing,
        guarded,
        into: into.cloned(),
        renewed: Vec::new(),
        attachments,
        failed,
        unused_keys,
    })
}

fn framing_now(name: &str) -> Result<Framing> {
    framing(name, index_of(name)?)
}

/// Returns the entries that the interfaces of a configuration need.
pub(super) fn entries(config: &Config, absent: Absent) -> Result<BTreeSet<Entry>> {
    let mut framings = BTreeSet::new();
    for name in &config.interfaces {
        match framing_now(name) {
            Ok(framing) => _ = framings.insert(framing),
            Err(error) if absent == Absent::Refuse => return Err(error),
            // Reported when the interface cannot be guarded.
            Err(_) => {}
        }
    }
    if framings.is_empty() {
        // Loaded now, so that a kernel that refuses the program does so before an interface appears.
        framings.insert(Framing::Ethernet);
    }
    let entry = match config.attach {
        Attach::Tcx => Entry::tcx,
        Attach::Auto | Attach::Native | Attach::Generic => Entry::xdp,
    };
    Ok(framings.into_iter().map(entry).collect())
}

/// Puts the keys into the tables of a program that is not attached yet. Returns why some of them cannot be used.
pub(super) fn begin_keys(
    ebpf: &Ebpf,
    contents: &Contents,
    keys: &Keys,
    root: &PinRoot,
) -> Result<Option<anyhow::Error>> {
    let config = &contents.applied.config;
    let Compiled { rows, unused } = keys.compile(&contents.applied, None)?;
    // Also where no knocks are taken: a later configuration may take some.
    let kept = Kept::take(&state_directory::path(), root.path());
    if config.knock.ports.is_empty() {
        return Ok(None);
    }
    KeyTables::open(ebpf)?.apply(&rows, &Newest::from(kept, config))?;
    Ok(unused)
}

/// Directories that this process has made, which are removed when the value is dropped.
#[derive(Default)]
struct Undo(Vec<PathBuf>);

impl Drop for Undo {
    fn drop(&mut self) {
        for directory in self.0.drain(..) {
            if let Err(error) = change::remove(&directory) {
                tracing::warn!("{error:#}");
            }
        }
    }
}
