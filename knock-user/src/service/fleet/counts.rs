//! What the service counts of its fleet, for the metrics: the kernel's tables do not know of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Upper ends of the buckets of lags, s.
pub const BUCKETS: [f64; 10] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// Counts since the service started. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// `None`: the configuration has no fleet.
    link: Option<Link>,
    published: u64,
    received: u64,
    refused: BTreeMap<&'static str, u64>,
    lags: Vec<u64>,
    lag_sum: Duration,
}

#[derive(Debug, Clone)]
enum Link {
    Joined,
    Isolated {
        since: Instant,
        /// What keeps this host from etcd.
        why: String,
        /// It has been reported.
        is_reported: bool,
    },
}

/// That this host is isolated.
#[derive(Debug, Clone, PartialEq)]
pub struct Isolated {
    /// For how long.
    pub lasts: Duration,
    /// What keeps it from etcd.
    pub why: String,
}

/// What was counted, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// `None`: it is not.
    pub isolated: Option<Isolated>,
    pub published: u64,
    pub received: u64,
    pub refused: Vec<(&'static str, u64)>,
    /// How many there were in each of [`BUCKETS`], and how many that took longer.
    pub lags: Vec<u64>,
    pub lag_sum: Duration,
}

impl Counts {
    /// Begins as isolated, with these reasons of refusals; where it was isolated before, that goes on.
    pub fn begin(&self, reasons: impl Iterator<Item = &'static str>) {
        let mut inner = self.inner();
        if !matches!(inner.link, Some(Link::Isolated { .. })) {
            inner.isolate("it has just begun");
        }
        for reason in reasons {
            inner.refused.entry(reason).or_default();
        }
        inner.lags.resize(BUCKETS.len() + 1, 0);
    }

    /// There is no fleet any more.
    pub fn leave(&self) {
        self.inner().link = None;
    }

    pub fn join(&self) {
        self.inner().link = Some(Link::Joined);
    }

    /// Notes what keeps this host from etcd, and since when if that is new.
    pub fn isolate(&self, why: &str) {
        self.inner().isolate(why);
    }

    /// As [`Self::isolate`]. Returns whether it is to be reported: it has not been since this host was last joined.
    pub fn report(&self, why: &str) -> bool {
        let mut inner = self.inner();
        let is_reported = inner.isolate(why);
        !std::mem::replace(is_reported, true)
    }

    pub fn refuse(&self, reason: &'static str) {
        *self.inner().refused.entry(reason).or_default() += 1;
    }

    pub fn set(&self, published: u64, received: u64) {
        let mut inner = self.inner();
        inner.published = published;
        inner.received = received;
    }

    pub fn lag(&self, after: Duration) {
        let mut inner = self.inner();
        inner.lag_sum += after;
        let bucket = BUCKETS.iter().position(|most| after.as_secs_f64() <= *most);
        let bucket = bucket.unwrap_or(BUCKETS.len());
        if let Some(count) = inner.lags.get_mut(bucket) {
            *count += 1;
        }
    }

    /// Returns what was counted; `None`: the configuration has no fleet.
    pub fn read(&self) -> Option<Counted> {
        let inner = self.inner();
        let isolated = match inner.link.as_ref()? {
            Link::Joined => None,
            Link::Isolated {
                since,
                why,
                is_reported: _,
            } => Some(Isolated {
                lasts: since.elapsed(),
                why: why.clone(),
            }),
        };
        Some(Counted {
            isolated,
            published: inner.published,
            received: inner.received,
            refused: inner
                .refused
                .iter()
                .map(|(reason, count)| (*reason, *count))
                .collect(),
            lags: inner.lags.clone(),
            lag_sum: inner.lag_sum,
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Numbers are right after a panic too.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Returns whether that has been reported.
    fn isolate(&mut self, why: &str) -> &mut bool {
        let (since, is_reported) = match &self.link {
            Some(Link::Isolated {
                since, is_reported, ..
            }) => (*since, *is_reported),
            _ => (Instant::now(), false),
        };
        let isolated = Link::Isolated {
            since,
            why: why.to_owned(),
            is_reported,
        };
        match self.link.insert(isolated) {
            Link::Isolated { is_reported, .. } => is_reported,
            Link::Joined => unreachable!("it has just been put there"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lags_are_counted_in_buckets() {
        let counts = Counts::default();
        assert_eq!(counts.read(), None);
        counts.begin(["forged"].into_iter());
        for milliseconds in [1, 2, 3, 60, 9000] {
            counts.lag(Duration::from_millis(milliseconds));
        }
        counts.refuse("forged");
        counts.join();
        let read = counts.clone().read().expect("there is a fleet");
        assert_eq!(read.lags, [1 + 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
        assert_eq!(read.lag_sum, Duration::from_millis(9066));
        assert_eq!((read.isolated, read.refused), (None, vec![("forged", 1)]));
        for why in ["it is away", "it is still away"] {
            counts.isolate(why);
            let isolated = counts.read().expect("as before").isolated;
            assert_eq!(isolated.expect("it is").why, why);
        }
        counts.leave();
        assert_eq!(counts.read(), None);
    }

    #[test]
    fn isolation_is_reported_once_and_outlasts_a_new_beginning() {
        let counts = Counts::default();
        let isolated = || counts.read().expect("there is a fleet").isolated;
        let begin = || counts.begin(["forged"].into_iter());
        begin();
        assert!(counts.report("no key") && !counts.report("no key"));
        begin();
        assert_eq!(isolated().expect("it is").why, "no key");
        assert!(!counts.report("no name"));
        counts.join();
        begin();
        assert_eq!(isolated().expect("it is").why, "it has just begun");
        assert!(counts.report("no key"));
    }
}
