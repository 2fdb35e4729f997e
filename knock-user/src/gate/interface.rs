//! Interfaces, and whose XDP program is on them.

use std::ffi::CString;

use anyhow::{Context as _, Result, anyhow};
use aya::programs::loaded_programs;
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp, XdpAttached};

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
    let c_name = CString::new(name).with_context(|| format!("`{name}` is no interface name"))?;
    // SAFETY: the name ends with a zero byte; the call only reads it.
    match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
        0 => Err(anyhow!(
            "there is no interface `{name}`; `ip link` lists those that there are"
        )),
        index => Ok(index),
    }
}

/// The XDP program on interface `index`, if there is one.
pub fn attached(index: u32) -> Result<Option<Xdp>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime
        .block_on(query(index))
        .context("cannot ask the kernel about the interface")
}

async fn query(index: u32) -> Result<Option<Xdp>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    let mut links = handle.link().get().match_index(index).execute();
    let Some(link) = links.try_next().await? else {
        return Ok(None);
    };
    let xdp = link
        .attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Xdp(xdp) => Some(xdp),
            _ => None,
        });
    let mut attached = None;
    let mut program = None;
    for attribute in xdp.unwrap_or_default() {
        match attribute {
            LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware) => {
                attached = Some(Attached::Native);
            }
            LinkXdp::Attached(XdpAttached::SocketBuffer) => attached = Some(Attached::Generic),
            LinkXdp::ProgId(id) => program = Some(id),
            _ => {}
        }
    }
    Ok(attached
        .zip(program)
        .map(|(attached, program)| Xdp { attached, program }))
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
