//! Random sequences that are hard to guess, that a scan does not complete, and whose ports no service uses.

use std::{collections::BTreeSet, ops::RangeInclusive};

use anyhow::{anyhow, ensure};

use crate::values::{Port, Protocol};

/// Ports of common services, which clients and scanners try anyway.
const COMMON: [u16; 34] = [
    1080, 1194, 1433, 1521, 1701, 1723, 1883, 1900, 2049, 2375, 2376, 3000, 3128, 3306, 3389, 3478,
    4500, 5000, 5060, 5061, 5353, 5432, 5672, 5900, 6379, 6443, 8000, 8080, 8443, 8888, 9000, 9200,
    11211, 27017,
];
/// Ports below this number are for privileged services.
const FIRST: u16 = 1024;
/// Where Linux's ephemeral range begins by default.
const USUAL_EPHEMERAL: u16 = 32_768;
/// A smaller pool than this would make sequences guessable.
const SMALLEST_POOL: usize = 4_096;
/// Two ports of one sequence are at least this far apart.
const APART: u16 = 16;

/// Draws sequences in which no port occurs twice.
#[derive(Clone)]
pub(in crate::commands::host) struct Draw {
    pool: Vec<u16>,
    /// Numbers that are not drawn any more; some are not in the pool.
    taken: BTreeSet<u16>,
}

impl Draw {
    /// Makes a pool of the ports from 1024 up to the ephemeral range, without common ones and those in use.
    pub(in crate::commands::host) fn new(
        ephemeral: Option<RangeInclusive<u16>>,
        in_use: &BTreeSet<Port>,
    ) -> Self {
        let in_use = in_use
            .iter()
            .map(|port| port.number)
            .collect::<BTreeSet<_>>();
        let pool_below = |end: u16| {
            (FIRST..end)
                .filter(|number| !COMMON.contains(number) && !in_use.contains(number))
                .collect::<Vec<_>>()
        };
        let end = ephemeral.map_or(USUAL_EPHEMERAL, |range| *range.start());
        let mut pool = pool_below(end);
        if pool.len() < SMALLEST_POOL {
            // On some hosts nearly every port is ephemeral; `check` then warns of the sequence.
            pool = pool_below(USUAL_EPHEMERAL);
        }
        Self {
            pool,
            taken: BTreeSet::new(),
        }
    }

    /// Keeps these ports out of every sequence.
    pub(super) fn avoid(&mut self, numbers: impl IntoIterator<Item = u16>) {
        self.taken.extend(numbers);
    }

    /// Returns three knocks of both protocols that go up and down.
    ///
    /// Draws whole sequences until one is suitable, so that all suitable ones are equally likely.
    pub(in crate::commands::host) fn sequence(&mut self) -> anyhow::Result<[Port; 3]> {
        ensure!(
            self.pool.len() >= self.taken.len() + SMALLEST_POOL / 2,
            "too few ports are left for sequences that cannot be guessed: write fewer gates at a time"
        );
        loop {
            let [a, b, c] = [self.knock()?, self.knock()?, self.knock()?];
            let apart = |x: Port, y: Port| x.number.abs_diff(y.number) >= APART;
            let turns = (a.number < b.number) != (b.number < c.number);
            let free = [a, b, c]
                .iter()
                .all(|port| !self.taken.contains(&port.number));
            let mixed = a.protocol != b.protocol || b.protocol != c.protocol;
            if free && turns && mixed && apart(a, b) && apart(b, c) && apart(a, c) {
                self.avoid([a.number, b.number, c.number]);
                return Ok([a, b, c]);
            }
        }
    }

    /// Returns a UDP port that is in no sequence.
    pub(super) fn datagram_port(&mut self) -> anyhow::Result<Port> {
        ensure!(
            self.pool.len() > self.taken.len(),
            "too few ports are left: write fewer gates at a time"
        );
        loop {
            let number = self.pool[below(self.pool.len())?];
            if self.taken.insert(number) {
                return Ok(Port {
                    number,
                    protocol: Protocol::Udp,
                });
            }
        }
    }

    fn knock(&self) -> anyhow::Result<Port> {
        let protocol = if below(2)? == 0 {
            Protocol::Tcp
        } else {
            Protocol::Udp
        };
        Ok(Port {
            number: self.pool[below(self.pool.len())?],
            protocol,
        })
    }
}

/// Returns a number from 0 to `end` - 1, all equally likely. `end` must not be 0.
fn below(end: usize) -> anyhow::Result<usize> {
    let end = u64::try_from(end)?;
    // A remainder alone would favour low numbers: a number beyond the last multiple of `end` is drawn again.
    let rounds = u64::MAX - u64::MAX % end;
    loop {
        let drawn = getrandom::u64()
            .map_err(|error| anyhow!("the system's random source failed: {error}"))?;
        if drawn < rounds {
            return Ok(usize::try_from(drawn % end)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_from_below_the_ephemeral_range_and_are_never_in_use() {
        let used = Port {
            number: 5555,
            protocol: Protocol::Udp,
        };
        let pool = Draw::new(Some(10_000..=60_999), &BTreeSet::from([used])).pool;
        assert_eq!((pool.first(), pool.last()), (Some(&1024), Some(&9_999)));
        for number in [5555, 3306, 8080] {
            assert!(!pool.contains(&number), "{number}");
        }
    }

    #[test]
    fn a_host_that_hands_out_nearly_every_port_still_gets_a_wide_choice() {
        for range in [1024..=65_535, 1..=65_535, 2000..=65_535] {
            let pool = Draw::new(Some(range.clone()), &BTreeSet::new()).pool;
            assert!(pool.len() > 30_000, "{range:?}: {}", pool.len());
        }
    }

    #[test]
    fn sequences_turn_mix_and_never_share_a_port() {
        let mut draw = Draw::new(None, &BTreeSet::new());
        let mut seen = BTreeSet::new();
        for _ in 0..1_000 {
            let sequence = draw.sequence().expect("a full pool");
            let [a, b, c] = sequence.map(|port| i32::from(port.number));
            assert!((b - a) * (c - b) < 0, "{sequence:?}");
            assert!(
                sequence.iter().any(|port| port.protocol == Protocol::Tcp),
                "{sequence:?}"
            );
            assert!(
                sequence.iter().any(|port| port.protocol == Protocol::Udp),
                "{sequence:?}"
            );
            for port in sequence {
                assert!(seen.insert(port.number), "{port} twice");
            }
        }
    }

    #[test]
    fn a_port_for_datagrams_is_in_no_sequence() {
        let mut draw = Draw::new(None, &BTreeSet::new());
        let port = draw.datagram_port().expect("a full pool");
        assert_eq!(port.protocol, Protocol::Udp);
        for _ in 0..1_000 {
            let sequence = draw.sequence().expect("a full pool");
            assert!(sequence.iter().all(|knock| knock.number != port.number));
        }
    }

    #[test]
    fn an_emptied_pool_ends_with_an_error() {
        let mut draw = Draw::new(None, &BTreeSet::new());
        draw.avoid(3_000..=u16::MAX);
        let error = draw.sequence().expect_err("too few ports");
        assert!(error.to_string().contains("too few ports"), "{error}");
    }

    #[test]
    fn every_number_below_the_end_is_drawn_about_equally_often() {
        let mut drawn = [0_u32; 6];
        for _ in 0..60_000 {
            drawn[below(6).expect("randomness")] += 1;
        }
        // Ten standard deviations (91 each): practically impossible by chance.
        assert!(drawn.iter().all(|n| n.abs_diff(10_000) < 910), "{drawn:?}");
    }
}
