//! How much is reported: so many records of each class a second and CPU, whatever comes, and what is left out
//! is counted. A flood of one class takes no room of another's.
//!
//! Who knows a sequence can have outcomes reported as fast as packets come, each from another forged source.
//! So once a second has brought more than a few outcomes, those of one user at one gate are sampled: the
//! openings of all others are reported as before.

use bytemuck::{Pod, Zeroable};

use crate::{
    address::V6,
    event::{Event, cause, kind},
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

/// Class of a report.
#[inline(always)]
pub const fn class_of(kind: u8, cause: u8) -> u32 {
    match kind {
        kind::STEP => class::STEPS,
        kind::FAILED if cause == cause::WRONG => class::STEPS,
        kind::FAILED => class::FAILURES,
        kind::REFUSED => class::REFUSALS,
        kind::OPENED => class::OPENINGS,
        kind::CLOSED => class::CLOSINGS,
        _ => class::DENIALS,
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bytemuck::Zeroable as _;

    use super::*;
    use crate::event::NOBODY;

    const OUTCOMES: [(u8, u8, u32); 6] = [
        (kind::OPENED, cause::NONE, class::OPENINGS),
        (kind::REFUSED, cause::TABLE_FULL, class::REFUSALS),
        (kind::CLOSED, cause::USED, class::CLOSINGS),
        (kind::FAILED, cause::LATE, class::FAILURES),
        (kind::FAILED, cause::SOURCE, class::FAILURES),
        (kind::FAILED, cause::WRONG, class::STEPS),
    ];

    /// One CPU, as the kernel program stores it.
    #[derive(Default)]
    struct Cpu {
        budgets: HashMap<u32, Budget>,
        reported: HashMap<(u64, u64, u64), u64>,
        sent: Vec<Event>,
    }

    impl Cpu {
        fn report(&mut self, event: Event) {
            let class = class_of(event.kind, event.cause);
            let budget = self.budgets.entry(class).or_insert_with(Budget::zeroed);
            if !budget.wants(class, event.time / 1_000_000_000) {
                return;
            }
            if let Some(pause) = budget.samples(class) {
                let SourceKey { address, family } = subject(&event, class);
                let (first, second) = address.words();
                let last = self.reported.get(&(first, second, family));
                if last.is_some_and(|last| event.time - last < pause) {
                    budget.sampled_out(class);
                    return;
                }
                self.reported.insert((first, second, family), event.time);
            }
            budget.count(true);
            self.sent.push(event);
        }

        fn lost(&self) -> u64 {
            self.budgets.values().map(|budget| budget.lost).sum()
        }
    }

    fn event((kind, cause): (u8, u8), user: u32, time: u64) -> Event {
        Event {
            kind,
            cause,
            user,
            // Each from a source of its own.
            source: V6::from_words(time, user.into()),
            family: 4,
            time,
            ..Event::zeroed()
        }
    }

    #[test]
    fn every_class_is_bounded_and_what_is_left_out_is_counted() {
        for (kind, cause, class) in OUTCOMES {
            assert_eq!(class_of(kind, cause), class);
            let mut cpu = Cpu::default();
            let all = 100_000;
            // Of as many users as there may be, over one second.
            for number in 0..all {
                let time = u64::from(number) * 1_000_000_000 / u64::from(all);
                cpu.report(event((kind, cause), number, time));
            }
            let sent = cpu.sent.len();
            assert_eq!(sent, Limits::of(class).sent as usize, "{kind} {cause}");
            assert_eq!(cpu.lost() + sent as u64, u64::from(all));
            // The next second begins anew.
            cpu.report(event((kind, cause), NOBODY, 1_000_000_000));
            assert_eq!(cpu.sent.len(), sent + 1);
        }
    }

    #[test]
    fn no_class_takes_anothers_room() {
        let mut cpu = Cpu::default();
        for (kind, cause, _) in OUTCOMES {
            for user in 0..1000 {
                cpu.report(event((kind, cause), user, 5));
            }
        }
        for class in [
            class::OPENINGS,
            class::REFUSALS,
            class::CLOSINGS,
            class::FAILURES,
        ] {
            let of = |event: &&Event| class_of(event.kind, event.cause) == class;
            assert_eq!(cpu.sent.iter().filter(of).count(), 64, "{class}");
        }
    }

    /// While one sequence, which somebody has found out, is knocked as fast as packets come.
    #[test]
    fn other_users_openings_are_reported() {
        const FLOOD: u32 = 1;
        let mut cpu = Cpu::default();
        let opened = (kind::OPENED, cause::NONE);
        for time in (0..3_000_000_000_u64).step_by(10_000) {
            cpu.report(event(opened, FLOOD, time));
            if time % 100_000_000 == 50_000_000 {
                cpu.report(event(opened, 2, time + 1));
            }
        }
        let of = |user| cpu.sent.iter().filter(|event| event.user == user).count();
        assert_eq!(of(2), 30, "one every tenth of a second");
        assert!((40..=3 * 40).contains(&of(FLOOD)), "{}", of(FLOOD));
    }

    #[test]
    fn few_outcomes_are_all_reported() {
        let mut cpu = Cpu::default();
        for _ in 0..16 {
            cpu.report(event((kind::OPENED, cause::NONE), 1, 7));
        }
        assert_eq!((cpu.sent.len(), cpu.lost()), (16, 0));
    }

    #[test]
    fn a_denial_stands_for_all_of_its_source() {
        let mut cpu = Cpu::default();
        let denied = event((kind::DENIED, cause::NO_GRANT), NOBODY, 7);
        for _ in 0..100 {
            cpu.report(denied);
        }
        assert_eq!((cpu.sent.len(), cpu.lost()), (1, 0));
    }
}
