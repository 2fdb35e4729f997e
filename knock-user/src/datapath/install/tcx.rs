//! Attaching at TCX: what keeps the program from there, and its place among others.

use std::{fs, num::NonZeroU32, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{
    attach::Place,
    entry::Entry,
    pins::directory::{self, LINK},
    program,
};
use crate::{
    config::{Attach, Config, Order},
    datapath::{
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
             out the one or the other"
        );
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
/// of it goes first, then the link of the one behind is removed. A packet in between is judged by both.
pub(super) fn bring_forward(place: &Place<'_>) -> Result<()> {
    let Place {
        pins,
        name,
        index,
        framing,
        applied,
    } = *place;
    let cannot = || format!("cannot put the program in front of the others on {name}");
    let program = place.program(Hook::Tcx)?;
    let copy = program::load_onto(pins, applied, Entry::tcx(framing))?;
    let copy = program::loaded(&copy, Entry::tcx(framing).name()).with_context(cannot)?;
    let link = tcx::link(copy, index, applied.config.order == Order::First).with_context(cannot)?;
    let pin = pins.join(format!("{LINK}%{index}-first"));
    bpf::pin(&link, &pin).with_context(cannot)?;
    for path in directory::links(pins)? {
        let is_behind = |on: &bpf::ProgramLink| {
            on.hook == Hook::Tcx && on.interface.is_some_and(|on| on.get() == index)
        };
        let other = bpf::program_link(&path).with_context(cannot)?;
        if path != pin && other.as_ref().is_some_and(is_behind) {
            bpf::detach_link(&path).with_context(cannot)?;
            fs::remove_file(&path).with_context(cannot)?;
        }
    }
    bpf::update_link(&link, &program, copy).with_context(cannot)?;
    fs::rename(&pin, unused(pins)).with_context(cannot)
}

/// Returns a pin for a link that is not in use.
fn unused(pins: &Path) -> std::path::PathBuf {
    let mut pin = pins.join(LINK);
    while pin.exists() {
        pin.as_mut_os_string().push("%");
    }
    pin
}
