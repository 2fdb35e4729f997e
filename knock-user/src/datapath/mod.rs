//! What knockgate has in the kernel: the program and its tables.
//!
//! [`compile`] makes the tables' contents of a checked configuration. [`up`] loads the program, fills its tables, attaches
//! and pins; [`Datapath::open`] opens what is pinned, `view` reads its tables and `edit` changes them. While packets
//! are judged, nothing here runs: the kernel decides alone.

mod carry;
pub mod chain;
pub mod compile;
mod edit;
mod error;
mod host;
mod install;
pub mod keys;
mod known;
#[cfg(test)]
mod memory;
mod open;
pub mod origin;
pub mod tables;
mod trial;
mod view;
mod write;

pub use crate::sys::bpf::{Hook, mapping::Mapping};
pub use chain::{IntoArgument, NextState, Renewed, fault as next_fault};
pub use compile::applied::Applied;
pub use edit::{
    grant_table::GrantTable,
    grants::{GrantsFull, TooManyLengths},
    remote::{Admitted, Ends},
    revoke::Scope,
    session_table::SessionTable,
};
pub use error::{NotPermitted, NothingUp};
pub use host::{HostState, is_bridged};
pub use install::{
    attachment::{Attachment, Lack},
    down::down,
    framing::{Framing, framing, index_of, unreadable},
    native_warnings,
    pins::{
        lock::{Busy, Lock},
        root::{DEFAULT_ROOT, PinRoot},
    },
    program::{ENTRIES, TCX_ENTRIES, fingerprint, load_entry, object, open_ports, prepare},
    reload::{StillLapsed, reload, replace_program, return_from_trial, return_from_trial_of},
    repair::{Repair, repair},
    request::{Absent, Request, Wait},
    requirements::require,
    settle::{Unsettled, settle_killed},
    taken_warnings,
    unguarded::{NotFollowed, NotGuarded},
    up::{Before, Up, up},
    xdp::{Attached, Xdp, describe, program_name},
};
pub use keys::Who;
pub use open::Datapath;
pub use trial::{Confirmed, LAPSED as TRIAL_LAPSED, TrialState, reminder};
pub use view::{
    address::padded_address,
    chain::{CalledBy, Next},
    counters::{KnockRow, PacketRow},
    destinations::{Destinations, GuardedAddress},
    grants::GrantRow,
    progress::{MappedProgress, ProgressTable},
    sessions::SessionRow,
    snapshot::{
        Counters, GateStatus, Interface, LAPSED, Packets, Snapshot, Status, TableFill, verdict,
    },
    sources::SourceRow,
};
