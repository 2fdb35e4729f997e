//! How many ICMP errors go out: Linux's own two limits, one for each destination
//! (`inet_peer_xrlim_allow`) and one for all of them (`icmp_global_allow`).

use bytemuck::{Pod, Zeroable};

use super::ReplySettings;

/// Errors that a destination may get at once.
const BURST: u64 = 6;
const SECOND: u64 = 1_000_000_000;
/// What a destination has saved up before the first error, ns (`inet_getpeer`).
const STRANGER: u64 = 60 * SECOND;
/// All destinations' pool is filled no more often than this, ns: a fiftieth of a second.
const FILLED_EVERY: u64 = SECOND / 50;

/// How many ICMP errors a destination is owed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct IcmpBucket {
    /// When it was last looked at, ns of `CLOCK_MONOTONIC`.
    pub since: u64,
    /// Saved up until then, ns: each error costs the interval.
    pub saved: u64,
    /// Of the last packet.
    pub identification: u32,
    pub zero: u32,
}

records!(IcmpBucket: 24 { since: 0, saved: 8, identification: 16, zero: 20 });

/// What a destination is owed before the first error to it. `random` begins its identifications.
#[inline(always)]
pub fn first(now: u64, interval: u64, random: u32) -> IcmpBucket {
    IcmpBucket {
        since: now,
        saved: (BURST * interval).min(STRANGER),
        identification: random,
        zero: 0,
    }
}

impl IcmpBucket {
    /// Takes one error at `now`, where one is owed every `interval`, both ns.
    #[inline(always)]
    pub fn take(&mut self, now: u64, interval: u64) -> bool {
        let saved = self.saved + now.wrapping_sub(self.since);
        self.since = now;
        self.saved = saved.min(BURST * interval);
        let enough = self.saved >= interval;
        if enough {
            self.saved -= interval;
        }
        enough
    }

    /// The next identification. Linux moves it on by one, and by a random part of the ticks since
    /// the last (`ip_idents_reserve`); those passed between `before` and `now`, ns.
    #[inline(always)]
    pub fn identify(&mut self, before: u64, now: u64, tick: u64, random: u32) -> u16 {
        let ticks = now.wrapping_sub(before) / tick.max(1);
        // A modulus of nothing would be what it is taken of, on BPF and nowhere else.
        let skipped = u64::from(random) % ticks.max(1);
        self.identification = self.identification.wrapping_add(1 + skipped as u32);
        self.identification as u16
    }
}

/// What all destinations together are owed, in one word, so that CPUs can exchange it: when it was
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
        let passed = ((now >> 20).wrapping_sub(filled) << 20).min(SECOND);
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

    /// Takes one error on average: none to two, so that nobody can measure who else was answered.
    #[inline(always)]
    #[must_use]
    pub fn less(self, random: u32) -> Self {
        let left = self.0 & Self::MOST;
        Self(self.0 - left.min(u64::from(random % 3)))
    }
}
