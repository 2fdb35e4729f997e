//! The program that gets what ours passes on an interface: pinned by its owner, called by an array of ours.
//!
//! The array has a reference of its own, so packets go on to the program until another is put in its place, whatever
//! becomes of the pin.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    into::OpenArray,
    kind::{self, of_array, of_program},
    pin,
};
use crate::{
    config::{Config, Following},
    datapath::{
        error::cannot_open,
        install::{attachment::Attachment, framing::Framing},
        open::Datapath,
        tables::{self, Access, PinDirectory, Source},
    },
    sys::bpf::{
        self,
        programs::{self, XDP},
    },
};

/// What follows on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextState {
    pub pin: PathBuf,
    /// The id of the program that packets go on to; `None`: to none.
    pub program: Option<u32>,
    /// The id of the program that is pinned now; `None`: there is none, or this process may not look.
    pub pinned: Option<u32>,
}

/// The outcome of [`Datapath::renew_next`].
#[derive(Debug, Default)]
pub struct Renewed {
    /// Interfaces whose packets go on to another program now, which has been pinned in place of the one before.
    pub renewed: Vec<String>,
    /// Interfaces whose packets cannot go on to what is pinned now, and why.
    pub unfit: Vec<(String, anyhow::Error)>,
}

/// Opens the program pinned at `pin`; `None` where nothing is. Fails where it is no XDP program.
pub fn open(pin: &Path) -> Result<Option<OwnedFd>> {
    let Some(program) = pin::look(pin)? else {
        return Ok(None);
    };
    let found = bpf::program_of(&program).with_context(|| wrong(pin))?;
    match found {
        Some(of) if of.kind == XDP => Ok(Some(program)),
        Some(of) => bail!(
            "{}: it is a program of type {}, and no XDP program (type {XDP})",
            wrong(pin),
            of.kind
        ),
        None => bail!(
            "{}: it is no program; pin the program itself, not its link or a table",
            wrong(pin)
        ),
    }
}

/// Returns what to say before the reason why nothing can go on to what is pinned there.
pub fn wrong(pin: &Path) -> String {
    format!(
        "packets cannot go on to what is pinned at {}",
        pin.display()
    )
}

/// Returns what to say where nothing is pinned.
pub fn missing(interface: &str, pin: &Path) -> String {
    format!(
        "nothing is pinned at {}, where what passes on {interface} is to go on (`next`): load that program and pin it, or \
         remove the key",
        pin.display()
    )
}

/// Puts the program that is to follow on an interface into the tables in `source`. To be done before the first packet. Fails where
/// none is pinned. `index`: the interface's.
pub fn prepare(
    source: &impl Source,
    config: &Config,
    interface: &str,
    index: u32,
    framing: Framing,
) -> Result<()> {
    let Some((slot, pin)) = config.next_of(interface) else {
        return Ok(());
    };
    note_index(source, config, interface, index)?;
    match open(pin)? {
        None => Err(anyhow!(missing(interface, pin))),
        Some(program) => put(&array(framing).descriptor(source)?, slot, &program, pin),
    }
}

/// Notes the index of an interface, where several are told apart by it. An interface that is made again has another one.
fn note_index(source: &impl Source, config: &Config, interface: &str, index: u32) -> Result<()> {
    let Some((slot, _)) = config.next_of(interface) else {
        return Ok(());
    };
    if config.following() != Following::Various {
        return Ok(());
    }
    let mut table = tables::NEXT_INTERFACE.open(source)?;
    let before = table.get(&0, 0)?;
    let mut interfaces = before;
    for (other, known) in (0..).zip(&mut interfaces) {
        if other == slot {
            *known = index;
        } else if *known == index {
            // An interface that is gone had it.
            *known = 0;
        }
    }
    if interfaces != before {
        table.set(0, interfaces, 0)?;
    }
    Ok(())
}

fn put(array: &OwnedFd, slot: u32, program: &OwnedFd, pin: &Path) -> Result<()> {
    programs::put(array, slot, program).map_err(|error| {
        if kind::is_mismatch(&error) {
            of_another_kind(pin)
        } else {
            anyhow!(error).context(wrong(pin))
        }
    })
}

fn of_another_kind(pin: &Path) -> anyhow::Error {
    anyhow!(
        "{}: it is of another kind (frags, attach type) than our program that is attached; `knockgate up` or `knockgate \
         reload` attaches one that goes with it",
        wrong(pin)
    )
}

fn array(framing: Framing) -> tables::Table<tables::Programs> {
    match framing {
        Framing::Ethernet => tables::NEXT,
        Framing::BareIp => tables::NEXT_IP,
    }
}

impl Datapath {
    /// Returns what follows on an interface of the configuration.
    pub fn next(&self, interface: &str) -> Result<Option<NextState>> {
        let Some((slot, pin)) = self.config().next_of(interface) else {
            return Ok(None);
        };
        let pinned = bpf::program(pin).ok().flatten().map(|of| of.id);
        let mut programs = Vec::new();
        for array in &self.next {
            programs.extend(programs::slot(array, slot).context("cannot read what follows")?);
        }
        // One array holds it, by the kind of the interface; both do where it was made again as another kind.
        let other = programs.iter().find(|program| Some(**program) != pinned);
        Ok(Some(NextState {
            pin: pin.to_owned(),
            program: other.or(programs.first()).copied(),
            pinned,
        }))
    }

    /// Returns whether the program that is attached goes with its neighbours as they are now.
    pub fn goes_with_neighbours(&self) -> Result<bool> {
        if let Some(into) = &self.applied.circumstances.into
            && let Some(pin) = self.program_pin()
        {
            let program = bpf::look(&pin).map_err(|error| cannot_open(&pin, error))?;
            if let Some(OpenArray { array, .. }) = into.open_to_look()?
                && let Some(called_by) = of_array(&array)?
                && of_program(&program).context("cannot look at our program")? != called_by
            {
                return Ok(false);
            }
        }
        for name in &self.config().interfaces {
            let Some((_, pin)) = self.config().next_of(name) else {
                continue;
            };
            let Some(program) = open(pin)? else { continue };
            let kind = of_program(&program).with_context(|| wrong(pin))?;
            let mut has_it = false;
            for array in &self.next {
                // An entry that is not loaded has called by none.
                has_it |= of_array(array)? == Some(kind);
            }
            if !has_it {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts what is pinned now in place of what follows, where it is another program, on the interfaces as they are now. Needs the
    /// lock.
    pub fn renew_next(&self, attachments: &[Attachment]) -> Renewed {
        let mut result = Renewed::default();
        for name in &self.config().interfaces {
            let index = attachments
                .iter()
                .find(|row| row.name == *name && row.is_attached())
                .and_then(|row| row.index);
            let renewed = self
                .note_index(name, index)
                .and_then(|()| self.renew_next_on(name));
            match renewed {
                Ok(true) => result.renewed.push(name.clone()),
                Ok(false) => {}
                Err(error) => result.unfit.push((name.clone(), error)),
            }
        }
        result
    }

    fn note_index(&self, interface: &str, index: Option<u32>) -> Result<()> {
        let Some(index) = index.filter(|_| self.config().following() == Following::Various) else {
            return Ok(());
        };
        // The directory that was opened first may have been removed by `down -i`.
        let Some(path) = self.whole_directory()? else {
            return Ok(());
        };
        let tables = PinDirectory {
            path,
            access: Access::Change,
        };
        note_index(&tables, self.config(), interface, index)
    }

    /// As [`Self::renew_next`], on one interface. Returns whether another program follows there now.
    fn renew_next_on(&self, interface: &str) -> Result<bool> {
        let (Some((slot, pin)), Some(state)) =
            (self.config().next_of(interface), self.next(interface)?)
        else {
            return Ok(false);
        };
        if state.pinned.is_none() || state.pinned == state.program {
            return Ok(false);
        }
        let Some(next) = open(pin)? else {
            return Ok(false);
        };
        let kind = of_program(&next).with_context(|| wrong(pin))?;
        let mut is_put = false;
        for array in &self.next {
            let is_in_use = programs::slot(array, slot)?.is_some();
            // Where nothing was pinned before, what calls by it shows it.
            if is_in_use || (state.program.is_none() && of_array(array)? == Some(kind)) {
                put(array, slot, &next, pin)?;
                is_put = true;
            }
        }
        if !is_put {
            return Err(of_another_kind(pin));
        }
        Ok(true)
    }
}
