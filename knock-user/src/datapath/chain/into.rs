//! The array of another's by which ours is called, in place of a link of our own: `up --into PIN[SLOT]`.
//!
//! The slot is written last and emptied first, as a link is made and detached, and only while it is free or holds a
//! program of this instance. Which array and slot it is stands with the configuration in force, so that the next command
//! finds it after a crash.

use std::{
    collections::BTreeSet,
    fmt,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::{IntoArgument, kind::is_mismatch, pin};
use crate::{
    config::Config,
    datapath::{
        compile::applied::Applied,
        install::{
            attachment,
            framing::{Framing, framing, index_of},
            owned,
            pins::{
                lock::{Busy, Lock},
                root::PinRoot,
            },
            xdp,
        },
        open,
    },
    sys::bpf::{
        self,
        programs::{self, Array},
    },
};

/// A slot of another's array of programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntoSlot {
    /// Where the array is pinned.
    pub pin: PathBuf,
    pub slot: u32,
}

impl fmt::Display for IntoSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.pin.display(), self.slot)
    }
}

/// An array of programs that has been opened.
pub struct OpenArray {
    pub array: OwnedFd,
    pub slots: u32,
}

/// What is in the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InSlot {
    /// No array of programs is pinned there any more.
    NoArray,
    Nothing,
    /// The program with this id.
    Program(u32),
}

impl IntoSlot {
    /// Opens the array. Fails where none is pinned.
    pub fn open(&self) -> Result<OpenArray> {
        open_array(&self.pin)
    }

    /// Returns what is in the slot.
    pub fn look(&self) -> Result<InSlot> {
        let Some(OpenArray { array, .. }) = self.open_to_look()? else {
            return Ok(InSlot::NoArray);
        };
        let program = programs::slot(&array, self.slot).with_context(|| self.cannot("look at"))?;
        Ok(program.map_or(InSlot::Nothing, InSlot::Program))
    }

    /// Opens the array, if only to read it. `None`: there is none with this slot.
    pub(super) fn open_to_look(&self) -> Result<Option<OpenArray>> {
        if pin::unfit(&self.pin).is_some() {
            return Ok(None);
        }
        let Some(array) = pin::look(&self.pin)? else {
            return Ok(None);
        };
        let found = programs::array(&array).with_context(|| self.cannot("look at"))?;
        let slots = found.map(|Array { slots, .. }| slots);
        let slots = slots.filter(|slots| self.slot < *slots);
        Ok(slots.map(|slots| OpenArray { array, slots }))
    }

    pub(super) fn cannot(&self, what: &str) -> String {
        format!("cannot {what} {self}")
    }

    /// Puts a program into the slot, which is free or holds one of the programs in `ours`. Each packet that the array hands
    /// on goes to the one or the other.
    pub fn enter(&self, program: &OwnedFd, ours: &[u32]) -> Result<()> {
        let OpenArray { array, .. } = self.open()?;
        let id = bpf::program_of(program)?.context("it is no program")?.id;
        let before = programs::slot(&array, self.slot).with_context(|| self.cannot("look at"))?;
        if let Some(other) = before.filter(|before| !ours.contains(before)) {
            if other == id {
                return Ok(());
            }
            bail!(self.taken_meanwhile(other));
        }
        programs::put(&array, self.slot, program).map_err(|error| {
            if is_mismatch(&error) {
                anyhow!(
                    "{}: the array takes programs of another kind (type, frags, attach type) than the one that is loaded; \
                     `knockgate up` loads one that goes with it, or says what keeps it from that",
                    self.cannot("put the program into")
                )
            } else {
                anyhow!(error).context(self.cannot("put the program into"))
            }
        })?;
        // The kernel has no way to write to a slot only while it is free.
        match programs::slot(&array, self.slot).with_context(|| self.cannot("look at"))? {
            Some(now) if now == id => Ok(()),
            Some(other) => bail!(self.taken_meanwhile(other)),
            None => bail!("{self} was emptied by another process meanwhile"),
        }
    }

    /// Returns what to say where another program is in the slot that ours belongs in.
    fn taken_meanwhile(&self, other: u32) -> String {
        format!(
            "{self}, where knockgate's program belongs, holds {}: empty that slot and give `knockgate up` again, or choose \
             another one by `knockgate down` and then `knockgate up --into {}`",
            xdp::program_name(other),
            self.pin.display()
        )
    }

    /// Returns what to say where another program is in the slot that was named.
    fn taken_by(&self, other: u32) -> String {
        format!(
            "{self} holds {}: name a free slot, or leave the slot out to take the first free one (`--into {}`); if the slots \
             are tried in turn, a later slot gets only what that program hands on",
            xdp::program_name(other),
            self.pin.display()
        )
    }

    /// Puts `to` into the slot where it holds one of `from`, in other arrays too: one of this name may have been made anew while
    /// the one before it is still in use.
    pub fn change(&self, from: &[u32], to: &OwnedFd) -> Result<()> {
        match self.look()? {
            InSlot::Program(program) if from.contains(&program) => self.enter(to, from)?,
            // The balancer has made a new array, or emptied it: repaired afterwards.
            InSlot::NoArray | InSlot::Nothing | InSlot::Program(_) => {}
        }
        for array in programs::all_arrays().unwrap_or_default() {
            if let Ok(Some(program)) = programs::slot(&array, self.slot)
                && from.contains(&program)
            {
                // It may take programs of another kind than the one that has its name now.
                if let Err(error) = programs::put(&array, self.slot, to) {
                    tracing::warn!(
                        "cannot replace the program in slot {} of an array that was pinned at {} before: {error}",
                        self.slot,
                        self.pin.display()
                    );
                }
            }
        }
        Ok(())
    }

    /// Empties the slot if it holds one of these programs. Returns whether it did.
    pub fn release(&self, ours: &[u32]) -> Result<bool> {
        if let InSlot::Program(program) = self.look()?
            && ours.contains(&program)
        {
            let OpenArray { array, .. } = self.open()?;
            programs::empty(&array, self.slot).with_context(|| self.cannot("empty"))?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Returns what is in the slot, in other arrays too, as far as that can be seen.
    fn held(&self) -> Result<Vec<u32>> {
        let mut held = Vec::new();
        if let InSlot::Program(program) = self.look()? {
            held.push(program);
        }
        for array in programs::all_arrays().unwrap_or_default() {
            held.extend(programs::slot(&array, self.slot).ok().flatten());
        }
        Ok(held)
    }

    /// As [`IntoSlot::release`], in other arrays too, as above.
    fn leave(&self, ours: &[u32]) -> Result<()> {
        let is_left = self.release(ours)?;
        match programs::all_arrays() {
            Ok(arrays) => {
                for array in arrays {
                    empty_slot(&array, self.slot, ours)?;
                }
            }
            Err(error) if !is_left => tracing::warn!(
                "{self} did not hold what is pinned, and whether it holds the program all the same, or another array does, \
                 cannot be seen: {error} (this needs CAP_SYS_ADMIN). If one does, the program still decides there"
            ),
            Err(_) => {}
        }
        Ok(())
    }
}

/// Empties a slot of an array if it holds one of these programs.
fn empty_slot(array: &OwnedFd, slot: u32, ours: &[u32]) -> Result<()> {
    if let Ok(Some(program)) = programs::slot(array, slot)
        && ours.contains(&program)
    {
        programs::empty(array, slot)
            .with_context(|| format!("cannot empty slot {slot} of an array of programs"))?;
    }
    Ok(())
}

/// Opens the array of programs pinned at `pin`.
fn open_array(pin: &Path) -> Result<OpenArray> {
    let array = pin::open(pin)?.with_context(|| {
        format!(
            "no array is pinned at {}: start what pins it there first, or name where it is",
            pin.display()
        )
    })?;
    let found =
        programs::array(&array).with_context(|| format!("cannot look at {}", pin.display()))?;
    match found {
        Some(Array { slots, .. }) => Ok(OpenArray { array, slots }),
        None => bail!(
            "what is pinned at {} is no array of programs (BPF_MAP_TYPE_PROG_ARRAY), so no program can be put into it",
            pin.display()
        ),
    }
}

/// Chooses the slot that is meant: the first free one where none is named.
pub fn choose(argument: &IntoArgument) -> Result<IntoSlot> {
    let IntoArgument { pin, slot } = argument;
    let OpenArray { array, slots } = open_array(pin)?;
    let at = |slot| IntoSlot {
        pin: pin.clone(),
        slot,
    };
    if let Some(slot) = *slot {
        if slot >= slots {
            bail!(
                "{} has {slots} slots, 0 to {}, so there is no slot {slot}",
                pin.display(),
                slots - 1
            );
        }
        let into = at(slot);
        return match programs::slot(&array, slot).with_context(|| into.cannot("look at"))? {
            Some(other) => bail!(into.taken_by(other)),
            None => Ok(into),
        };
    }
    for slot in 0..slots {
        let into = at(slot);
        if programs::slot(&array, slot)
            .with_context(|| into.cannot("look at"))?
            .is_none()
        {
            return Ok(into);
        }
    }
    bail!(
        "each of the {slots} slots of {} holds a program: empty one, or make the array larger",
        pin.display()
    )
}

/// Keeps other knockgates from choosing a slot of the array pinned at `pin`, until it is dropped. `root`: has been locked by
/// this process.
///
/// Everybody who may read the folder of the pin can keep it locked. So after a minute it goes on without: two could choose the
/// same slot then, which [`IntoSlot::enter`] sees unless both write at the same moment. `status` shows it.
pub fn turn(pin: &Path, root: &PinRoot) -> Result<Option<Lock>> {
    let Some(parent) = pin.parent() else {
        return Ok(None);
    };
    let folder = PinRoot::new(parent);
    if folder.path() == root.path() {
        return Ok(None);
    }
    match folder.lock_existing() {
        Err(error) if error.is::<Busy>() => {
            tracing::warn!("{error:#}; a slot is chosen all the same");
            Ok(None)
        }
        turn => turn,
    }
}

/// Returns how packets begin on the interfaces of a configuration that are there.
pub fn framings(config: &Config) -> BTreeSet<Framing> {
    let names = config.interfaces.iter();
    names
        .filter_map(|name| framing(name, index_of(name).ok()?).ok())
        .collect()
}

/// Refuses interfaces that need different entries of the program: one slot holds one.
pub fn require_one_framing(config: &Config, into: &IntoSlot) -> Result<()> {
    if framings(config).len() > 1 {
        bail!(
            "{} are of several kinds, with link header and without, for which different programs are needed, and {into} \
             holds one: bring them up by themselves, each with a --pin-root of its own",
            config.interfaces.join(", ")
        );
    }
    Ok(())
}

/// Returns the slot that the instance pinned in `directory` is in. `None` as well where its tables are gone.
pub fn of(directory: &Path) -> Option<IntoSlot> {
    let applied: Applied = open::applied(directory).ok()?;
    applied.circumstances.into
}

/// Returns whether a program pinned in `directory` is in a slot, or may be in one: where the configuration's pin is gone, nothing says
/// in which, and the array may have lost its own pin.
pub fn holds(directory: &Path) -> Result<bool> {
    let ours = attachment::programs(directory)?;
    if ours.is_empty() {
        return Ok(false);
    }
    let known = open::applied(directory).map(|applied| applied.circumstances.into);
    match &known {
        Ok(None) => return Ok(false),
        Ok(Some(into)) => {
            if matches!(into.look()?, InSlot::Program(program) if ours.contains(&program)) {
                return Ok(true);
            }
        }
        Err(_) => {}
    }
    let Ok(arrays) = programs::all_arrays() else {
        return Ok(known.is_err());
    };
    for array in arrays {
        let found = programs::array(&array).context("cannot look at an array of programs")?;
        for slot in 0..found.map_or(0, |of| of.slots) {
            if let Ok(Some(program)) = programs::slot(&array, slot)
                && ours.contains(&program)
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Takes the programs of `directory` out of the slot that they are in: those pinned there, and those whose pin somebody has removed.
pub fn leave(directory: &Path) -> Result<()> {
    let mut programs = attachment::programs(directory)?;
    match open::applied(directory) {
        Ok(applied) => match applied.circumstances.into {
            Some(into) => {
                for program in into.held()? {
                    if !programs.contains(&program) && owned::is_of(program, directory)? {
                        programs.push(program);
                    }
                }
                into.leave(&programs)
            }
            None => Ok(()),
        },
        // Pinned by another version, which may have put them into a slot, or only partly pinned.
        Err(_) if programs.is_empty() => Ok(()),
        Err(_) => leave_any(&programs),
    }
}

/// Fails where a program is in the slot of which this process cannot tell whose it is: it may be ours, whose pin somebody has removed, and
/// without the other pins nothing would lead to it. `pinned`: the programs of all directories of the instance.
pub fn require_known(into: &IntoSlot, pinned: &[u32]) -> Result<()> {
    if let InSlot::Program(program) = into.look()?
        && !pinned.contains(&program)
        && !xdp::is_known(program)
    {
        bail!(
            "whether {into} holds knockgate's program cannot be seen (this needs CAP_SYS_ADMIN), so what is pinned stays"
        );
    }
    Ok(())
}

/// Takes these programs out of every slot of every array.
fn leave_any(ours: &[u32]) -> Result<()> {
    let Ok(arrays) = programs::all_arrays() else {
        tracing::warn!(
            "whether the program was put into an array of another's cannot be seen: this needs CAP_SYS_ADMIN. If it was, it \
             still decides there"
        );
        return Ok(());
    };
    for array in arrays {
        let found = programs::array(&array).context("cannot look at an array of programs")?;
        for slot in 0..found.map_or(0, |of| of.slots) {
            empty_slot(&array, slot, ours)?;
        }
    }
    Ok(())
}
