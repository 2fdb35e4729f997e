//! Whether each interface carries the program: by the kernel's link and by what the interface itself says it carries.
//! Pins alone do not show it.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind},
    num::NonZeroU32,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{
    entry::Entry,
    framing::{Framing, framing_of},
    pins::{
        directory::{self, Directory, Holds, PROGRAMS},
        root::PinRoot,
    },
    tcx,
    xdp::{self, Attached, Xdp},
};
use crate::{
    config::Order,
    datapath::{
        chain::into::{InSlot, IntoSlot},
        error::is_denied,
    },
    sys::{
        bpf::{self, Hook, Program, ProgramLink, tcx::Listed},
        links::{self, Link},
    },
};

/// An interface that is to be guarded, or one that is guarded under another name than the configured one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name in the configuration, and when the program was attached.
    pub configured: String,
    /// Its name now.
    pub name: String,
    /// Its index, where there is such an interface.
    pub index: Option<u32>,
    /// How the program is attached, or why it is not.
    pub state: Result<Attached, Lack>,
    /// Another XDP program on an interface that is not guarded.
    pub other: Option<Xdp>,
}

/// Why a configured interface is not guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// It has no pins: `down -i` has removed them.
    Down,
    /// There is no interface of this name.
    Absent,
    /// The interface that the program was attached to is in another network namespace now.
    Moved,
    /// The link is on no interface any more.
    Detached,
    /// There is no link.
    Unlinked,
    /// The link carries another program, which was put in place of ours (`BPF_LINK_UPDATE`), or ours, whose pin was removed.
    Replaced,
    /// At TCX, the program with this id gets packets first, which it may let by.
    Behind(u32),
    /// The interface that the program was attached to has this name now, and another interface has its name.
    Renamed(String),
    /// No array of programs is pinned where the program was put into one. The path.
    NoArray(String),
    /// The slot of the array is empty.
    SlotEmpty(String),
    /// The slot of the array holds another program.
    SlotTaken(String, u32),
    /// The interface carries no program that could call what is in the slot of the array.
    Uncalled(String),
    /// The slot of the array holds the entry for the other kind of interfaces: with a link header, or without.
    OtherFraming(String),
}

impl Attachment {
    pub fn is_guarded(&self) -> bool {
        self.state.is_ok()
    }

    /// Returns whether the program is in its place for the interface, though another one may have to call it or come first.
    pub fn is_attached(&self) -> bool {
        matches!(self.state, Ok(_) | Err(Lack::Behind(_) | Lack::Uncalled(_)))
    }

    /// Returns whether packets come by the interface that the program does not judge, or may: what is in front of it may let
    /// them by.
    pub fn is_open(&self) -> bool {
        self.index.is_some() && self.state.is_err()
    }

    /// Returns whether something can be done about it: what may call the program is not ours to attach.
    pub fn needs_repair(&self) -> bool {
        !matches!(self.state, Ok(_) | Err(Lack::Uncalled(_)))
    }

    pub fn renamed_from(&self) -> Option<&str> {
        (self.configured != self.name).then_some(self.configured.as_str())
    }
}

impl Lack {
    /// Returns the reason in the event `interface.lost`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Absent => "gone",
            Self::Moved => "moved",
            Self::Detached
            | Self::Unlinked
            | Self::Replaced
            | Self::NoArray(_)
            | Self::SlotEmpty(_)
            | Self::SlotTaken(..)
            | Self::Uncalled(_)
            | Self::OtherFraming(_) => "detached",
            Self::Behind(_) => "behind",
            Self::Renamed(_) => "renamed",
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => write!(f, "knockgate was taken down on it"),
            Self::Absent => write!(f, "there is no such interface"),
            Self::Moved => write!(f, "it was moved to another network namespace"),
            Self::Detached => write!(
                f,
                "the program was detached, or the interface was made again"
            ),
            Self::Unlinked => write!(f, "the program is not attached to it"),
            Self::Replaced => write!(
                f,
                "its link carries a program that is not pinned: another one, or knockgate's, if somebody has removed its pin"
            ),
            Self::Behind(program) => write!(
                f,
                "{} was attached in front of it at TCX, and may let packets by",
                xdp::program_name(*program)
            ),
            Self::NoArray(pin) => write!(f, "no array is pinned at {pin} any more"),
            Self::SlotEmpty(slot) => write!(f, "{slot} is empty"),
            Self::SlotTaken(slot, program) => {
                write!(f, "{slot} holds {} now", xdp::program_name(*program))
            }
            Self::Uncalled(slot) => write!(
                f,
                "it carries no XDP program, so nothing calls what is in {slot}: attach the one that does"
            ),
            Self::OtherFraming(slot) => write!(
                f,
                "the program in {slot} does not read packets of this kind of interface (with a link header, or without): \
                 bring it up by itself, with a --pin-root of its own"
            ),
            Self::Renamed(now) => write!(
                f,
                "it is another interface than the one that the program was attached to, which is called {now} now"
            ),
        }
    }
}

/// Returns the links pinned under `root`, each with the interface in whose directory it is.
pub fn held(root: &PinRoot) -> Result<Vec<(String, ProgramLink)>> {
    let mut held = Vec::new();
    let mut directories = root.directories()?;
    let programs = all_programs(&directories)?;
    directories.retain(|directory| directory.holds == Holds::Instance);
    for directory in &directories {
        for path in directory::links(&directory.path)? {
            let link = match bpf::program_link(&path) {
                // The kernel opens links only for those who may change them.
                Err(error)
                    if is_denied(&error) || error.kind() == ErrorKind::ReadOnlyFilesystem =>
                {
                    Some(likely_link(directory, &directories, &programs)?)
                }
                // Somebody has removed it since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                link => link.with_context(|| format!("cannot look at {}", path.display()))?,
            };
            held.extend(link.map(|link| (directory.interface.clone(), link)));
        }
    }
    Ok(held)
}

/// Returns the state of a link in a directory that may not be opened, by what interfaces say they carry: the one that has
/// the name of `pinned`, else one that has the name of none of the `directories`.
fn likely_link(
    pinned: &Directory,
    directories: &[Directory],
    programs: &[u32],
) -> Result<ProgramLink> {
    let interfaces = links::all().context("cannot ask the kernel about interfaces")?;
    // Only who may look at the programs at TCX can tell then, and need not where none of ours has ever been there.
    let framings = [Framing::Ethernet, Framing::BareIp];
    let mut entries = framings.map(Entry::tcx).into_iter();
    let may_be_at_tcx = entries.any(|entry| pinned.path.join(entry.pin()).exists());
    let mut carriers = Vec::new();
    for interface in &interfaces {
        let Some(index) = NonZeroU32::new(interface.index) else {
            continue;
        };
        let carried = xdp::carries(interface).map(|xdp| (Hook::Xdp, xdp.program, 0));
        let carried = carried.filter(|(_, program, _)| programs.contains(program));
        let carried = match carried {
            None if may_be_at_tcx => {
                let mut listed = tcx::list(index)?.into_iter();
                let ours = listed.find(|of| programs.contains(&of.program));
                ours.map(|of| (Hook::Tcx, of.program, of.link))
            }
            carried => carried,
        };
        carriers.extend(carried.map(|carried| (interface, index, carried)));
    }
    let is_others = |link: &Link| directories.iter().any(|of| of.interface == link.name);
    let carrier = carriers
        .iter()
        .find(|(link, ..)| link.name == pinned.interface)
        .or_else(|| carriers.iter().find(|(link, ..)| !is_others(link)));
    let (hook, program, id) = carrier.map_or((Hook::Xdp, 0, 0), |(_, _, carried)| *carried);
    Ok(ProgramLink {
        id,
        program,
        hook,
        interface: carrier.map(|(_, index, _)| *index),
    })
}

/// Returns the kernel's ids of the programs of the instance, and of a replacement that is going on, which guard as well.
pub(super) fn all_programs(directories: &[Directory]) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for directory in directories {
        if matches!(directory.holds, Holds::Instance | Holds::Unfinished) {
            all.extend(programs(&directory.path)?);
        }
    }
    Ok(all)
}

/// Returns the kernel's ids of the programs pinned in `directory`.
pub fn programs(directory: &Path) -> Result<Vec<u32>> {
    let mut programs = Vec::new();
    for name in PROGRAMS {
        programs.extend(program_if_there(&directory.join(name))?);
    }
    Ok(programs)
}

/// Returns the kernel's ids of an entry of the instance and of a replacement that is going on. Each directory may have loaded it
/// for itself.
pub(super) fn entries(directories: &[Directory], entry: Entry) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for directory in directories {
        if matches!(directory.holds, Holds::Instance | Holds::Unfinished) {
            ids.extend(program_if_there(&directory.path.join(entry.pin()))?);
        }
    }
    Ok(ids)
}

/// Returns the kernel's id of the program pinned at `pin`, if there is one.
fn program_if_there(pin: &Path) -> Result<Option<u32>> {
    match bpf::program(pin) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        program => id_of(pin, program).map(Some),
    }
}

/// Returns the kernel's id of the program pinned at `pin`.
pub(super) fn program_id(pin: &Path) -> Result<u32> {
    id_of(pin, bpf::program(pin))
}

fn id_of(pin: &Path, program: io::Result<Option<Program>>) -> Result<u32> {
    let program = program.with_context(|| format!("cannot look at {}", pin.display()))?;
    let program = program.with_context(|| format!("{} is no program", pin.display()))?;
    Ok(program.id)
}

/// Returns how the program pinned under `root` is attached to each interface in `configured`, and to each interface that
/// it has followed through a change of name. `into`: the slot that it is in, in place of links. `order`: its place at TCX.
pub fn attachments(
    root: &PinRoot,
    configured: &[String],
    into: Option<&IntoSlot>,
    order: Order,
) -> Result<Vec<Attachment>> {
    let mut directories = root.directories()?;
    if let Some(into) = into {
        return called(configured, &directories, into);
    }
    let programs = all_programs(&directories)?;
    directories.retain(|directory| directory.holds == Holds::Instance);
    let directories: Vec<String> = directories
        .into_iter()
        .map(|directory| directory.interface)
        .collect();
    let held = held(root)?;
    let mut present = Vec::new();
    let indices = held
        .iter()
        .filter_map(|(_, link)| Some(link.interface?.get()))
        .chain(configured.iter().filter_map(|name| links::index_of(name)));
    for index in indices {
        if present.iter().any(|link: &Link| link.index == index) {
            continue;
        }
        present
            .extend(links::with_index(index).context("cannot ask the kernel about an interface")?);
    }
    let mut lists = TcxLists::new();
    for (_, link) in &held {
        if let (Hook::Tcx, Some(index)) = (link.hook, link.interface) {
            lists.insert(index.get(), tcx::list(index)?);
        }
    }
    let mut rows = judge(configured, &directories, &programs, &held, &present, &lists);
    if order == Order::First {
        for row in &mut rows {
            require_first(row, &programs, &lists);
        }
    }
    Ok(rows)
}

/// The programs at TCX, by the index of the interface.
type TcxLists = BTreeMap<u32, Vec<Listed>>;

/// Has an interface count as guarded only where no other program gets packets first.
fn require_first(row: &mut Attachment, programs: &[u32], lists: &TcxLists) {
    if row.state == Ok(Attached::Tcx)
        && let Some(list) = row.index.and_then(|index| lists.get(&index))
        && let Some(first) = list.first()
        && !programs.contains(&first.program)
    {
        row.state = Err(Lack::Behind(first.program));
    }
}

/// Returns how an interface carries the program of a link, if it does.
fn carried(interface: &Link, link: &ProgramLink, lists: &TcxLists) -> Option<Attached> {
    match link.hook {
        Hook::Xdp => xdp::mode(interface, link.program),
        Hook::Tcx => {
            let mut list = lists.get(&interface.index)?.iter();
            list.any(|of| of.link == link.id && of.program == link.program)
                .then_some(Attached::Tcx)
        }
    }
}

/// Returns whether the program is in the slot, and how each interface carries what may call it.
fn called(
    configured: &[String],
    directories: &[Directory],
    into: &IntoSlot,
) -> Result<Vec<Attachment>> {
    let found = into.look()?;
    let is_pinned = |name: &String| {
        let mut pinned = directories.iter();
        pinned.any(|of| of.holds == Holds::Instance && of.interface == *name)
    };
    // What the program in the slot reads, if it is ours.
    let mut reads = None;
    if let InSlot::Program(program) = found {
        for framing in [Framing::Ethernet, Framing::BareIp] {
            if entries(directories, Entry::xdp(framing))?.contains(&program) {
                reads = Some(framing);
            }
        }
    }
    let mut rows = Vec::new();
    for name in configured {
        let index = links::index_of(name);
        let interface = match index {
            Some(index) => {
                links::with_index(index).context("cannot ask the kernel about an interface")?
            }
            None => None,
        };
        let carried = interface.as_ref().and_then(xdp::carries);
        let state = match found {
            _ if !is_pinned(name) => Err(Lack::Down),
            _ if interface.is_none() => Err(Lack::Absent),
            InSlot::NoArray => Err(Lack::NoArray(into.pin.display().to_string())),
            InSlot::Nothing => Err(Lack::SlotEmpty(into.to_string())),
            InSlot::Program(other) if reads.is_none() => {
                Err(Lack::SlotTaken(into.to_string(), other))
            }
            InSlot::Program(_)
                if interface.as_ref().and_then(|link| framing_of(link).ok()) != reads =>
            {
                Err(Lack::OtherFraming(into.to_string()))
            }
            InSlot::Program(_) => carried
                .map(|by| by.attached)
                .ok_or_else(|| Lack::Uncalled(into.to_string())),
        };
        rows.push(Attachment {
            configured: name.clone(),
            name: name.clone(),
            index,
            other: carried.filter(|_| state.is_err()),
            state,
        });
    }
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(rows)
}

/// Decides it from what was read: `directories`, `programs` and `held` of the pins, `present` and `lists` of this network
/// namespace.
fn judge(
    configured: &[String],
    directories: &[String],
    programs: &[u32],
    held: &[(String, ProgramLink)],
    present: &[Link],
    lists: &TcxLists,
) -> Vec<Attachment> {
    let mut found: Vec<Attachment> = Vec::new();
    // A link in another namespace may name an index that a guarded interface of this one has, too. Of two, the one
    // whose interface still has its name is believed.
    let interface_of = |pinned: &str, link: &ProgramLink| {
        let interface = present
            .iter()
            .find(|interface| Some(interface.index) == link.interface.map(NonZeroU32::get))?;
        let attached = carried(interface, link, lists)?;
        if !programs.contains(&link.program) {
            return None;
        }
        let claimed = held.iter().any(|(other, rival)| {
            other != pinned && rival.interface == link.interface && *other == interface.name
        });
        (interface.name == pinned || !claimed).then_some((interface, attached))
    };
    let is_replaced = |link: &ProgramLink| {
        let mut on = present.iter().filter(|_| !programs.contains(&link.program));
        on.any(|interface| {
            Some(interface.index) == link.interface.map(NonZeroU32::get)
                && carried(interface, link, lists).is_some()
        })
    };
    for (pinned, link) in held {
        let Some((interface, attached)) = interface_of(pinned, link) else {
            continue;
        };
        if found
            .iter()
            .all(|known| known.index != Some(interface.index))
        {
            found.push(Attachment {
                configured: pinned.clone(),
                name: interface.name.clone(),
                index: Some(interface.index),
                state: Ok(attached),
                other: None,
            });
        }
    }
    for name in configured {
        let interface = present.iter().find(|interface| interface.name == *name);
        let follows = found.iter().find(|known| known.configured == *name);
        let is_guarded = found.iter().any(|known| known.name == *name);
        if is_guarded || (interface.is_none() && follows.is_some()) {
            continue;
        }
        let own: Vec<&ProgramLink> = held
            .iter()
            .filter(|(pinned, _)| pinned == name)
            .map(|(_, link)| link)
            .collect();
        let lack = if !directories.contains(name) {
            Lack::Down
        } else if let Some(follows) = follows {
            Lack::Renamed(follows.name.clone())
        } else if own.iter().any(|link| is_replaced(link)) {
            Lack::Replaced
        } else if own.iter().any(|link| link.interface.is_some()) {
            Lack::Moved
        } else if interface.is_none() {
            Lack::Absent
        } else if own.is_empty() {
            Lack::Unlinked
        } else {
            Lack::Detached
        };
        found.push(Attachment {
            configured: name.clone(),
            name: name.clone(),
            index: interface.map(|interface| interface.index),
            state: Err(lack),
            other: interface.and_then(xdp::carries),
        });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

#[cfg(test)]
mod tests;
