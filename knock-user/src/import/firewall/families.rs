//! IPv4, IPv6, both or neither.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

impl Families {
    pub const V4: Self = Self {
        v4: true,
        v6: false,
    };
    pub const V6: Self = Self {
        v4: false,
        v6: true,
    };
    pub const BOTH: Self = Self { v4: true, v6: true };

    /// Returns those that both have.
    pub fn and(self, other: Self) -> Self {
        Self {
            v4: self.v4 && other.v4,
            v6: self.v6 && other.v6,
        }
    }

    pub fn is_empty(self) -> bool {
        !self.v4 && !self.v6
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.v4, self.v6) {
            (true, true) => "IPv4 and IPv6",
            (true, false) => "IPv4 alone",
            (false, true) => "IPv6 alone",
            (false, false) => "no family",
        })
    }
}
