//! The XDP program that an interface carries.

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;

use crate::sys::links::{self, Link};

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    Native,
    Generic,
}

impl Attached {
    /// Returns the mode as commands show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// The XDP program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xdp {
    pub attached: Attached,
    /// The kernel's id of the program.
    pub program: u32,
}

/// Returns the XDP program on interface `index`, if there is one.
pub fn attached(index: u32) -> Result<Option<Xdp>> {
    let link = links::with_index(index).context("cannot ask the kernel about the interface")?;
    Ok(link.as_ref().and_then(carries))
}

/// Returns the XDP program on an interface, if there is one.
pub fn carries(link: &Link) -> Option<Xdp> {
    let native = link
        .native_program
        .map(|program| (Attached::Native, program));
    let generic = link
        .generic_program
        .map(|program| (Attached::Generic, program));
    let (attached, program) = native.or(generic)?;
    Some(Xdp { attached, program })
}

/// Returns how an interface carries the program with this id, if it does.
pub fn mode(link: &Link, program: u32) -> Option<Attached> {
    if link.native_program == Some(program) {
        Some(Attached::Native)
    } else if link.generic_program == Some(program) {
        Some(Attached::Generic)
    } else {
        None
    }
}

/// Describes a program by its name, id and owner.
pub fn describe(xdp: Xdp) -> String {
    let Xdp { attached, program } = xdp;
    let mode = attached.name();
    let loaded = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == program);
    let Some(info) = loaded else {
        return format!("program {program} ({mode})");
    };
    let name = info.name_as_str().unwrap_or("without a name").to_owned();
    let uid = info
        .created_by_uid()
        .map(|uid| format!(", loaded by uid {uid}"))
        .unwrap_or_default();
    format!("program `{name}`, id {program} ({mode}{uid})")
}
