//! Notices sources whose knocks keep failing, and keys whose knocks were captured.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;

use crate::config::{Alert, Per};

/// Failures that are remembered, of all sources together. An attacker can forge any number of sources; when there is no
/// room, the oldest failure is forgotten.
const MOST: usize = 65_536;

/// How long a key is quiet after an alert where failures cause none.
const QUIET: Duration = Duration::from_mins(1);

/// The failures of the latest time. By default there are no alerts.
#[derive(Default)]
pub struct Alerts {
    config: Alert,
    /// Time, ns of `CLOCK_MONOTONIC`, and whose it is; oldest in front.
    failures: VecDeque<(u64, IpNet)>,
    /// Those who have failures.
    subjects: HashMap<IpNet, Subject>,
    /// Until when the captured knocks of a key cause no further alert, ns.
    quiet_keys: HashMap<Option<String>, u64>,
}

#[derive(Default)]
struct Subject {
    failures: u32,
    /// No alert before this time, ns.
    quiet_until: u64,
}

/// A source or prefix that keeps failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    pub subject: IpNet,
    /// Failures within the configured time.
    pub failures: u32,
}

impl Alerts {
    /// Sets when there is an alert. What is remembered stays unless failures are counted by other subjects now.
    pub fn configure(&mut self, config: Alert) {
        if config.per != self.config.per {
            self.failures.clear();
            self.subjects.clear();
        }
        self.config = config;
    }

    /// Counts a failed knock. Returns whose failures have reached the configured number, at most once in the configured
    /// time for each. `now`: ns of `CLOCK_MONOTONIC`.
    pub fn failure(&mut self, source: IpAddr, now: u64) -> Option<Failing> {
        let Alert {
            failures: enough,
            within,
            per,
        } = self.config;
        if enough == 0 {
            return None;
        }
        let within = nanoseconds(within);
        while let Some((time, _)) = self.failures.front()
            && (now.saturating_sub(*time) >= within || self.failures.len() >= MOST)
        {
            self.forget_oldest();
        }
        let subject = subject(source, per);
        self.failures.push_back((now, subject));
        let known = self.subjects.entry(subject).or_default();
        known.failures += 1;
        if known.failures < enough || now < known.quiet_until {
            return None;
        }
        known.quiet_until = now.saturating_add(within);
        Some(Failing {
            subject,
            failures: known.failures,
        })
    }

    /// Returns whether a captured knock of a key causes an alert, at most once in the configured time for each: whoever has
    /// captured one can send it from any number of addresses. `now`: ns of `CLOCK_MONOTONIC`.
    pub fn capture(&mut self, key: Option<&str>, now: u64) -> bool {
        self.quiet_keys.retain(|_, until| now < *until);
        let key = key.map(ToOwned::to_owned);
        let Entry::Vacant(key) = self.quiet_keys.entry(key) else {
            return false;
        };
        let quiet = match self.config {
            Alert { failures: 0, .. } => QUIET,
            Alert { within, .. } => within,
        };
        key.insert(now.saturating_add(nanoseconds(quiet)));
        true
    }

    fn forget_oldest(&mut self) {
        let Some((_, subject)) = self.failures.pop_front() else {
            return;
        };
        if let Some(known) = self.subjects.get_mut(&subject) {
            known.failures -= 1;
            if known.failures == 0 {
                self.subjects.remove(&subject);
            }
        }
    }
}

fn subject(source: IpAddr, per: Per) -> IpNet {
    let whole = IpNet::from(source);
    let length = match (per, source) {
        (Per::Source, _) => return whole,
        (Per::Prefix, IpAddr::V4(_)) => 24,
        (Per::Prefix, IpAddr::V6(_)) => 64,
    };
    IpNet::new(source, length).map_or(whole, |prefix| prefix.trunc())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NEVER: [u64; 0] = [];

    fn alerts(failures: u32, seconds: u64, per: Per) -> Alerts {
        let mut alerts = Alerts::default();
        alerts.configure(Alert {
            failures,
            within: Duration::from_secs(seconds),
            per,
        });
        alerts
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    /// Returns the seconds, of those given, at which a failure of one source causes an alert.
    fn alerted(
        alerts: &mut Alerts,
        source: &str,
        seconds: impl IntoIterator<Item = u64>,
    ) -> Vec<u64> {
        let mut at = seconds.into_iter().collect::<Vec<_>>();
        at.retain(|second| alerts.failure(ip(source), second * SECOND).is_some());
        at
    }

    #[test]
    fn enough_failures_in_time_cause_one_alert() {
        let mut alerts = alerts(3, 60, Per::Source);
        assert_eq!(alerted(&mut alerts, "192.0.2.1", [0, 1]), NEVER);
        assert_eq!(
            alerts.failure(ip("192.0.2.1"), 2 * SECOND),
            Some(Failing {
                subject: "192.0.2.1/32".parse().expect("a network"),
                failures: 3
            })
        );
        // Once in the time, and again where it goes on.
        assert_eq!(alerted(&mut alerts, "192.0.2.1", 3..200), [62, 122, 182]);
    }

    #[test]
    fn failures_that_are_too_far_apart_cause_none() {
        let mut alerts = alerts(3, 60, Per::Source);
        assert_eq!(
            alerted(&mut alerts, "192.0.2.1", (0..100).map(|n| n * 30)),
            NEVER
        );
        assert_eq!(alerted(&mut alerts, "192.0.2.2", [0, 30, 59]), [59]);
    }

    #[test]
    fn a_key_whose_knocks_are_captured_causes_one_alert_in_the_time() {
        for (failures, quiet) in [(3, 300), (0, 60)] {
            let mut alerts = alerts(failures, 300, Per::Source);
            let mut at = |key, second| alerts.capture(Some(key), second * SECOND);
            assert!(at("alice", 0));
            assert!(!at("alice", quiet - 1));
            assert!(at("bob", quiet - 1), "another key");
            assert!(at("alice", quiet));
            assert!(!at("alice", quiet + 1));
            assert_eq!(alerts.quiet_keys.len(), 2);
        }
    }

    #[test]
    fn others_do_not_count() {
        let mut alone = alerts(2, 60, Per::Source);
        let mut together = alerts(2, 60, Per::Prefix);
        for (number, (one, other)) in [
            ("192.0.2.1", "192.0.2.200"),
            ("2001:db8::1", "2001:db8::ffff:1"),
        ]
        .into_iter()
        .enumerate()
        {
            let at = number as u64;
            assert_eq!(alerted(&mut alone, one, [at]), NEVER);
            assert_eq!(alerted(&mut alone, other, [at]), NEVER);
            assert_eq!(alerted(&mut together, one, [at]), NEVER);
            assert_eq!(alerted(&mut together, other, [at]), [at]);
        }
        assert_eq!(alerted(&mut together, "192.0.3.1", [2]), NEVER);
        assert_eq!(alerted(&mut together, "2001:db8:0:1::1", [2]), NEVER);
    }

    #[test]
    fn zero_switches_them_off() {
        let mut alerts = alerts(0, 60, Per::Source);
        assert_eq!(alerted(&mut alerts, "192.0.2.1", 0..100), NEVER);
        assert!(alerts.failures.is_empty());
    }

    #[test]
    fn forged_sources_take_bounded_memory_and_push_out_the_oldest() {
        let mut alerts = alerts(2, 60, Per::Source);
        let at_once = |alerts: &mut Alerts, number: usize| {
            let number = u32::try_from(number).expect("few enough");
            alerts.failure(IpAddr::V4(number.into()), SECOND)
        };
        for number in 0..3 * MOST {
            assert_eq!(at_once(&mut alerts, number), None);
        }
        assert_eq!(alerts.failures.len(), MOST);
        assert_eq!(alerts.subjects.len(), MOST);
        assert_eq!(
            at_once(&mut alerts, 2 * MOST),
            None,
            "it has been forgotten"
        );
        assert!(at_once(&mut alerts, 3 * MOST - 1).is_some());
        // All of it goes with time.
        assert_eq!(alerted(&mut alerts, "192.0.2.1", [100]), NEVER);
        assert_eq!((alerts.failures.len(), alerts.subjects.len()), (1, 1));
    }

    #[test]
    fn another_number_counts_what_there_has_been() {
        let mut alerts = alerts(10, 60, Per::Source);
        assert_eq!(alerted(&mut alerts, "192.0.2.1", [0, 1, 2]), NEVER);
        alerts.configure(Alert {
            failures: 4,
            ..alerts.config
        });
        assert_eq!(alerted(&mut alerts, "192.0.2.1", [3]), [3]);
    }
}
