//! How fast a client goes: every retry is slower than the try before it, and begins at a random time.
//!
//! A try that failed has three likely causes on the network, and each asks for something else. Knocks that
//! arrived in another order need longer pauses between them. An answer that was under way when it was given
//! up needs a longer time-out. Another client that knocked from the same address at the same time needs a
//! moment of its own, which two clients that fail together find only by chance.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::anyhow;

/// The pause between two knocks, unless told otherwise: enough for packets to stay in order on most paths.
pub const DEFAULT_DELAY: Duration = Duration::from_millis(20);
/// How often the whole sequence is sent again while the port stays closed, unless told otherwise.
pub const DEFAULT_RETRIES: u32 = 3;
/// How long the port may take to answer the first time, unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// The default delay grows to 312 ms with the last default retry, which is more than a path with a jitter of
/// plus and minus 150 ms can reorder.
const DELAY_GROWTH: f64 = 2.5;
/// Growth alone never makes a whole sequence take longer than this: a gate counts it only while it is
/// complete `within` a time that the client does not know, and which is usually 10 s.
const LONGEST_GROWN_SEQUENCE: Duration = Duration::from_secs(2);
/// The random pause before a retry, as a multiple of the time that its sequence takes. Two clients then meet again
/// with a probability of one in ten.
const SPREAD: u32 = 20;
/// Nobody should wait longer than this between two tries.
const LONGEST_SPREAD: Duration = Duration::from_secs(8);

/// The pauses, the time-outs and the number of retries of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The pause between two knocks of the first try.
    pub delay: Duration,
    /// How often the sequence is sent again while the port is closed.
    pub retries: u32,
    /// How long the port may take to answer the first try.
    pub timeout: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            delay: DEFAULT_DELAY,
            retries: DEFAULT_RETRIES,
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

impl Pace {
    /// The pause between two of `knocks` knocks in try `attempt`, which counts from 0.
    pub(super) fn delay(&self, attempt: u32, knocks: usize) -> Duration {
        // Far beyond every bound, and still a number.
        let growth = DELAY_GROWTH.powi(i32::try_from(attempt.min(64)).unwrap_or(64));
        let grown = Duration::try_from_secs_f64(self.delay.as_secs_f64() * growth)
            .unwrap_or(LONGEST_GROWN_SEQUENCE);
        let longest = LONGEST_GROWN_SEQUENCE / gaps(knocks).max(1);
        whole_milliseconds(grown.min(longest)).max(self.delay)
    }

    /// How long the port may take to answer try `attempt`.
    pub(super) fn timeout(&self, attempt: u32) -> Duration {
        self.timeout.saturating_mul(attempt.saturating_add(1))
    }

    /// The pauses from which the one before try `attempt` is drawn.
    pub(super) fn pauses(&self, attempt: u32, knocks: usize) -> RangeInclusive<Duration> {
        let delay = self.delay(attempt, knocks);
        // A sequence of a single knock, or one without pauses, takes some time nevertheless.
        let sequence = delay
            .saturating_mul(gaps(knocks))
            .max(Duration::from_millis(10));
        let spread = sequence.saturating_mul(SPREAD).min(LONGEST_SPREAD);
        delay..=delay.saturating_add(spread)
    }
}

fn gaps(knocks: usize) -> u32 {
    u32::try_from(knocks.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// As users read it in messages.
fn whole_milliseconds(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// One of `pauses`, each as likely as any other.
pub(super) fn draw(pauses: &RangeInclusive<Duration>) -> anyhow::Result<Duration> {
    let number =
        getrandom::u64().map_err(|error| anyhow!("the system has no random numbers: {error}"))?;
    Ok(nth(pauses, number))
}

/// The pause that the random `number` stands for.
fn nth(pauses: &RangeInclusive<Duration>, number: u64) -> Duration {
    let range = pauses.end().saturating_sub(*pauses.start());
    let steps = u64::try_from(range.as_millis()).unwrap_or(u64::MAX);
    let step = (u128::from(number) * (u128::from(steps) + 1)) >> 64;
    *pauses.start() + Duration::from_millis(u64::try_from(step).unwrap_or(steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_first_try_goes_at_the_pace_asked_for() {
        let pace = Pace::default();
        assert_eq!(pace.delay(0, 3), DEFAULT_DELAY);
        assert_eq!(pace.timeout(0), DEFAULT_TIMEOUT);
    }

    #[test]
    fn each_retry_is_slower() {
        let pace = Pace::default();
        let delays = [0, 1, 2, 3].map(|attempt| pace.delay(attempt, 3));
        assert_eq!(delays, [ms(20), ms(50), ms(125), ms(312)]);
        let timeouts = [0, 1, 2, 3].map(|attempt| pace.timeout(attempt));
        assert_eq!(timeouts, [ms(1000), ms(2000), ms(3000), ms(4000)]);
        assert_eq!(pace.pauses(1, 3), ms(50)..=ms(2050));
    }

    #[test]
    fn growth_is_bounded_and_never_shortens_what_was_asked_for() {
        let pace = |delay| Pace {
            delay,
            ..Pace::default()
        };
        for knocks in [0, 1, 2, 3, 12] {
            for attempt in [1, 10, u32::MAX] {
                let grown = pace(ms(20)).delay(attempt, knocks) * gaps(knocks).max(1);
                assert!(
                    grown <= LONGEST_GROWN_SEQUENCE,
                    "{knocks} knocks take {grown:?}"
                );
                assert_eq!(pace(ms(9000)).delay(attempt, knocks), ms(9000));
                assert_eq!(pace(Duration::ZERO).delay(attempt, knocks), Duration::ZERO);
                let pauses = pace(ms(20)).pauses(attempt, knocks);
                assert!(
                    pauses.end().saturating_sub(*pauses.start()) <= LONGEST_SPREAD,
                    "{pauses:?}"
                );
            }
        }
        let endless = Pace {
            delay: Duration::MAX,
            retries: u32::MAX,
            timeout: Duration::MAX,
        };
        assert_eq!(endless.delay(u32::MAX, 3), Duration::MAX);
        assert_eq!(endless.timeout(u32::MAX), Duration::MAX);
        assert_eq!(endless.pauses(u32::MAX, 3), Duration::MAX..=Duration::MAX);
    }

    #[test]
    fn every_pause_of_the_range_can_be_drawn() {
        let pauses = ms(5)..=ms(8);
        assert_eq!(nth(&pauses, 0), ms(5));
        assert_eq!(nth(&pauses, 1 << 62), ms(6));
        assert_eq!(nth(&pauses, u64::MAX), ms(8));
        assert_eq!(nth(&(ms(5)..=ms(5)), u64::MAX), ms(5));
    }

    /// Clients that begin together at one gate, each with a sequence of its own, by a clock of their own:
    /// how many of `runs` times `clients` stay outside.
    fn left_out(clients: usize, knocks: usize, runs: u32, deny_answers: bool) -> u32 {
        /// Knuth's MMIX generator: the test is the same every time.
        fn next(state: &mut u64) -> u64 {
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *state
        }
        struct Try {
            client: usize,
            attempt: u32,
            step: usize,
        }
        let pace = Pace::default();
        let mut state = 9;
        let mut failed = 0;
        for _ in 0..runs {
            let mut coming = std::collections::BTreeMap::new();
            let mut number = 0_u32;
            let mut at = |coming: &mut std::collections::BTreeMap<_, _>, time, what: Try| {
                number += 1;
                coming.insert((time, number), what);
            };
            for client in 0..clients {
                let first = Try {
                    client,
                    attempt: 0,
                    step: 0,
                };
                at(&mut coming, Duration::ZERO, first);
            }
            // The client that probed last, and how many of its knocks came one behind the other.
            let (mut last, mut run) = (usize::MAX, 0);
            while let Some(((now, _), this)) = coming.pop_first() {
                let Try {
                    client,
                    attempt,
                    step,
                } = this;
                let goes_on = last == client && run == step;
                last = client;
                run = if goes_on || step == 0 { step + 1 } else { 0 };
                if step + 1 < knocks {
                    let pause = pace.delay(attempt, knocks);
                    at(
                        &mut coming,
                        now + pause,
                        Try {
                            step: step + 1,
                            ..this
                        },
                    );
                } else if run < knocks {
                    if attempt == pace.retries {
                        failed += 1;
                        continue;
                    }
                    let retry = Try {
                        client,
                        attempt: attempt + 1,
                        step: 0,
                    };
                    let answer = if deny_answers {
                        Duration::ZERO
                    } else {
                        pace.timeout(attempt)
                    };
                    let pauses = pace.pauses(attempt + 1, knocks);
                    let pause = nth(&pauses, next(&mut state));
                    at(&mut coming, now + answer + pause, retry);
                }
            }
        }
        failed
    }

    #[test]
    fn clients_that_begin_together_do_not_stay_together() {
        for (clients, knocks, deny_answers, most_in_a_thousand) in [
            (1, 3, false, 0),
            (2, 3, false, 5),
            (2, 3, true, 5),
            (5, 3, false, 20),
            (5, 3, true, 40),
        ] {
            let failed = left_out(clients, knocks, 2_000, deny_answers);
            let of = 2 * u32::try_from(clients).expect("a few");
            assert!(
                failed <= most_in_a_thousand * of,
                "{clients} clients (denied by an answer: {deny_answers}): {failed} of {of} thousand stay out"
            );
        }
    }
}
