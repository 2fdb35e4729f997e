//! How much is reported: so many records of each class a second and CPU, whatever comes, and what is left out
//! is counted. A flood of one class takes no room of another's.
//!
//! Who knows a sequence can have outcomes reported as fast as packets come, each from another forged source.
//! So once a second has brought more than a few outcomes, those of one user at one gate are sampled: the
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

/// What a CPU may still report of one class in this second, and what it has left out; see
/// [`report`](crate::report). Indexed by [`class`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Budget {
    /// Number of the second, roughly.
    pub second: u64,
    /// How many reports were to be sent this second.
    pub asked: u32,
    /// Records sent this second.
    pub sent: u32,
    /// Events left out since the gate came up.
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
    /// Grants whose last connection has been admitted.
    pub const CLOSINGS: u32 = 5;
    pub const COUNT: u32 = 6;
}

/// What there may be of a class in a second, on one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records that are sent.
    pub sent: u32,
    /// Records that are put together, and looked up whether the like has been sent lately.
    pub asked: u32,
    /// Records that are sent before any is sampled.
    pub free: u32,
    /// What has the same [`subject`] is sent once in so many ns at most; 0: not sampled.
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
            // A whole sequence is behind each, which costs more than the question.
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
        (Kind::Failed, _) => class::FAILURES,
        (Kind::Refused, _) => class::REFUSALS,
        (Kind::Opened, _) => class::OPENINGS,
        (Kind::Closed, _) => class::CLOSINGS,
        (Kind::Denied | Kind::Unkept, _) => class::DENIALS,
    }
}

/// What reports are sampled by: of a denial its source, of an outcome whose sequence it was, at which gate.
#[inline(always)]
pub const fn subject(event: &Event, class: u32) -> SourceKey {
    match class {
        class::DENIALS => SourceKey {
            address: event.source,
            family: event.family as u64,
        },
        _ => SourceKey {
            address: V6::from_words(event.user as u64, event.gate as u64),
            // Apart from every family.
            family: (class as u64) << 8,
        },
    }
}

impl Budget {
    /// May another report of this class be sent in this second? Counts it as left out where not.
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

    /// For how long the like of it is not to be sent again, ns, where that is to be looked up.
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

    /// Counts a report that was left out since the like has been sent lately. Of denials one is the sample of
    /// all that its source sends, and none of these is missing.
    #[inline(always)]
    pub const fn sampled_out(&mut self, class: u32) {
        if class != class::DENIALS {
            self.lost += 1;
        }
    }

    /// Counts a report that has been handed to the ring, which had room for it or not.
    #[inline(always)]
    pub const fn count(&mut self, sent: bool) {
        if sent {
            self.sent = self.sent.wrapping_add(1);
        } else {
            self.lost += 1;
        }
    }
}
