//! Bounds what wrong packets cost: so many a second are looked at closely, and no source takes all of them.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// The time in which packets are counted. Short, so that a burst does not silence the rest of a second.
const WINDOW: Duration = Duration::from_millis(100);
const WINDOWS_PER_SECOND: u32 = 10;
/// Counters of sources; those that share one share its part of the ceiling.
const COUNTERS: usize = 1024;
/// One source may take this part of the ceiling.
const SHARE: u32 = 8;

/// What may be spent in the present window.
pub struct Ceiling {
    in_window: u32,
    per_source: u32,
    /// Number of the present window.
    window: u128,
    used: u32,
    by_source: [u32; COUNTERS],
    /// Keyed by chance, so that nobody can choose a source that shares a counter with another one.
    hasher: RandomState,
}

impl Ceiling {
    /// Of so many refusals a second.
    pub fn new(refusals: u32) -> Self {
        let in_window = (refusals / WINDOWS_PER_SECOND).max(1);
        Self {
            in_window,
            per_source: (in_window / SHARE).max(1),
            window: 0,
            used: 0,
            by_source: [0; COUNTERS],
            hasher: RandomState::new(),
        }
    }

    /// Returns whether a packet of this source may be looked at. `now`: by any clock that does not go back.
    pub fn admits(&mut self, source: IpAddr, now: Duration) -> bool {
        let window = now.as_nanos() / WINDOW.as_nanos();
        if window != self.window {
            self.window = window;
            self.used = 0;
            self.by_source = [0; COUNTERS];
        }
        let counter = self.counter(source);
        if self.used >= self.in_window || self.by_source[counter] >= self.per_source {
            return false;
        }
        self.used += 1;
        self.by_source[counter] += 1;
        true
    }

    /// Gives back what a packet has taken that was right.
    pub fn give_back(&mut self, source: IpAddr) {
        let counter = self.counter(source);
        self.used = self.used.saturating_sub(1);
        self.by_source[counter] = self.by_source[counter].saturating_sub(1);
    }

    fn counter(&self, source: IpAddr) -> usize {
        let subject = match source {
            IpAddr::V4(_) => source,
            // Whoever has one address has its /64.
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        };
        let hash = self.hasher.hash_one(subject);
        usize::try_from(hash % COUNTERS as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn admitted(ceiling: &mut Ceiling, sources: impl Iterator<Item = u32>, now: Duration) -> usize {
        sources
            .filter(|source| ceiling.admits(v4(*source), now))
            .count()
    }

    #[test]
    fn no_more_than_the_ceiling_from_any_number_of_sources() {
        let mut ceiling = Ceiling::new(10_000);
        for window in 1..=20 {
            let now = WINDOW * window;
            assert_eq!(admitted(&mut ceiling, 0..30_000, now), 1000);
            // Later in the same window nothing is left.
            assert_eq!(admitted(&mut ceiling, 0..30_000, now + WINDOW / 2), 0);
        }
    }

    #[test]
    fn one_source_takes_its_share_and_leaves_the_rest() {
        let mut ceiling = Ceiling::new(10_000);
        let flood = (0..30_000).map(|_| 7);
        assert_eq!(admitted(&mut ceiling, flood, WINDOW), 125);
        // One of a thousand shares its counter.
        let others = admitted(&mut ceiling, 100..110, WINDOW);
        assert!(others >= 9, "{others}");
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let mut ceiling = Ceiling::new(10_000);
        let of = |network: u128, host: u128| IpAddr::V6(Ipv6Addr::from_bits(network << 64 | host));
        let count = (0..5000).filter(|host| ceiling.admits(of(1, *host), WINDOW));
        assert_eq!(count.count(), 125);
    }

    #[test]
    fn right_packets_cost_nothing() {
        let mut ceiling = Ceiling::new(100);
        for _ in 0..1000 {
            assert!(ceiling.admits(v4(1), WINDOW));
            ceiling.give_back(v4(1));
        }
    }
}
