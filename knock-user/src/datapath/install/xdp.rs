//! The XDP program that an interface carries.

use anyhow::{Context as _, Result};
use aya::programs::{ProgramFd, ProgramInfo, loaded_programs};

use crate::sys::links::{self, Link};

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    Native,
    Generic,
    /// At TCX, behind any XDP program.
    Tcx,
}

impl Attached {
    /// Returns the mode as commands show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
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
    let Some(info) = info(program) else {
        return format!("program {program} ({mode})");
    };
    let uid = info
        .created_by_uid()
        .map(|uid| format!(", loaded by uid {uid}"))
        .unwrap_or_default();
    format!("{} ({mode}{uid})", program_name(program))
}

/// Describes a program by its name and id.
pub fn program_name(program: u32) -> String {
    let info = info(program);
    match info.as_ref().and_then(ProgramInfo::name_as_str) {
        Some("") | None => format!("program {program}"),
        Some(name) => format!("program `{name}`, id {program}"),
    }
}

/// Returns whether this process may ask the kernel about a program.
pub fn is_known(program: u32) -> bool {
    info(program).is_some()
}

/// Returns whether a program has this name in the kernel, as far as the kernel keeps it.
pub fn is_called(program: u32, name: &str) -> bool {
    /// `BPF_OBJ_NAME_LEN` of `linux/bpf.h`, less the zero.
    const KEPT: usize = 15;
    let kept = &name[..name.len().min(KEPT)];
    info(program).is_some_and(|info| info.name_as_str() == Some(kept))
}

/// Returns whether a program uses a table, by the kernel's ids of both; `false` as well where this process may not ask the kernel.
pub fn uses(program: u32, table: u32) -> bool {
    tables(program).is_some_and(|tables| tables.contains(&table))
}

/// Returns the kernel's ids of the tables that a program uses; `None` where this process may not ask.
pub fn tables(program: u32) -> Option<Vec<u32>> {
    info(program)?.map_ids().ok()?
}

/// Opens a program by the kernel's id.
pub fn open(program: u32) -> Result<ProgramFd> {
    let info = info(program).context("there is no such program any more")?;
    Ok(info.fd()?)
}

fn info(program: u32) -> Option<ProgramInfo> {
    let mut loaded = loaded_programs().filter_map(Result::ok);
    loaded.find(|info| info.id() == program)
}
