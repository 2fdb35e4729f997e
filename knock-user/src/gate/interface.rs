//! Interfaces, and whose XDP program is on them.

use std::ffi::CString;

use anyhow::{Context as _, Result, anyhow};
use aya::programs::loaded_programs;

use crate::sys::netlink::{self, Card};

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    Native,
    Generic,
}

impl Attached {
    /// As the contract spells it.
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
    /// Kernel's number of the program.
    pub program: u32,
}

/// Index of an interface.
pub fn index(name: &str) -> Result<u32> {
    find(name).ok_or_else(|| {
        anyhow!("there is no interface `{name}`; `ip link` lists those that there are")
    })
}

/// Index of an interface, if there is one with this name.
pub fn find(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with a zero byte; the call only reads it.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// The XDP program on interface `index`, if there is one.
pub fn attached(index: u32) -> Result<Option<Xdp>> {
    let card = netlink::card(index).context("cannot ask the kernel about the interface")?;
    Ok(card.as_ref().and_then(carries))
}

/// The XDP program on an interface, if there is one.
pub fn carries(card: &Card) -> Option<Xdp> {
    let native = card.native.map(|program| (Attached::Native, program));
    let generic = card.generic.map(|program| (Attached::Generic, program));
    let (attached, program) = native.or(generic)?;
    Some(Xdp { attached, program })
}

/// Whose program is on the interface, in words.
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
