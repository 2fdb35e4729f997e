//! How much is reported: a fixed number of records of each class a second and CPU. Records that are left out
//! are counted. A flood of one class takes no room of another's.
//!
//! A client that knows a sequence can cause outcomes as fast as packets arrive, each from another forged source.
//! So after the first few outcomes of a second, those of one user at one gate are sampled, and the
//! openings of all others are reported as before.

pub mod send;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use crate::{
    address::V6,
    event::{Cause, Event, Kind},
    keys::SourceKey,
};

/// What a CPU may still report of one class in this second, and what it has left out. Indexed by [`class`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Budget {
    /// Number of the second, roughly.
    pub second: u64,
    /// Reports that were considered this second.
    pub asked: u32,
    /// Records sent this second.
    pub sent: u32,
    /// Events left out since the instance came up.
    pub lost: u64,
}

records!(Budget: 24 { second: 0, asked: 8, sent: 12, lost: 16 });

/// Classes of reports, each with a [`Budget`] of its own, so that none takes another's.
pub mod class {
    /// Denied packets, and flows that could not be remembered.
    pub const DENIALS: u32 = 0;
    /// Knocks that counted, and broken runs.
    pub const STEPS: u32 = 1;
    /// Whole sequences that opened nothing: too late, or from a source that may not knock.
    pub const FAILURES: u32 = 2;
    /// Whole sequences for whose grant there was no room.
    pub const REFUSALS: u32 = 3;
    pub const OPENINGS: u32 = 4;
    /// Grants whose last connection has been admitted, or that their user has ended.
    pub const CLOSINGS: u32 = 5;
    /// Authenticated knocks that opened nothing.
    pub const REJECTED: u32 = 6;
    /// Authenticated knocks that were captured. A class of its own, since each who has the host's secret can make others that
    /// are rejected.
    pub const CAPTURES: u32 = 7;
    pub const COUNT: u32 = 8;
}

/// The limits of a class for one second and CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records that are sent.
    pub sent: u32,
    /// Records that are considered: built, and looked up whether their subject has been reported lately.
    pub asked: u32,
    /// Records that are sent before any is sampled.
    pub free: u32,
    /// Least time between two records with the same [`subject`], ns; 0: not sampled.
    pub pause: u64,
}

impl Limits {
    #[inline(always)]
    pub const fn of(class: u32) -> Self {
        match class {
            class::DENIALS => Self {
                sent: 64,
                asked: 1024,
                free: 0,
                pause: 1_000_000_000,
            },
            class::STEPS => Self {
                sent: 256,
                asked: 256,
                free: 256,
                pause: 0,
            },
            // One datagram each: as cheap for who sends it as a denial.
            class::REJECTED | class::CAPTURES => Self {
                sent: 64,
                asked: 1024,
                free: 16,
                pause: 50_000_000,
            },
            // Each takes a whole sequence, which costs more than the look-up.
            _ => Self {
                sent: 64,
                asked: u32::MAX,
                free: 16,
                pause: 50_000_000,
            },
        }
    }
}

/// Returns the class of a report.
#[inline(always)]
pub const fn class_of(kind: Kind, cause: Cause) -> u32 {
    match (kind, cause) {
        (Kind::Step, _) | (Kind::Failed, Cause::Wrong) => class::STEPS,
        (Kind::Failed, Cause::Late | Cause::Source) => class::FAILURES,
        (Kind::Failed, _) => class::REJECTED,
        (Kind::Captured, _) => class::CAPTURES,
        (Kind::Refused, _) => class::REFUSALS,
        (Kind::Opened, _) => class::OPENINGS,
        (Kind::Closed, _) => class::CLOSINGS,
        (Kind::Denied | Kind::Unkept, _) => class::DENIALS,
    }
}

/// Returns what a report is sampled by: the source of a denial; the user and gate of an outcome.
#[inline(always)]
pub const fn subject(event: &Event, class: u32) -> SourceKey {
    match class {
        class::DENIALS => SourceKey {
            address: event.source,
            family: event.family as u64,
        },
        _ => SourceKey {
            address: V6::from_words(event.user as u64, event.gate as u64),
            // Different from every family.
            family: (class as u64) << 8,
        },
    }
}

impl Budget {
    /// Returns whether another report of this class may be sent in this second; counts it as left out otherwise.
    #[inline(always)]
    pub const fn wants(&mut self, class: u32, second: u64) -> bool {
        if self.second != second {
            self.second = second;
            self.asked = 0;
            self.sent = 0;
        }
        let limits = Limits::of(class);
        let wanted = self.asked < limits.asked && self.sent < limits.sent;
        if wanted {
            self.asked += 1;
        } else {
            self.lost += 1;
        }
        wanted
    }

    /// Returns the least time between two reports with the same subject, ns, if that has to be looked up.
    #[inline(always)]
    pub const fn samples(&self, class: u32) -> Option<u64> {
        let Limits {
            sent: _,
            asked: _,
            free,
            pause,
        } = Limits::of(class);
        if pause != 0 && self.sent >= free {
            Some(pause)
        } else {
            None
        }
    }

    /// Counts a report that was left out because its subject has been reported lately. One denial is the sample of
    /// all packets of its source, so these do not count.
    #[inline(always)]
    pub const fn sampled_out(&mut self, class: u32) {
        if class != class::DENIALS {
            self.lost += 1;
        }
    }

    /// Counts a report that the ring has taken (`sent`) or had no room for.
    #[inline(always)]
    pub const fn count(&mut self, sent: bool) {
        if sent {
            self.sent = self.sent.wrapping_add(1);
        } else {
            self.lost += 1;
        }
    }
}
