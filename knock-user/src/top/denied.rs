//! Who is denied most often, as far as events say: the kernel program reports the first denied packet of a source, then
//! at most one a second, and a limited number of all sources together.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use jiff::Timestamp;
use knock_common::event::Kind;

use super::list::Row;
use crate::service::{Record, names::EVENTS_LOST};

/// Reports older than this count no more.
pub const WINDOW: Duration = Duration::from_mins(1);
/// In ns.
const SECOND: u64 = 1_000_000_000;
/// Sources that are remembered.
const MOST: usize = 4096;

/// The reports of the last minute.
#[derive(Debug, Default)]
pub struct Denied {
    sources: HashMap<IpAddr, Reports>,
    /// Times and numbers of events that were left out.
    lost: VecDeque<(u64, u64)>,
}

#[derive(Debug)]
struct Reports {
    /// ns of `CLOCK_MONOTONIC`, oldest first.
    times: VecDeque<u64>,
    gate: String,
    port: String,
    reason: String,
}

/// A source that was denied.
#[derive(Debug, Clone)]
pub struct DeniedRow {
    pub source: IpAddr,
    /// Reports of the last minute.
    pub reports: usize,
    pub gate: String,
    pub port: String,
    pub reason: String,
    /// When the latest report was, ns of `CLOCK_MONOTONIC`.
    pub latest: u64,
}

impl Denied {
    /// Adds an event. `now`: ns of `CLOCK_MONOTONIC`.
    pub fn add(&mut self, record: &Record, now: u64) {
        // A service sends the latest events first, of whatever age.
        let age = Timestamp::now().duration_since(record.time);
        let age = u64::try_from(age.as_nanos()).unwrap_or_default();
        let time = now.saturating_sub(age);
        if u128::from(age) > WINDOW.as_nanos() {
            return;
        }
        // Here, and not only where rows are made: while the view is paused, none are.
        let begin = begin(now);
        if record.event == EVENTS_LOST {
            self.add_lost(time, record.lost.unwrap_or_default(), begin);
            return;
        }
        let source = record
            .source
            .as_deref()
            .and_then(|source| source.parse().ok());
        let Some(source) = source.filter(|_| record.event == Kind::Denied.name()) else {
            return;
        };
        if self.sources.len() == MOST && !self.sources.contains_key(&source) {
            self.forget_one();
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let reports = self.sources.entry(source).or_insert_with(|| Reports {
            times: VecDeque::new(),
            gate: String::new(),
            port: String::new(),
            reason: String::new(),
        });
        reports.times.push_back(time);
        while reports.times.front().is_some_and(|time| *time < begin) {
            reports.times.pop_front();
        }
        reports.gate = text(&record.gate);
        reports.reason = text(&record.reason);
        reports.port = record.port.map(|port| port.to_string()).unwrap_or_default();
    }

    /// Returns the sources of the minute before `now`, the busiest in front.
    pub fn rows(&mut self, now: u64) -> Vec<DeniedRow> {
        let begin = begin(now);
        self.lost.retain(|(time, _)| *time >= begin);
        for reports in self.sources.values_mut() {
            reports.times.retain(|time| *time >= begin);
        }
        self.sources.retain(|_, reports| !reports.times.is_empty());
        let rows = self.sources.iter().map(|(source, reports)| DeniedRow {
            source: *source,
            reports: reports.times.len(),
            gate: reports.gate.clone(),
            port: reports.port.clone(),
            reason: reports.reason.clone(),
            latest: reports.times.back().copied().unwrap_or_default(),
        });
        rows.collect()
    }

    /// Adds events that were left out; those of the same second become one number.
    fn add_lost(&mut self, time: u64, lost: u64, begin: u64) {
        while self.lost.front().is_some_and(|(time, _)| *time < begin) {
            self.lost.pop_front();
        }
        match self.lost.back_mut() {
            Some((since, sum)) if time.abs_diff(*since) < SECOND => *sum = sum.saturating_add(lost),
            _ => self.lost.push_back((time, lost)),
        }
    }

    /// Returns how many events were left out in the last minute.
    pub fn lost(&self) -> u64 {
        self.lost.iter().map(|(_, lost)| lost).sum()
    }

    /// Forgets the source that was reported longest ago.
    fn forget_one(&mut self) {
        let latest = |reports: &Reports| reports.times.back().copied();
        let oldest = self
            .sources
            .iter()
            .min_by_key(|(_, reports)| latest(reports));
        if let Some(source) = oldest.map(|(source, _)| *source) {
            self.sources.remove(&source);
        }
    }
}

/// Returns when the minute before `now` begins.
fn begin(now: u64) -> u64 {
    now.saturating_sub(WINDOW.as_nanos().try_into().unwrap_or(u64::MAX))
}

impl Row for DeniedRow {
    const SORTS: &'static [&'static str] = &["reports", "latest", "source", "gate"];

    fn key(&self) -> (IpAddr, u8, u16) {
        (self.source, 0, 0)
    }

    fn compare(&self, other: &Self, sort: usize) -> std::cmp::Ordering {
        match sort {
            0 => (other.reports, other.latest).cmp(&(self.reports, self.latest)),
            1 => other.latest.cmp(&self.latest),
            2 => self.source.cmp(&other.source),
            _ => self.gate.cmp(&other.gate),
        }
    }

    fn matches(&self, filter: &str) -> bool {
        let texts = [&self.gate, &self.port, &self.reason];
        texts.iter().any(|text| text.contains(filter)) || self.source.to_string().contains(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(last: u8) -> Record {
        Record {
            source: Some(format!("192.0.2.{last}")),
            gate: Some("ssh".to_owned()),
            ..Record::now("packet.denied")
        }
    }

    #[test]
    fn reports_count_for_a_minute() {
        let mut all = Denied::default();
        let now = 1000 * SECOND;
        all.add(&denied(1), now);
        all.add(&denied(1), now + SECOND);
        all.add(&denied(2), now + 2 * SECOND);
        all.add(&Record::now("gate.opened"), now);
        let lost = Record {
            lost: Some(7),
            ..Record::now("events.lost")
        };
        all.add(&lost, now);
        let count = |all: &mut Denied, now| {
            let mut counts: Vec<usize> = all.rows(now).iter().map(|row| row.reports).collect();
            counts.sort_unstable();
            counts
        };
        assert_eq!(count(&mut all, now + 2 * SECOND), [1, 2]);
        assert_eq!(all.lost(), 7);
        assert_eq!(count(&mut all, now + 60 * SECOND + SECOND / 2), [1, 1]);
        assert_eq!(all.lost(), 0);
        assert_eq!(count(&mut all, now + 70 * SECOND), [] as [usize; 0]);
    }

    #[test]
    fn what_happened_long_ago_does_not_count() {
        let mut all = Denied::default();
        let record = Record {
            time: Timestamp::now() - jiff::SignedDuration::from_secs(90),
            ..denied(1)
        };
        all.add(&record, 1000 * SECOND);
        assert!(all.rows(1000 * SECOND).is_empty());
    }

    /// As while the view is paused.
    #[test]
    fn what_nobody_looks_at_is_bounded() {
        let mut all = Denied::default();
        let (reported, lost) = (
            denied(1),
            Record {
                lost: Some(1),
                ..Record::now("events.lost")
            },
        );
        let step = SECOND / 20;
        for number in 0..1_000_000 {
            let now = 1000 * SECOND + number * step;
            // As of this moment, at every `now`.
            let of_now = |record: &Record| Record {
                time: Timestamp::now(),
                ..record.clone()
            };
            all.add(&of_now(&reported), now);
            all.add(&of_now(&lost), now);
        }
        let reports: usize = all
            .sources
            .values()
            .map(|reports| reports.times.len())
            .sum();
        assert!(reports <= 60 * 20 + 1, "{reports}");
        assert!(all.lost.len() <= 61, "{}", all.lost.len());
        assert!((60 * 19..=61 * 20).contains(&all.lost()), "{}", all.lost());
    }

    #[test]
    fn the_number_of_sources_is_bounded() {
        let mut all = Denied::default();
        for number in 0..2 * u64::try_from(MOST).expect("small") {
            let record = Record {
                source: Some(IpAddr::from((u128::from(number)).to_be_bytes()).to_string()),
                ..Record::now("packet.denied")
            };
            all.add(&record, 1000 * SECOND + number);
        }
        let rows = all.rows(1000 * SECOND);
        assert_eq!(rows.len(), MOST);
        let first = IpAddr::from(u128::from(2 * MOST as u64 - 1).to_be_bytes());
        assert!(
            rows.iter().any(|row| row.source == first),
            "the latest is there"
        );
    }
}
