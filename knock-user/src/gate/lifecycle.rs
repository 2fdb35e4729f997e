//! Bringing the gate up, repairing it and taking it down.
//!
//! Everything here holds the pin root's lock, so no two commands change what is pinned at the same time.
//! `up` makes one directory for each interface, whole but for the link, then attaches and pins the links. A
//! process that is killed on the way leaves directories under another name, which the next one removes, or
//! interfaces without a link, which the next one attaches.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{Ebpf, maps::Map};

use super::{
    Attachment, Framing, Lack, NEEDS_TO_LOAD, NotGuarded, NotPermitted, PinRoot, answering,
    attachment, capability, framing,
    interface::{self, Attached},
    is_denied, kernel_version, native,
    pins::{self, Contents, Directory},
    program,
    tables::{Gate, OpenGate, other_layout, pin_name},
};
use crate::{
    config::{Attach, Config},
    sys::{bpf, ethtool},
};

/// One interface that the gate has been put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub interface: String,
    pub attached: Attached,
}

/// What becomes of a configured interface that is not there, or that refuses the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Nothing comes up.
    Refuse,
    /// The others come up; this one is for a later [`repair`].
    Await,
}

/// What [`up`] has done.
#[derive(Debug)]
pub struct Up {
    /// A gate with the same configuration was up.
    pub was_up: bool,
    /// Interfaces that the gate has been put on now.
    pub mounted: Vec<Mounted>,
    /// How every interface is attached now.
    pub attachments: Vec<Attachment>,
    /// Interfaces that it could not be put on, and why.
    pub failed: Vec<(String, anyhow::Error)>,
}

/// Brings up the gate of `config`: loads the program, attaches it to its interfaces and pins everything, or changes
/// nothing. Where that gate is up, repairs what is broken about it: the same program and tables, with every
/// grant. When this returns, the kernel enforces alone.
pub fn up(config: &Config, root: &PinRoot, absent: Absent) -> Result<Up> {
    kernel_version::require()?;
    if config.interfaces.is_empty() {
        bail!(
            "no interface to guard: name one with `-i IFACE`, or with `interfaces = [...]` in the \
             configuration"
        );
    }
    capability::require()?;
    root.make()?;
    let _lock = root.lock()?;
    let result = up_locked(config, root, absent);
    // Under the lock: another command may be about to pin something there.
    root.tidy();
    result
}

fn up_locked(config: &Config, root: &PinRoot, absent: Absent) -> Result<Up> {
    match present(root)? {
        Some(gate) if gate.config == *config => take_over(gate, root),
        Some(gate) if attachment::held(root)?.is_empty() => {
            // Its `up` was killed before it had attached anything.
            drop(gate);
            for directory in root.directories()? {
                if directory.contents == Contents::Gate {
                    pins::remove(&directory.path)?;
                }
            }
            bring_up(config, root, absent)
        }
        Some(gate) => Err(another_configuration(&gate)?),
        None => bring_up(config, root, absent),
    }
}

/// The gate that is pinned, after what killed processes have left has been removed.
fn present(root: &PinRoot) -> Result<Option<Gate>> {
    let mut gate = false;
    for Directory {
        interface: _,
        path,
        contents,
    } in root.directories()?
    {
        match contents {
            Contents::OtherVersion => return Err(other_layout(&path)),
            Contents::Gate if is_on_an_interface(&path)? || pins::is_whole(&path) => gate = true,
            Contents::Gate | Contents::Unfinished => {
                tracing::info!(
                    "removed {}, which a knockgate that was killed has left",
                    path.display()
                );
                pins::remove(&path)?;
            }
            Contents::Foreign(_) => {}
        }
    }
    gate.then(|| OpenGate::at(root)).transpose()
}

fn is_on_an_interface(directory: &Path) -> Result<bool> {
    for path in pins::links(directory)? {
        let link =
            bpf::xdp_link(&path).with_context(|| format!("cannot look at {}", path.display()))?;
        if link.is_some_and(|link| link.interface.is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn another_configuration(gate: &Gate) -> Result<anyhow::Error> {
    let mut open = gate.attachments()?;
    open.retain(|attachment| !attachment.is_guarded());
    let open = if open.is_empty() {
        String::new()
    } else {
        format!(". Meanwhile, {}", NotGuarded(open))
    };
    Ok(anyhow!(
        "the gate that is up on {} was brought up with another configuration; take it down \
         with `knockgate down` to apply this one{open}",
        gate.config.interfaces.join(", ")
    ))
}

fn take_over(mut gate: Gate, root: &PinRoot) -> Result<Up> {
    let Repair { mounted, failed } = repair_all(&mut gate, root, &|_| true)?;
    Ok(Up {
        was_up: true,
        mounted,
        attachments: gate.attachments()?,
        failed,
    })
}

fn bring_up(config: &Config, root: &PinRoot, absent: Absent) -> Result<Up> {
    let mut framings = BTreeSet::new();
    for name in &config.interfaces {
        match interface::index(name).and_then(|index| framing(name, index)) {
            Ok(framing) => _ = framings.insert(framing),
            Err(error) if absent == Absent::Refuse => return Err(error),
            // Said when it cannot be guarded, below.
            Err(_) => {}
        }
    }
    if framings.is_empty() {
        // Loaded now, so that a program that the kernel refuses is not found out when an interface comes.
        framings.insert(Framing::Ethernet);
    }
    let mut undo = Undo::default();
    let mut ebpf = program::load(config, &framings)?;
    for name in &config.interfaces {
        let directory = root.fill(name, |directory| pin(&mut ebpf, directory))?;
        undo.0.push(directory);
    }
    let (mut mounted, mut failed) = (Vec::new(), Vec::new());
    for name in &config.interfaces {
        match guard(root, name, config) {
            Ok(attached) => mounted.push(Mounted {
                interface: name.clone(),
                attached,
            }),
            Err(error) if absent == Absent::Refuse => return Err(error),
            Err(error) => failed.push((name.clone(), error)),
        }
    }
    // Interfaces that are all absent may come; what refuses the program will not take it for being waited for.
    let is_there = |(name, _): &(String, anyhow::Error)| interface::find(name).is_some();
    if mounted.is_empty()
        && let Some(place) = failed.iter().position(is_there)
    {
        return Err(failed.swap_remove(place).1);
    }
    let attachments = attachment::attachments(root, &config.interfaces)?;
    undo.0.clear();
    Ok(Up {
        was_up: false,
        mounted,
        attachments,
        failed,
    })
}

/// What [`repair`] has done.
#[derive(Debug, Default)]
pub struct Repair {
    pub mounted: Vec<Mounted>,
    pub failed: Vec<(String, anyhow::Error)>,
}

/// Puts the gate on the configured interfaces that it is not on, except on those that were taken down by
/// themselves. Needs the lock.
pub fn repair(gate: &mut Gate, root: &PinRoot) -> Result<Repair> {
    repair_all(gate, root, &|lack| *lack != Lack::Down)
}

fn repair_all(gate: &mut Gate, root: &PinRoot, wanted: &dyn Fn(&Lack) -> bool) -> Result<Repair> {
    let mut repair = Repair::default();
    for attachment in gate.attachments()? {
        let name = attachment.configured;
        let Err(lack) = attachment.state else {
            continue;
        };
        if !wanted(&lack) {
            continue;
        }
        let attached =
            again(gate, root, &name, &lack).and_then(|()| guard(root, &name, &gate.config));
        match attached {
            Ok(attached) => repair.mounted.push(Mounted {
                interface: name,
                attached,
            }),
            Err(error) => repair.failed.push((name, error)),
        }
    }
    if !repair.mounted.is_empty() {
        // Answers go by the interface's index, which may be another one now.
        let surroundings = gate.surroundings(&gate.attachments()?)?;
        gate.set_surroundings(&surroundings)?;
    }
    Ok(repair)
}

/// Makes the directory of an interface that has none.
fn again(gate: &Gate, root: &PinRoot, name: &str, lack: &Lack) -> Result<()> {
    if *lack != Lack::Down {
        return Ok(());
    }
    let whole = gate.whole_directory()?;
    let from = whole.ok_or_else(|| other_layout(root.path()))?;
    root.fill(name, |directory| pins::copy(&from, directory))?;
    Ok(())
}

/// Attaches the program pinned for interface `name` to it, and pins the link.
fn guard(root: &PinRoot, name: &str, config: &Config) -> Result<Attached> {
    let index = interface::index(name)?;
    let directory = root.of(name);
    // Looked at now, since an interface may come back as another kind.
    let framing = framing(name, index)?;
    let pin = directory.join(pins::program(framing));
    if !pin.exists() {
        let mut ebpf = program::load_onto(&directory, config, framing)?;
        pin_programs(&mut ebpf, &directory)?;
    }
    let program = bpf::open(&pin).with_context(|| format!("cannot open {}", pin.display()))?;
    make_room(&directory)?;
    let (link, attached) = attach(&program, name, index, config)?;
    bpf::pin(&link, &directory.join(pins::LINK))
        .with_context(|| format!("cannot pin the link in {}", directory.display()))?;
    Ok(attached)
}

/// Removes links that are on no interface any more. One that is on a card with another name now keeps it
/// guarded under another name of its own.
fn make_room(directory: &Path) -> Result<()> {
    let cannot = || format!("cannot change the pins in {}", directory.display());
    for path in pins::links(directory)? {
        let link = bpf::xdp_link(&path).with_context(cannot)?;
        match link.and_then(|link| link.interface) {
            None => fs::remove_file(&path).with_context(cannot)?,
            Some(_) if !path.ends_with(pins::LINK) => {}
            Some(index) => {
                let mut other = directory.join(format!("{}%{index}", pins::LINK));
                // Indices are given anew in every network namespace.
                while other.exists() {
                    other.as_mut_os_string().push("%");
                }
                fs::rename(&path, other).with_context(cannot)?;
            }
        }
    }
    Ok(())
}

/// Detaches and removes what is pinned: for the interfaces named, or all where none is. Says which
/// it were. Needs no configuration, and nothing being up is fine. Removes nothing that isn't knockgate's.
pub fn down(root: &PinRoot, interfaces: &[String]) -> Result<Vec<String>> {
    match root.is_on_bpffs()? {
        None => return Ok(Vec::new()),
        Some(true) => {}
        Some(false) => bail!(
            "{} is not on a BPF file system, so no gate is pinned there: nothing was removed",
            root.path().display()
        ),
    }
    let Some(_lock) = root.lock_existing()? else {
        return Ok(Vec::new());
    };
    let (ours, foreign): (Vec<_>, Vec<_>) = root
        .directories()?
        .into_iter()
        .partition(|directory| !matches!(directory.contents, Contents::Foreign(_)));
    if ours.is_empty()
        && let Some(Directory {
            path,
            contents: Contents::Foreign(name),
            ..
        }) = foreign.first()
    {
        bail!(
            "what is in {} is not knockgate's (`{name}`, for one): nothing was removed",
            path.display()
        );
    }
    let mut removed: Vec<String> = Vec::new();
    for directory in select(root, ours, interfaces)? {
        pins::remove(&directory.path)?;
        if !removed.contains(&directory.interface) {
            removed.push(directory.interface);
        }
    }
    root.tidy();
    Ok(removed)
}

/// The directories of these interfaces; all where none is named. An interface may be called what it was when it was
/// pinned, or what it is now.
fn select(
    root: &PinRoot,
    directories: Vec<Directory>,
    interfaces: &[String],
) -> Result<Vec<Directory>> {
    if interfaces.is_empty() || directories.is_empty() {
        return Ok(directories);
    }
    let mut names: Vec<String> = directories
        .iter()
        .map(|directory| directory.interface.clone())
        .collect();
    names.dedup();
    let renamed = attachment::attachments(root, &[]).unwrap_or_default();
    let mut wanted = Vec::new();
    for interface in interfaces {
        let now = || renamed.iter().find(|row| row.name == *interface);
        if names.contains(interface) {
            wanted.push(interface.clone());
        } else if let Some(row) = now() {
            wanted.push(row.configured.clone());
        } else {
            bail!(
                "the gate is not up on {interface}; it is on {}",
                names.join(", ")
            );
        }
    }
    let is_wanted = |directory: &Directory| wanted.contains(&directory.interface);
    Ok(directories.into_iter().filter(is_wanted).collect())
}

/// Pins the program and all tables; what identifies the gate goes last.
fn pin(ebpf: &mut Ebpf, directory: &Path) -> Result<()> {
    const META: &str = "META";
    let pin_table = |name: &str, map: &Map| {
        map.pin(directory.join(pin_name(name)))
            .with_context(|| format!("cannot pin the table {name} in {}", directory.display()))
    };
    for (name, map) in ebpf.maps() {
        // Read-only data goes with the program; the rest is ours by name.
        if !name.starts_with('.') && name != META {
            pin_table(name, map)?;
        }
    }
    pin_programs(ebpf, directory)?;
    let meta = ebpf.map(META).context("the object has no table META")?;
    pin_table(META, meta)
}

/// Pins the entries that have been loaded.
fn pin_programs(ebpf: &mut Ebpf, directory: &Path) -> Result<()> {
    let [usual, frags, ip] = program::ENTRIES;
    for (entry, framing) in [
        (usual, Framing::Ethernet),
        (frags, Framing::Ethernet),
        (ip, Framing::BareIp),
    ] {
        if let Some(program) = program::loaded(ebpf, entry) {
            program
                .pin(directory.join(pins::program(framing)))
                .with_context(|| format!("cannot pin the program in {}", directory.display()))?;
        }
    }
    Ok(())
}

/// How the program is to be put on an interface. A veth sends answers back natively only where its peer
/// takes XDP frames, which can't be seen from here; in generic mode every interface sends them.
fn way(config: &Config, name: &str) -> Attach {
    let is_veth = || ethtool::driver(name).is_ok_and(|driver| driver == "veth");
    if !answering::rejects(config) || config.attach == Attach::Generic || !is_veth() {
        return config.attach;
    }
    if config.attach == Attach::Native {
        tracing::warn!(
            "{name} is a veth: with `attach = \"native\"`, what `deny = \"reject\"` answers gets lost \
             unless the other end carries an XDP program; `attach = \"generic\"` doesn't need one"
        );
        return Attach::Native;
    }
    tracing::warn!(
        "{name} is a veth, which may lose what `deny = \"reject\"` answers in native mode; attached in \
         generic mode"
    );
    Attach::Generic
}

/// Attaches by a link of the kernel's, the only kind that outlives this process.
fn attach(
    program: impl AsFd,
    name: &str,
    index: u32,
    config: &Config,
) -> Result<(OwnedFd, Attached)> {
    // Asked beforehand: an interface that carries a program in one mode refuses the other.
    if let Some(present) = interface::attached(index)? {
        bail!(
            "the interface {name} already carries an XDP program that is not this gate's: {}; \
             remove it first (`ip link set dev {name} xdp off`, or by the program that put it there)",
            interface::describe(present)
        );
    }
    let frags = program::can_take_frags(config);
    let link = |attached| link(program.as_fd(), name, index, attached, frags);
    match way(config, name) {
        Attach::Native => Ok((link(Attached::Native)?, Attached::Native)),
        Attach::Generic => Ok((link(Attached::Generic)?, Attached::Generic)),
        Attach::Auto => match link(Attached::Native) {
            Ok(link) => Ok((link, Attached::Native)),
            Err(error) if error.is::<NotPermitted>() => Err(error),
            Err(error) => {
                let link = link(Attached::Generic)?;
                tracing::warn!(
                    "{error:#}; attached in generic mode, which costs more for each packet"
                );
                Ok((link, Attached::Generic))
            }
        },
    }
}

fn link(
    program: impl AsFd,
    name: &str,
    index: u32,
    attached: Attached,
    frags: bool,
) -> Result<OwnedFd> {
    bpf::link_xdp(program, index, attached == Attached::Native).map_err(|error| {
        if is_denied(&error) {
            return NotPermitted {
                what: format!("to attach a program to {name}"),
                needs: NEEDS_TO_LOAD,
            }
            .into();
        }
        match attached {
            Attached::Native => anyhow!(
                "cannot attach to {name} in native mode: {}",
                native::refusal(name, frags, &error)
            ),
            Attached::Generic => anyhow!("cannot attach to {name}: {error}"),
        }
    })
}

/// Removes the directories that this process has made, unless they have been taken out of it.
#[derive(Default)]
struct Undo(Vec<PathBuf>);

impl Drop for Undo {
    fn drop(&mut self) {
        for directory in self.0.drain(..) {
            if let Err(error) = pins::remove(&directory) {
                tracing::warn!("{error:#}");
            }
        }
    }
}
