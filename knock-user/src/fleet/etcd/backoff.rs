//! How long to wait before the next member is tried.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// A connection that has lasted as long as this was a good one.
const GOOD: Duration = Duration::from_secs(5);

/// Waits longer after each round of all members, up to a limit; any time up to that, so that the hosts of a fleet do not all
/// come back at once.
pub struct Backoff {
    members: usize,
    tried: usize,
}

impl Backoff {
    pub fn new(members: usize) -> Self {
        Self { members, tried: 0 }
    }

    /// Returns the member to begin with: not every host begins with the first.
    pub fn first(&self) -> usize {
        usize::try_from(random() % self.members as u64).unwrap_or(0)
    }

    /// Returns how long to wait after a connection that has lasted this long.
    pub fn pause(&mut self, lasted: Duration) -> Duration {
        if lasted >= GOOD {
            self.tried = 0;
        }
        let rounds = u32::try_from(self.tried / self.members).unwrap_or(u32::MAX);
        self.tried += 1;
        let most = SHORTEST.saturating_mul(1 << rounds.min(16)).min(LONGEST);
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random() % (most + 1))
    }
}

fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_waits_up_to_twice_as_long() {
        let mut upper = Vec::new();
        for tried in [0, 2, 3, 6, 30, 3_000_000] {
            // As many random numbers as show where the limit is.
            let limit = (0..2000)
                .map(|_| {
                    let mut backoff = Backoff::new(3);
                    backoff.tried = tried;
                    backoff.pause(Duration::ZERO)
                })
                .max()
                .expect("some");
            upper.push(limit);
        }
        let limits = [100, 100, 200, 400, 10_000, 10_000].map(Duration::from_millis);
        for (upper, limit) in upper.iter().zip(limits) {
            assert!(
                *upper <= limit && *upper > limit / 2,
                "{upper:?} of {limit:?}"
            );
        }
    }

    #[test]
    fn a_good_connection_begins_anew() {
        let mut backoff = Backoff::new(1);
        backoff.tried = 100;
        assert!(backoff.pause(GOOD) <= SHORTEST);
        assert_eq!(backoff.tried, 1);
    }
}
