//! Errors with an exit status of their own, and those of opening pins.

use std::{fmt, io, path::Path};

use anyhow::anyhow;
use knock_common::layout::LAYOUT;

/// Nothing is up under the pin root. Exit status 5.
#[derive(Debug)]
pub struct NothingUp;

impl fmt::Display for NothingUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing is up; bring the gates up with `knockgate up`")
    }
}

impl std::error::Error for NothingUp {}

/// A capability is missing. Exit status 4.
#[derive(Debug)]
pub struct NotPermitted {
    /// The attempt, as "to ...".
    pub what: String,
    /// Names of the capabilities.
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

/// Capabilities that loading and attaching need.
pub(super) const NEEDS_TO_LOAD: &str = "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";
/// Capabilities that opening pins needs.
const NEEDS_TO_OPEN: &str = "CAP_BPF and CAP_DAC_OVERRIDE";
/// The capability that a look at the programs at TCX needs.
pub(super) const NEEDS_TO_SEE_TCX: &str = "CAP_NET_ADMIN";

/// Returns whether an I/O error says that a privilege is missing.
pub(super) fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

/// Returns the error of a pin that cannot be opened.
pub(super) fn cannot_open(path: &Path, error: io::Error) -> anyhow::Error {
    cannot("open", path, error)
}

/// Returns the error of a pin, or a directory of pins, with which something cannot be done. `attempt`: a verb, as in "to open".
pub(super) fn cannot(attempt: &str, path: &Path, error: io::Error) -> anyhow::Error {
    let what = format!("{attempt} {}", path.display());
    if is_denied(&error) {
        return NotPermitted {
            what: format!("to {what}"),
            needs: NEEDS_TO_OPEN,
        }
        .into();
    }
    anyhow!(error).context(format!("cannot {what}"))
}

/// Returns the error of pins that another version has made.
pub(super) fn other_version(directory: &Path) -> anyhow::Error {
    anyhow!(
        "what is pinned in {} was not made by this version of knockgate (table layout {LAYOUT}); \
         take it down with `knockgate down`, then bring it up again with `knockgate up`",
        directory.display()
    )
}
