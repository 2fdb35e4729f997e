//! How many packets pass and are denied a second, and how many knocks there are, now and before.

use std::{collections::VecDeque, time::Duration};

use crate::datapath::Counters;

/// Samples that are kept: more than a terminal is wide.
const KEPT: usize = 512;

/// What is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub passed: u64,
    pub denied: u64,
    pub knocks: u64,
}

/// Rates a second, oldest first.
#[derive(Debug, Default)]
pub struct Rates {
    pub passed: Rate,
    pub denied: Rate,
    pub knocks: Rate,
    before: Option<Totals>,
}

/// One rate, in thousandths a second.
#[derive(Debug, Default)]
pub struct Rate(VecDeque<u64>);

impl Totals {
    pub fn of(counters: &Counters) -> Self {
        let (passed, denied) = counters.totals();
        Self {
            passed,
            denied,
            knocks: counters.knocks.iter().map(|row| row.count).sum(),
        }
    }
}

impl Rates {
    /// Adds what was counted up to now, `elapsed` after the last time.
    pub fn add(&mut self, totals: Totals, elapsed: Duration) {
        if let Some(before) = self.before.replace(totals) {
            self.passed.add(before.passed, totals.passed, elapsed);
            self.denied.add(before.denied, totals.denied, elapsed);
            self.knocks.add(before.knocks, totals.knocks, elapsed);
        }
    }

    /// Begins anew: the next counters are those of another instance.
    pub fn restart(&mut self) {
        self.before = None;
    }

    /// Adds a moment at which nothing was up, and nothing was counted.
    pub fn add_nothing(&mut self) {
        self.restart();
        for rate in [&mut self.passed, &mut self.denied, &mut self.knocks] {
            rate.push(0);
        }
    }
}

impl Rate {
    fn add(&mut self, before: u64, now: u64, elapsed: Duration) {
        let more = u128::from(now.saturating_sub(before));
        let rate = more * 1_000_000 / elapsed.as_micros().max(1) * 1000;
        self.push(u64::try_from(rate).unwrap_or(u64::MAX));
    }

    fn push(&mut self, rate: u64) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(rate);
    }

    /// Returns the latest rate a second, as `0.4`, `12`, `3.1k`, `20M`.
    pub fn now(&self) -> String {
        self.0
            .back()
            .map_or_else(|| "-".to_owned(), |rate| short(*rate))
    }

    /// Returns the latest samples, at most so many, oldest first.
    pub fn latest(&self, most: usize) -> Vec<u64> {
        let skipped = self.0.len().saturating_sub(most);
        self.0.iter().skip(skipped).copied().collect()
    }
}

/// Writes thousandths with two digits or so.
fn short(thousandths: u64) -> String {
    let units = [
        (1_000_000_000_000, "G"),
        (1_000_000_000, "M"),
        (1_000_000, "k"),
        (1000, ""),
    ];
    let (unit, name) = units
        .into_iter()
        .find(|(unit, _)| thousandths >= *unit)
        .unwrap_or((1000, ""));
    let whole = thousandths / unit;
    let tenth = thousandths % unit * 10 / unit;
    if whole < 10 && (whole, tenth) != (0, 0) {
        format!("{whole}.{tenth}{name}")
    } else {
        format!("{whole}{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short() {
        for (thousandths, text) in [
            (0, "0"),
            (400, "0.4"),
            (1000, "1.0"),
            (12_345, "12"),
            (999_999, "999"),
            (3_140_000, "3.1k"),
            (20_000_000_000, "20M"),
        ] {
            assert_eq!(short(thousandths), text);
        }
    }

    #[test]
    fn a_rate_is_a_second_s_whatever_the_pause() {
        let mut rates = Rates::default();
        let totals = |passed| Totals {
            passed,
            ..Totals::default()
        };
        rates.add(totals(1_000), Duration::ZERO);
        assert_eq!(rates.passed.now(), "-");
        rates.add(totals(1_500), Duration::from_millis(500));
        assert_eq!(rates.passed.now(), "1.0k");
        // Counters of another instance are smaller, and say nothing of the time between.
        rates.restart();
        rates.add(totals(7), Duration::from_secs(1));
        rates.add(totals(9), Duration::from_secs(1));
        assert_eq!(rates.passed.now(), "2.0");
        assert_eq!(rates.passed.latest(9), [1_000_000, 2000]);
    }
}
