//! The time of day, as authenticated knocks name it.

use std::time::Duration;

use knock_common::session::GRANTED_SHIFT;

use crate::{keyring::EPOCH, nanoseconds};

/// How the time of day that authenticated knocks name follows from the time of the test: at `begun` it was
/// [`EPOCH`], and it goes `slowed` times as fast.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// ns.
    pub begun: u64,
    pub slowed: u32,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            begun: 0,
            slowed: 1,
        }
    }
}

impl Start {
    /// Returns the time of day, Unix ns, at a moment of the test.
    pub fn unix(self, now: u64) -> u64 {
        EPOCH + (now - self.begun) * u64::from(self.slowed)
    }

    /// Returns how long the host's clock takes for what is so long in the test, ns.
    pub fn unix_length(self, length: Duration) -> u64 {
        nanoseconds(length) * u64::from(self.slowed)
    }

    /// Returns the moment up to which a flow counts as under a grant that ends at `until`: in whole units of the host's clock.
    pub fn granted(self, until: u64) -> u64 {
        let slowed = u128::from(self.slowed);
        let units = (u128::from(until) * slowed) >> GRANTED_SHIFT;
        u64::try_from((units << GRANTED_SHIFT) / slowed).unwrap_or(u64::MAX)
    }

    /// Returns the moment of the test at this time of day; 0 if it is before that.
    pub fn moment(self, unix: u64) -> u64 {
        let since = (i128::from(unix) - i128::from(EPOCH)) / i128::from(self.slowed);
        u64::try_from(i128::from(self.begun) + since).unwrap_or(0)
    }
}
