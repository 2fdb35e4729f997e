//! Token buckets of ICMP errors, as Linux keeps them: one for each destination (`inet_peer_xrlim_allow`) and one for
//! all of them (`icmp_global_allow`).

use bytemuck::{Pod, Zeroable};

use super::ReplySettings;
use crate::time::elapsed;

/// Errors that a destination may get at once.
const BURST: u64 = 6;
const SECOND: u64 = 1_000_000_000;
/// What a destination has saved up before the first error, ns (`inet_getpeer`).
const STRANGER: u64 = 60 * SECOND;
/// The bucket of all destinations is filled no more often than this, ns: a fiftieth of a second.
const FILLED_EVERY: u64 = SECOND / 50;

/// The ICMP errors that a destination may still get.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct IcmpBucket {
    /// When it was last looked at, ns of `CLOCK_MONOTONIC`.
    pub since: u64,
    /// Saved up until then, ns: each error costs the interval.
    pub saved: u64,
    /// Identification of the last packet.
    pub identification: u32,
    pub zero: u32,
}

records!(IcmpBucket: 24 { since: 0, saved: 8, identification: 16, zero: 20 });

impl IcmpBucket {
    /// Returns the bucket of a destination before its first error. `random` begins its identifications.
    #[inline(always)]
    pub fn new(now: u64, interval: u64, random: u32) -> Self {
        Self {
            since: now,
            saved: (BURST * interval).min(STRANGER),
            identification: random,
            zero: 0,
        }
    }

    /// Takes one error at `now`, where there is one every `interval`, both ns. Returns false where none is left.
    #[inline(always)]
    pub fn take(&mut self, now: u64, interval: u64) -> bool {
        let saved = self.saved + elapsed(self.since, now);
        self.since = now;
        self.saved = saved.min(BURST * interval);
        let enough = self.saved >= interval;
        if enough {
            self.saved -= interval;
        }
        enough
    }

    /// Returns the next identification. Linux adds one, and a random part of the timer's ticks since
    /// the last (`ip_idents_reserve`): those between `before` and `now`, ns.
    #[inline(always)]
    pub fn identify(&mut self, before: u64, now: u64, tick: u64, random: u32) -> u16 {
        let ticks = elapsed(before, now) / tick.max(1);
        // BPF defines x % 0 as x, and Rust panics.
        let skipped = u64::from(random) % ticks.max(1);
        self.identification = self.identification.wrapping_add(1 + skipped as u32);
        self.identification as u16
    }
}

/// The ICMP errors that all destinations together may still get, in one word for compare-and-exchange: when it was
/// last filled, in units of 2^20 ns, above `ERRORS` bits for the errors left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalIcmpBucket(pub u64);

impl GlobalIcmpBucket {
    const ERRORS: u32 = 24;
    const MOST: u64 = (1 << Self::ERRORS) - 1;

    /// Fills it up to `now`, ns; `None` where no error is left then.
    #[inline(always)]
    pub fn filled(self, now: u64, settings: &ReplySettings) -> Option<Self> {
        let (mut filled, mut left) = (self.0 >> Self::ERRORS, self.0 & Self::MOST);
        let passed = (elapsed(filled, now >> 20) << 20).min(SECOND);
        if passed >= FILLED_EVERY {
            let more = u64::from(settings.per_second) * passed / SECOND;
            if more != 0 {
                filled = now >> 20;
                left += more;
            }
        }
        left = left.min(u64::from(settings.burst)).min(Self::MOST);
        (left != 0).then_some(Self(filled << Self::ERRORS | left))
    }

    /// Takes none to two errors, one on average, so that nobody can measure replies to others.
    #[inline(always)]
    #[must_use]
    pub fn less(self, random: u32) -> Self {
        let left = self.0 & Self::MOST;
        Self(self.0 - left.min(u64::from(random % 3)))
    }
}
