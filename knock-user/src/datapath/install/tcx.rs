//! Attaching at TCX: what keeps the program from there, and its place among others.

use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    attach::Place,
    attachment,
    entry::Entry,
    framing::Framing,
    pins::{
        directory::{self, LINK},
        root::PinRoot,
    },
    program, xdp,
};
use crate::{
    config::{Attach, Config, Order},
    datapath::{
        compile::applied::Applied,
        error::{NEEDS_TO_SEE_TCX, NotPermitted, is_denied},
    },
    sys::{
        bpf::{
            self, Hook,
            tcx::{self, Listed},
        },
        kernel_version::{self, Version},
    },
};

/// The kernel that brought TCX.
const BROUGHT: Version = (6, 6);

/// Returns why the program of `config` cannot be attached to an interface at TCX, as one clause; `None` where it can.
pub fn hindrance(config: &Config, name: &str) -> Option<String> {
    if !kernel_version::is_at_least(BROUGHT) {
        Some(missing())
    } else if config.next_of(name).is_some() {
        Some("at TCX no XDP program can be called, which `next` asks for".to_owned())
    } else {
        None
    }
}

fn missing() -> String {
    let release = kernel_version::release().unwrap_or_default();
    let (major, minor) = BROUGHT;
    format!("this kernel ({release}) has no TCX, which came with Linux {major}.{minor}")
}

/// Refuses `attach = "tcx"` on a kernel that does not have it. `is_called`: the program is put into another's array.
pub(super) fn require(config: &Config, is_called: bool) -> Result<()> {
    if config.attach != Attach::Tcx {
        return Ok(());
    }
    if !kernel_version::is_at_least(BROUGHT) {
        bail!(
            "{}: set `attach` to \"auto\", \"native\" or \"generic\"",
            missing()
        );
    }
    if is_called {
        bail!(
            "`--into` puts an XDP program into an array of such programs, and `attach = \"tcx\"` asks for another kind: leave \
             out one or the other"
        );
    }
    Ok(())
}

/// Refuses an interface that another instance guards at TCX: each would go in front of the other, without end.
pub(super) fn refuse_another_instance(place: &Place<'_>) -> Result<()> {
    let own = attachment::programs(place.pins)?;
    let names = [Framing::Ethernet, Framing::BareIp].map(|framing| Entry::tcx(framing).name());
    for Listed { program, .. } in listed(place)? {
        if !own.contains(&program) && names.iter().any(|name| xdp::is_called(program, name)) {
            bail!(
                "{} is guarded at TCX by another instance ({}): take that one down, by `knockgate down` with its `--pin-root`",
                place.name,
                xdp::program_name(program)
            );
        }
    }
    Ok(())
}

/// Returns the programs at TCX on the interface `index`, in the order in which packets pass them.
pub(super) fn list(index: NonZeroU32) -> Result<Vec<Listed>> {
    tcx::list(index.get()).map_err(|error| {
        if is_denied(&error) {
            return NotPermitted {
                what: "to look at the programs at TCX".to_owned(),
                needs: NEEDS_TO_SEE_TCX,
            }
            .into();
        }
        anyhow::Error::new(error).context("cannot look at the programs at TCX")
    })
}

/// Puts the program in front of the others on an interface that it is attached to, with no moment in which it is not: a copy
/// of it goes first, then the link of the one behind is removed. A packet in between is judged by both. What a process leaves
/// that ends before the end is for [`complete`].
pub(super) fn bring_forward(place: &Place<'_>) -> Result<()> {
    let Place {
        pins,
        name,
        index,
        framing,
        applied,
    } = *place;
    if complete(place)? && is_first(place)? {
        return Ok(());
    }
    let cannot = || cannot(name);
    let program = place.program(Hook::Tcx)?;
    let own = own(place)?;
    let copy = program::load_onto(pins, applied, Entry::tcx(framing))?;
    let copy = program::loaded(&copy, Entry::tcx(framing).name()).with_context(cannot)?;
    let link = tcx::link(copy, index, applied.config.order == Order::First).with_context(cannot)?;
    let pin = first(place);
    bpf::pin(&link, &pin).with_context(cannot)?;
    for path in directory::links(pins)? {
        let other = bpf::program_link(&path).with_context(cannot)?;
        let is_behind = |other: &bpf::ProgramLink| Some(other.id) == own.map(|own| own.link);
        if other.as_ref().is_some_and(is_behind) {
            bpf::detach_link(&path).with_context(cannot)?;
            fs::remove_file(&path).with_context(cannot)?;
        }
    }
    bpf::update_link(&link, &program, copy).with_context(cannot)?;
    fs::rename(&pin, unused(pins)).with_context(cannot)
}

/// Brings to its end what a process has begun with [`bring_forward`] that has ended half-way. Returns whether there was
/// anything. Afterwards the interface carries the program by one link, if it did by any.
pub(super) fn complete(place: &Place<'_>) -> Result<bool> {
    let cannot = || cannot(place.name);
    let pin = first(place);
    if !pin.exists() {
        return Ok(false);
    }
    let link = bpf::program_link(&pin).with_context(cannot)?;
    let is_here = link.is_some_and(|link| link.interface.is_some());
    match own(place)? {
        // It was complete but for the name of the pin.
        Some(own) if link.is_some_and(|link| link.id == own.link) => {
            fs::rename(&pin, unused(place.pins)).with_context(cannot)?;
        }
        // The copy is in front of the program.
        Some(_) if is_here => {
            bpf::detach_link(&pin).with_context(cannot)?;
            fs::remove_file(&pin).with_context(cannot)?;
        }
        // The copy is there in place of the program.
        None if is_here => {
            let program = place.program(Hook::Tcx)?;
            let link = bpf::open(&pin).with_context(cannot)?;
            bpf::set_program(link, program).with_context(cannot)?;
            fs::rename(&pin, unused(place.pins)).with_context(cannot)?;
        }
        _ => fs::remove_file(&pin).with_context(cannot)?,
    }
    Ok(true)
}

/// As [`complete`], on every interface of what is pinned under `root`. Until then an interface may carry only a copy of the program that
/// nothing has pinned, and that counts as another's. `applied`: of the instance, or what comes into force in its place.
pub(super) fn complete_all(root: &PinRoot, applied: &Applied) -> Result<()> {
    let Applied {
        config,
        circumstances,
        ..
    } = applied;
    let into = circumstances.into.as_ref();
    let attachments = attachment::attachments(root, &config.interfaces, into, config.order)?;
    let mut completed = Ok(());
    for row in attachments.iter().filter(|row| row.index.is_some()) {
        // One whose kind cannot be read carries nothing of ours.
        if let Ok(place) = Place::of(&root.of(&row.configured), &row.name, applied) {
            completed = completed.and(complete(&place).map(drop));
        }
    }
    completed
}

fn cannot(name: &str) -> String {
    format!("cannot put the program in front of the others on {name}")
}

/// Returns the pin of the link that goes first while the other one is still there.
fn first(place: &Place<'_>) -> PathBuf {
    place.pins.join(format!("{LINK}%{}-first", place.index))
}

/// Returns the program of this interface where it is in the list at TCX.
fn own(place: &Place<'_>) -> Result<Option<Listed>> {
    let pin = place.pins.join(Entry::tcx(place.framing).pin());
    if !pin.exists() {
        return Ok(None);
    }
    let id = attachment::program_id(&pin)?;
    let mut listed = listed(place)?.into_iter();
    Ok(listed.find(|of| of.program == id))
}

/// Returns whether the interface carries the program at TCX.
pub(super) fn carries(place: &Place<'_>) -> Result<bool> {
    Ok(own(place)?.is_some())
}

fn is_first(place: &Place<'_>) -> Result<bool> {
    let own = own(place)?;
    Ok(own.is_some() && listed(place)?.first() == own.as_ref())
}

fn listed(place: &Place<'_>) -> Result<Vec<Listed>> {
    NonZeroU32::new(place.index).map_or_else(|| Ok(Vec::new()), list)
}

/// Returns a pin for a link that is not in use.
fn unused(pins: &Path) -> PathBuf {
    let mut pin = pins.join(LINK);
    while pin.exists() {
        pin.as_mut_os_string().push("%");
    }
    pin
}
