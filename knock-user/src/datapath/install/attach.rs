//! Attaches the program to an interface by a BPF link, and pins the link.

use std::{fs, os::fd::OwnedFd, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::Ebpf;

use super::{
    attachment::{self, Lack},
    entry::Entry,
    framing::{Framing, framing, index_of},
    native, owned,
    pins::{
        access,
        directory::{self, LINK},
        root::PinRoot,
    },
    program::{self, ENTRIES},
    tcx,
    xdp::{self, Attached},
};
use crate::{
    config::{Attach, Config, Order},
    datapath::{
        chain::{
            into::{self, InSlot},
            next,
        },
        compile::applied::Applied,
        error::{NEEDS_TO_LOAD, NotPermitted, is_denied},
        tables::{Access, PinDirectory},
        write,
    },
    sys::{
        bpf::{self, Hook, ProgramLink},
        ethtool,
    },
};

/// An interface that the program has been attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    pub interface: String,
    pub attached: Attached,
}

/// The name of libxdp's dispatcher in the kernel.
const LIBXDP_DISPATCHER: &str = "xdp_dispatcher";

/// Attaches the program pinned for interface `name` to it, and pins the link. `None`: it is in a slot of another's array, and the
/// interface carries no program that could call it.
pub(super) fn guard(root: &PinRoot, name: &str, applied: &Applied) -> Result<Option<Attached>> {
    guard_in(root, &root.of(name), name, applied)
}

/// As [`guard`], with the program pinned in the directory `pins`.
pub(super) fn guard_in(
    root: &PinRoot,
    pins: &Path,
    name: &str,
    applied: &Applied,
) -> Result<Option<Attached>> {
    let config = &applied.config;
    let place = Place::of(pins, name, applied)?;
    let (index, framing) = (place.index, place.framing);
    let tables = PinDirectory {
        path: pins.to_owned(),
        access: Access::Change,
    };
    write::add_bond(&tables, index)?;
    if config.next_of(name).is_some() {
        // An array takes its kind from the first program that belongs to it, and that has to be ours.
        place.program(Hook::Xdp)?;
    }
    // Before ours is attached, so that nothing passes without it; but what is to follow never keeps an interface from being guarded.
    let followed = next::prepare(&tables, config, name, index, framing);
    let attached = put_in_place(root, &place)?;
    if let Err(error) = followed {
        tracing::warn!("{error:#}");
    }
    Ok(attached)
}

/// Attaches the program, or puts it into the slot that it belongs in.
fn put_in_place(root: &PinRoot, place: &Place<'_>) -> Result<Option<Attached>> {
    let Place {
        pins,
        index,
        framing,
        applied,
        ..
    } = *place;
    if let Some(into) = &applied.circumstances.into {
        let program = place.program(Hook::Xdp)?;
        // One slot holds the entry for one kind of interface, whichever interface it was loaded for. One for the other kind is
        // exchanged where no interface needs it any more.
        let directories = root.directories()?;
        let mut ours = attachment::entries(&directories, Entry::xdp(framing))?;
        let for_other_kind = attachment::entries(&directories, Entry::xdp(framing.other()))?;
        let is_one_kind = into::framings(&applied.config).len() == 1;
        let held = match into.look()? {
            InSlot::Program(program) => Some(program),
            InSlot::NoArray | InSlot::Nothing => None,
        };
        if is_one_kind {
            ours.extend(&for_other_kind);
        } else if held.is_some_and(|program| for_other_kind.contains(&program)) {
            bail!("{}", Lack::OtherFraming(into.to_string()));
        }
        // One that is pinned nowhere is known by what it is called.
        let is_for_this_kind = |program| {
            let mut names = owned::names(Entry::xdp(framing));
            is_one_kind || names.any(|name| xdp::is_called(program, name))
        };
        if let Some(program) = held
            && !attachment::all_programs(&directories)?.contains(&program)
            && is_for_this_kind(program)
            && owned::is_of_any(program, &directories)?
        {
            ours.push(program);
        }
        into.enter(&program, &ours)?;
        return Ok(xdp::attached(index)?.map(|by| by.attached));
    }
    if tcx::complete(place)? && tcx::carries(place)? {
        return Ok(Some(Attached::Tcx));
    }
    // Of what is replaced, where `pins` is to take its place.
    if let Some(attached) = make_room(&root.of(place.name), place)? {
        return Ok(Some(attached));
    }
    let (link, attached) = attach(place)?;
    remove_dead(pins)?;
    bpf::pin(&link, &pins.join(LINK))
        .with_context(|| format!("cannot pin the link in {}", pins.display()))?;
    access::level(pins, LINK);
    Ok(Some(attached))
}

/// An interface that is to be guarded, and the directory with what guards it.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub pins: &'a Path,
    pub name: &'a str,
    pub index: u32,
    pub framing: Framing,
    pub applied: &'a Applied,
}

impl<'a> Place<'a> {
    /// Reads what the interface is now, since it may have been made again as another kind.
    pub fn of(pins: &'a Path, name: &'a str, applied: &'a Applied) -> Result<Self> {
        let index = index_of(name)?;
        Ok(Self {
            pins,
            name,
            index,
            framing: framing(name, index)?,
            applied,
        })
    }

    /// Opens the entry for this interface, which is loaded and pinned where it has not been needed before.
    pub fn program(&self, hook: Hook) -> Result<OwnedFd> {
        let entry = Entry {
            hook,
            framing: self.framing,
        };
        let pin = self.pins.join(entry.pin());
        if !pin.exists() {
            let ebpf = program::load_onto(self.pins, self.applied, entry)?;
            pin_programs(&ebpf, self.pins)?;
            access::level(self.pins, entry.pin());
        }
        bpf::open(&pin).with_context(|| format!("cannot open {}", pin.display()))
    }
}

/// Has a link in `directory` that carries another program on the interface carry the one for `place`, and returns in which mode it does.
/// That other one may be ours, whose pin somebody has removed, so it is in its place until then. A link in a mode that the configuration
/// does not admit is removed. One whose interface has been renamed keeps guarding it, and gets another pin.
fn make_room(directory: &Path, place: &Place<'_>) -> Result<Option<Attached>> {
    let cannot = || format!("cannot change the pins in {}", directory.display());
    let Applied { config, .. } = place.applied;
    let programs = attachment::programs(directory)?;
    let mut carried = None;
    for path in directory::links(directory)? {
        let Some(link) = bpf::program_link(&path).with_context(cannot)? else {
            continue;
        };
        let Some(on) = link.interface else { continue };
        if on.get() != place.index || programs.contains(&link.program) {
            if path.ends_with(LINK) {
                fs::rename(&path, directory::free_link(directory, on)).with_context(cannot)?;
            }
            continue;
        }
        let attached =
            mode_of(&link, place.index)?.filter(|mode| admits(config, place.name, *mode));
        if let (None, Some(attached)) = (carried, attached) {
            let program = place.program(link.hook)?;
            bpf::open(&path)
                .and_then(|link| bpf::set_program(link, program))
                .with_context(|| format!("cannot put the program back on {}", place.name))?;
            carried = Some(attached);
        } else {
            // Loaded first: the interface is open until it is attached.
            let hook = match config.attach {
                Attach::Tcx => Hook::Tcx,
                Attach::Auto | Attach::Native | Attach::Generic => Hook::Xdp,
            };
            place.program(hook)?;
            // Removing the pin is not enough: the kernel detaches the program only some time later.
            bpf::detach_link(&path).with_context(cannot)?;
            fs::remove_file(&path).with_context(cannot)?;
        }
    }
    Ok(carried)
}

/// Returns in which mode a link attaches its program to the interface `index`.
fn mode_of(link: &ProgramLink, index: u32) -> Result<Option<Attached>> {
    Ok(match link.hook {
        Hook::Tcx => Some(Attached::Tcx),
        Hook::Xdp => xdp::attached(index)?
            .filter(|by| by.program == link.program)
            .map(|by| by.attached),
    })
}

/// Returns whether a configuration admits that an interface is guarded in this mode.
pub(super) fn admits(config: &Config, name: &str, attached: Attached) -> bool {
    match config.attach {
        // There, no XDP program can be called.
        Attach::Auto => attached != Attached::Tcx || config.next_of(name).is_none(),
        Attach::Native => attached == Attached::Native,
        Attach::Generic => attached == Attached::Generic,
        Attach::Tcx => attached == Attached::Tcx,
    }
}

/// Removes links that are on no interface any more.
fn remove_dead(directory: &Path) -> Result<()> {
    let cannot = || format!("cannot change the pins in {}", directory.display());
    for path in directory::links(directory)? {
        let link = bpf::program_link(&path).with_context(cannot)?;
        if link.is_none_or(|link| link.interface.is_none()) {
            fs::remove_file(&path).with_context(cannot)?;
        }
    }
    Ok(())
}

/// Pins the entries that have been loaded.
pub(super) fn pin_programs(ebpf: &Ebpf, directory: &Path) -> Result<()> {
    let frags = ENTRIES[1];
    let entries = Entry::ALL.map(|entry| (entry.name(), entry));
    for (name, entry) in entries
        .into_iter()
        .chain([(frags, Entry::xdp(Framing::Ethernet))])
    {
        if let Some(program) = program::loaded(ebpf, name) {
            bpf::pin(program, &directory.join(entry.pin()))
                .with_context(|| format!("cannot pin the program in {}", directory.display()))?;
        }
    }
    Ok(())
}

/// Attaches in native mode, unless another mode is possible and better.
fn link_natively(place: &Place<'_>) -> Result<(OwnedFd, Attached)> {
    let Place { name, applied, .. } = place;
    let config = &applied.config;
    let driver = ethtool::driver(name).unwrap_or_default();
    if let Some(lost) = native::lost_replies(config, name, &driver) {
        if config.attach == Attach::Auto {
            bail!("{lost}");
        }
        tracing::warn!("{lost}");
    }
    link(place, Attached::Native).map(|link| (link, Attached::Native))
}

/// Returns what to say of another's program on an interface.
pub(super) fn taken(name: &str, present: xdp::Xdp) -> String {
    format!(
        "the interface {name} already carries an XDP program that is not knockgate's: {}",
        xdp::describe(present)
    )
}

/// Adds to that what can be done about it. `hindrance`: what keeps ours from TCX.
pub(super) fn beside(present: xdp::Xdp, name: &str, hindrance: Option<String>) -> String {
    let taken = taken(name, present);
    let at_tcx = format!(
        "attach behind it, with `attach = \"tcx\"`{}",
        hindrance.map_or_else(String::new, |why| format!(" (not here: {why})"))
    );
    if xdp::is_called(present.program, LIBXDP_DISPATCHER) {
        return format!(
            "{taken}, libxdp's dispatcher; {at_tcx}; or take it off (`xdp-loader unload {name} --all`), load what it calls by \
             itself, pin that, and name it as `next`, so that it gets what passes"
        );
    }
    format!(
        "{taken}; remove it first (`ip link set dev {name} xdp off`, or by the program that put it there) and name it as \
         `next`, so that it gets what passes; or, if it calls programs through an array, put knockgate's into that array: \
         `--into PIN`; or {at_tcx}"
    )
}

/// Attaches by a BPF link, the only kind of attachment that outlives this process.
fn attach(place: &Place<'_>) -> Result<(OwnedFd, Attached)> {
    let Place {
        name,
        index,
        applied: Applied { config, .. },
        ..
    } = place;
    let mode = config.attach;
    let link = |attached| link(place, attached).map(|link| (link, attached));
    if mode == Attach::Tcx {
        return link(Attached::Tcx);
    }
    let hindrance = tcx::hindrance(config, name);
    // Checked first, since an interface that carries a program in one mode refuses the other with another error.
    if let Some(present) = xdp::attached(*index)? {
        let taken = taken(name, present);
        if mode == Attach::Auto && hindrance.is_none() {
            let linked = link(Attached::Tcx)?;
            tracing::warn!("{taken}; attached at TCX, behind it");
            return Ok(linked);
        }
        bail!(beside(present, name, hindrance));
    }
    match mode {
        Attach::Native => link_natively(place),
        Attach::Generic => link(Attached::Generic),
        Attach::Auto | Attach::Tcx => match link_natively(place) {
            Ok(linked) => Ok(linked),
            Err(error) if error.is::<NotPermitted>() => Err(error),
            Err(native) => {
                let at_tcx = match &hindrance {
                    None => link(Attached::Tcx),
                    Some(why) => Err(anyhow!("{why}")),
                };
                match at_tcx {
                    Ok(linked) => {
                        tracing::warn!(
                            "{native:#}; attached at TCX, which costs more for each packet"
                        );
                        Ok(linked)
                    }
                    Err(error) if error.is::<NotPermitted>() => Err(error),
                    Err(tcx) => {
                        let linked = link(Attached::Generic)?;
                        tracing::warn!(
                            "{native:#}; {tcx:#}; attached in generic mode, which costs more for each packet"
                        );
                        Ok(linked)
                    }
                }
            }
        },
    }
}

fn link(place: &Place<'_>, attached: Attached) -> Result<OwnedFd> {
    let Place {
        name,
        index,
        applied: Applied { config, .. },
        ..
    } = place;
    let linked = if attached == Attached::Tcx {
        tcx::refuse_another_instance(place)?;
        let program = place.program(Hook::Tcx)?;
        bpf::tcx::link(program, *index, config.order == Order::First)
    } else {
        let program = place.program(Hook::Xdp)?;
        bpf::link_xdp(program, *index, attached == Attached::Native)
    };
    linked.map_err(|error| {
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
                native::refusal(name, program::can_take_frags(config), &error)
            ),
            Attached::Tcx => anyhow!("cannot attach to {name} at TCX: {error}"),
            Attached::Generic => anyhow!("cannot attach to {name}: {error}"),
        }
    })
}
