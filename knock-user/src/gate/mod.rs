//! The gate in the kernel: putting it there, taking it away, reading its tables.
//!
//! [`up`] loads the program, fills its tables from a checked configuration, attaches and pins;
//! [`Gate`] opens what is pinned. Nothing here runs while packets are judged: the kernel decides
//! alone.

mod answering;
mod attachment;
mod automaton;
mod batch;
mod bridged;
mod capability;
mod checksums;
mod flows;
mod framing;
mod grants;
mod interface;
mod kernel_version;
mod lifecycle;
mod mapping;
mod memory;
mod native;
mod pins;
mod presence;
mod program;
mod progress;
mod rows;
mod tables;

pub use answering::Surroundings;
pub use attachment::{Attachment, Lack};
pub use automaton::{Automaton, TooEntangled};
pub use framing::{Framing, framing, unreadable};
pub use interface::{Attached, Xdp, attached, describe, index};
pub use lifecycle::{Absent, Mounted, Repair, Up, down, repair, up};
pub use mapping::Mapping;
pub use memory::{TableKind, TableSize, table_sizes};
pub use native::warnings as native_warnings;
pub use pins::{Busy, DEFAULT_ROOT, Lock, PinRoot};
pub use presence::Presence;
pub use program::{ENTRIES, gate_rules, load, load_entry, object, open_ports, prepare, roles};
pub use progress::{MappedProgress, ProgressTable};
pub use rows::{
    GrantRow, KnockRow, PacketRow, SessionRow, SourceRow, TableRow, monotonic_now, padded_address,
};
pub use tables::{Gate, OpenGate};

use std::fmt;

/// Nothing is up under the pin root. Exit status 5.
#[derive(Debug)]
pub struct NothingUp;

impl fmt::Display for NothingUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no gate is up; bring one up with `knockgate up`")
    }
}

impl std::error::Error for NothingUp {}

/// A capability is missing. Exit status 4.
#[derive(Debug)]
pub struct NotPermitted {
    /// What was attempted, "to ...".
    pub what: String,
    /// Capabilities by name.
    pub needs: &'static str,
}

impl fmt::Display for NotPermitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, needs } = self;
        write!(
            f,
            "not permitted {what}: this needs {needs}; run it as root (sudo)"
        )
    }
}

impl std::error::Error for NotPermitted {}

/// What loading and attaching need.
pub(crate) const NEEDS_TO_LOAD: &str = "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";
/// What opening pins needs.
pub(crate) const NEEDS_TO_OPEN: &str = "CAP_BPF and CAP_DAC_OVERRIDE";

/// A configured interface is not guarded. Exit status 7.
#[derive(Debug)]
pub struct NotGuarded(pub Vec<Attachment>);

impl fmt::Display for NotGuarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(attachments) = self;
        let mut words = Vec::new();
        for attachment in attachments {
            if let Err(lack) = &attachment.state {
                words.push(format!("{} is NOT GUARDED: {lack}", attachment.name));
            }
        }
        write!(f, "{}", words.join("; "))
    }
}

impl std::error::Error for NotGuarded {}

/// Does an I/O error say that a privilege is missing?
pub(crate) fn is_denied(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}
