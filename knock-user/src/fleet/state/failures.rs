//! Writes that fail one after another: an engine that is full, or that lets this host only read.

use super::{AGAIN, Moment, SECOND};

/// The longest time between two attempts, ns.
const LONGEST: u64 = 2 * SECOND;
/// After so many rounds of failures, about three seconds, it is no passing trouble.
const LASTING: u32 = 6;

/// How often writes have failed since one was done. Those that were on their way side by side fail together, and count once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    rounds: u32,
    /// When the last round has ended, ns of `CLOCK_MONOTONIC`.
    until: u64,
}

impl Failures {
    /// Notes that a write has failed. Returns whether it is time to say so.
    pub fn note(&mut self, now: Moment) -> bool {
        if now.monotonic < self.until {
            return false;
        }
        self.rounds += 1;
        self.until = now.monotonic + self.pause();
        self.rounds == LASTING
    }

    /// Returns how long to wait before the next attempt, ns.
    pub fn pause(self) -> u64 {
        (AGAIN << self.rounds.saturating_sub(1).min(16)).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_together_counts_once_and_pauses_grow() {
        let at = |monotonic| Moment {
            monotonic,
            steady: monotonic,
            wall: 0,
        };
        let mut failures = Failures::default();
        assert_eq!(failures.pause(), AGAIN);
        let mut now = SECOND;
        for round in 1..100 {
            let is_said = failures.note(at(now));
            assert_eq!(is_said, round == LASTING, "{round}");
            assert!(!failures.note(at(now)));
            let pause = failures.pause();
            assert_eq!(
                pause,
                (AGAIN << (round - 1).min(16)).min(LONGEST),
                "{round}"
            );
            now += pause;
        }
        assert_eq!(failures.pause(), LONGEST);
    }
}
