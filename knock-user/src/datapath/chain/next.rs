//! The program that gets what ours passes on an interface: pinned by its owner, called by an array of ours.
//!
//! The array has a reference of its own, so packets go on to the program until another is put in its place, whatever
//! becomes of the pin.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::kind::{self, of_array, of_program};
use crate::{
    config::{Config, Following},
    datapath::{
        error::cannot_open,
        install::framing::Framing,
        open::Datapath,
        tables::{self, Source},
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

/// Opens the program pinned at `pin`; `None` where nothing is. Fails where it is no XDP program.
pub fn open(pin: &Path) -> Result<Option<OwnedFd>> {
    let program = match bpf::look(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        program => program.map_err(|error| cannot_open(pin, error))?,
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

/// Puts the program that is to follow on an interface, where it is pinned, into the tables in `source`. To be done before
/// the first packet. `index`: the interface's.
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
    let array = array(framing).descriptor(source)?;
    match open(pin)? {
        None => tracing::warn!("{}", missing(interface, pin)),
        Some(program) => put(&array, slot, &program, pin)?,
    }
    if config.following() == Following::Various {
        let mut table = tables::NEXT_INTERFACE.open(source)?;
        let mut interfaces = table.get(&0, 0)?;
        for (other, known) in (0..).zip(&mut interfaces) {
            if other == slot {
                *known = index;
            } else if *known == index {
                // An interface that is gone had it.
                *known = 0;
            }
        }
        table.set(0, interfaces, 0)?;
    }
    Ok(())
}

fn put(array: &OwnedFd, slot: u32, program: &OwnedFd, pin: &Path) -> Result<()> {
    programs::put(array, slot, program).map_err(|error| {
        if kind::is_mismatch(&error) {
            anyhow!(
                "{}: it is of another kind (frags, attach type) than our program that is attached; `knockgate up` or \
                 `knockgate reload` attaches one that goes with it",
                wrong(pin)
            )
        } else {
            anyhow!(error).context(wrong(pin))
        }
    })
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
        // One of the two holds it, by the kind of the interface.
        let mut program = None;
        for array in &self.next {
            let in_slot = programs::slot(array, slot).context("cannot read what follows")?;
            program = program.or(in_slot);
        }
        Ok(Some(NextState {
            pin: pin.to_owned(),
            program,
            pinned: bpf::program(pin).ok().flatten().map(|of| of.id),
        }))
    }

    /// Returns whether the program that is attached goes with its neighbours as they are now.
    pub fn goes_with_neighbours(&self) -> Result<bool> {
        if let Some(into) = &self.applied.circumstances.into
            && let Some(pin) = self.program_pin()
        {
            let program = bpf::look(&pin).map_err(|error| cannot_open(&pin, error))?;
            if let Some(called_by) = of_array(&into.open()?.array)?
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

    /// Puts what is pinned now in place of what follows, where it is another program. Returns the interfaces. Needs the lock.
    pub fn renew_next(&self) -> Result<Vec<String>> {
        let mut renewed = Vec::new();
        for name in &self.config().interfaces {
            let Some(NextState {
                pin,
                program,
                pinned,
            }) = self.next(name)?
            else {
                continue;
            };
            if pinned.is_none() || pinned == program {
                continue;
            }
            let Some(next) = open(&pin)? else { continue };
            let Some((slot, _)) = self.config().next_of(name) else {
                continue;
            };
            let kind = of_program(&next).with_context(|| wrong(&pin))?;
            for array in &self.next {
                let is_in_use = programs::slot(array, slot)?.is_some();
                // Where nothing was pinned before, what calls by it shows it.
                if is_in_use || (program.is_none() && of_array(array)? == Some(kind)) {
                    put(array, slot, &next, &pin)?;
                }
            }
            renewed.push(name.clone());
        }
        Ok(renewed)
    }
}
