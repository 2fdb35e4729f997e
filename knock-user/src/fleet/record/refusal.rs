//! Why a record is not used.

use std::fmt;

/// Why a record is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// No key of the fleet has signed it.
    Forged,
    /// It is of another version of knockgate.
    Version,
    /// It is signed, and cannot be read.
    Malformed,
    /// This host has no such gate.
    Gate,
    /// The user or key may not open the gate here.
    User,
    /// The source may not knock at the gate here.
    Source,
    /// It lasts longer than any grant can.
    TooLong,
    /// It is older than what the host that wrote it has said since.
    Stale,
    /// It knows of revocations that this host has not been told of.
    Ahead,
    /// Another host has this host's name.
    Name,
    /// This host has no room for it.
    TableFull,
}

impl Refusal {
    pub const ALL: [Self; 11] = [
        Self::Forged,
        Self::Version,
        Self::Malformed,
        Self::Gate,
        Self::User,
        Self::Source,
        Self::TooLong,
        Self::Stale,
        Self::Ahead,
        Self::Name,
        Self::TableFull,
    ];

    /// Returns the name in events and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::Gate => "gate",
            Self::User => "user",
            Self::Source => "source",
            Self::TooLong => "too_long",
            Self::Stale => "stale",
            Self::Ahead => "ahead",
            Self::Name => "name",
            Self::TableFull => "table_full",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
