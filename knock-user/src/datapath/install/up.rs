//! Brings a configuration up.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::Ebpf;

use super::{
    attach::{Guarded, guard, pin_programs},
    attachment::{self, Attachment, NotGuarded},
    framing::{Framing, framing, index_of},
    pins::{
        change,
        directory::{self, Directory, Holds},
        root::PinRoot,
    },
    program,
    repair::{self, Repair},
    requirements,
};
use crate::{
    config::Config,
    datapath::{
        error::other_version,
        open::Datapath,
        tables::{self, Definition},
    },
    sys::{bpf, links},
};

/// What happens where a configured interface is absent or refuses the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Nothing comes up.
    Refuse,
    /// The others come up; this one is left to a later repair.
    Await,
}

/// The outcome of [`up`].
#[derive(Debug)]
pub struct Up {
    /// The same configuration was up before.
    pub was_up: bool,
    /// Interfaces that the program has been attached to now.
    pub guarded: Vec<Guarded>,
    /// How the program is attached to every interface now.
    pub attachments: Vec<Attachment>,
    /// Interfaces that it could not be attached to, and why.
    pub failed: Vec<(String, anyhow::Error)>,
}

/// Brings up `config`: loads the program, attaches it to its interfaces and pins everything, or changes nothing. Where
/// the same configuration is up, repairs what is broken about it: the program and its tables stay, with every grant.
/// When this returns, the kernel enforces alone.
pub fn up(config: &Config, root: &PinRoot, absent: Absent) -> Result<Up> {
    requirements::require_kernel()?;
    if config.interfaces.is_empty() {
        bail!(
            "no interface to guard: name one with `-i IFACE`, or with `interfaces = [...]` in the \
             configuration"
        );
    }
    requirements::require_capabilities()?;
    root.make()?;
    let _lock = root.lock()?;
    let result = up_locked(config, root, absent);
    // Under the lock: another command may be about to pin something there.
    root.tidy();
    result
}

fn up_locked(config: &Config, root: &PinRoot, absent: Absent) -> Result<Up> {
    match present(root)? {
        Some(datapath) if datapath.config() == config => take_over(datapath, root),
        Some(datapath) if attachment::held(root)?.is_empty() => {
            // Its `up` was killed before it had attached anything.
            drop(datapath);
            for directory in root.directories()? {
                if directory.holds == Holds::Instance {
                    change::remove(&directory.path)?;
                }
            }
            bring_up(config, root, absent)
        }
        Some(datapath) => Err(another_configuration(&datapath)?),
        None => bring_up(config, root, absent),
    }
}

/// Returns what is up, after removing what killed processes have left.
fn present(root: &PinRoot) -> Result<Option<Datapath>> {
    let mut is_up = false;
    for Directory {
        interface: _,
        path,
        holds,
    } in root.directories()?
    {
        match holds {
            Holds::OtherVersion => return Err(other_version(&path)),
            Holds::Instance if is_on_an_interface(&path)? || directory::is_whole(&path) => {
                is_up = true;
            }
            Holds::Instance | Holds::Unfinished => {
                tracing::info!(
                    "removed {}, which a knockgate that was killed has left",
                    path.display()
                );
                change::remove(&path)?;
            }
            Holds::Foreign(_) => {}
        }
    }
    is_up.then(|| Datapath::open(root)).transpose()
}

fn is_on_an_interface(directory: &Path) -> Result<bool> {
    for path in directory::links(directory)? {
        let link =
            bpf::xdp_link(&path).with_context(|| format!("cannot look at {}", path.display()))?;
        if link.is_some_and(|link| link.interface.is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn another_configuration(datapath: &Datapath) -> Result<anyhow::Error> {
    let not_guarded = NotGuarded::among(&datapath.attachments()?);
    let not_guarded = not_guarded.map(|lacks| format!(". Meanwhile, {lacks}"));
    Ok(anyhow!(
        "another configuration is up on {}; take it down with `knockgate down` to apply this one{}",
        datapath.config().interfaces.join(", "),
        not_guarded.unwrap_or_default()
    ))
}

fn take_over(mut datapath: Datapath, root: &PinRoot) -> Result<Up> {
    let Repair { guarded, failed } = repair::repair_all(&mut datapath, root)?;
    Ok(Up {
        was_up: true,
        guarded,
        attachments: datapath.attachments()?,
        failed,
    })
}

fn bring_up(config: &Config, root: &PinRoot, absent: Absent) -> Result<Up> {
    let mut framings = BTreeSet::new();
    for name in &config.interfaces {
        match index_of(name).and_then(|index| framing(name, index)) {
            Ok(framing) => _ = framings.insert(framing),
            Err(error) if absent == Absent::Refuse => return Err(error),
            // Reported when the interface cannot be guarded, below.
            Err(_) => {}
        }
    }
    if framings.is_empty() {
        // Loaded now, so that a kernel that refuses the program does so before an interface appears.
        framings.insert(Framing::Ethernet);
    }
    let mut undo = Undo::default();
    let mut ebpf = program::load(config, &framings)?;
    for name in &config.interfaces {
        let directory = root.fill(name, |directory| pin(&mut ebpf, directory))?;
        undo.0.push(directory);
    }
    let (mut guarded, mut failed) = (Vec::new(), Vec::new());
    for name in &config.interfaces {
        match guard(root, name, config) {
            Ok(attached) => guarded.push(Guarded {
                interface: name.clone(),
                attached,
            }),
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
    let attachments = attachment::attachments(root, &config.interfaces)?;
    undo.0.clear();
    Ok(Up {
        was_up: false,
        guarded,
        attachments,
        failed,
    })
}

/// Pins the programs and all tables; the table that identifies the instance goes last.
fn pin(ebpf: &mut Ebpf, directory: &Path) -> Result<()> {
    let identity = &tables::META.definition;
    for table in tables::ALL {
        if table.name != identity.name {
            pin_table(ebpf, table, directory)?;
        }
    }
    pin_programs(ebpf, directory)?;
    pin_table(ebpf, identity, directory)
}

fn pin_table(ebpf: &Ebpf, table: &Definition, directory: &Path) -> Result<()> {
    let name = table.name;
    let map = ebpf
        .map(name)
        .with_context(|| format!("the object has no table {name}"))?;
    map.pin(directory.join(table.pin_name()))
        .with_context(|| format!("cannot pin the table {name} in {}", directory.display()))
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
