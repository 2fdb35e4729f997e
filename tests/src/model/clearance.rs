//! The moments at which a verdict may change, of which a system needs to be clear.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Model, authenticated,
    frame::{Contents, Segment},
    probes::{Source, sequences},
};
use crate::{keyring, nanoseconds};

impl Model<'_> {
    /// Returns the time since the latest boundary, and the time until the next. Boundaries are the moments at which a
    /// grant or a flow ends, a flow looks its grant up again, or a knock becomes too old. A system whose clock is less
    /// precise than that cannot be expected to agree.
    pub fn clearance(&self, now: u64) -> (Duration, Duration) {
        let grants = self.grants.iter().map(|grant| grant.until);
        let flows = self
            .flows
            .iter()
            .map(|remembered| remembered.last + self.idle(remembered.flow.gate));
        let granted = self.flows.iter().map(|remembered| remembered.granted_until);
        let withins = sequences(self.config).map(|sequence| nanoseconds(sequence.knock.within));
        let withins: BTreeSet<u64> = withins.collect();
        let knocks = self.sources.values().flat_map(Source::latest);
        let knocks = knocks.flat_map(|time| withins.iter().map(move |within| time + within));
        let boundaries = grants.chain(flows).chain(granted);
        let boundaries = boundaries.chain(knocks).chain(self.ends_of_keys());
        clear(boundaries, now)
    }

    /// As [`Model::clearance`], for the boundaries of one packet alone: when it becomes too old for a knock, and when it is
    /// no longer too far ahead. `None`: it has none.
    pub fn clearance_of(&self, frame: &[u8], now: u64) -> Option<(Duration, Duration)> {
        let Contents::Segment(Segment {
            message: Some(message),
            ..
        }) = self.read(frame)
        else {
            return None;
        };
        let time = authenticated::time(&message, self.start, self.start.unix(now))?;
        let sent = self.start.moment(time);
        let knock = &self.config.knock;
        let boundaries = [
            sent.saturating_add(nanoseconds(knock.max_age)),
            sent.saturating_sub(nanoseconds(knock.max_ahead)),
        ];
        Some(clear(boundaries.into_iter(), now))
    }

    /// Returns when keys expire, and the host's earlier secret.
    fn ends_of_keys(&self) -> impl Iterator<Item = u64> {
        let begun = self.start.begun;
        let takes = !self.config.knock.ports.is_empty();
        let ends = keyring::KEYS.iter().filter_map(|key| key.expires);
        let ends = ends.chain([keyring::PREVIOUS_FOR]).filter(move |_| takes);
        ends.map(move |end| begun + nanoseconds(end))
    }
}

/// Returns the time since the latest boundary, and the time until the next.
fn clear(boundaries: impl Iterator<Item = u64>, now: u64) -> (Duration, Duration) {
    let (mut behind, mut ahead) = (u64::MAX, u64::MAX);
    for boundary in boundaries {
        if boundary <= now {
            behind = behind.min(now - boundary);
        } else {
            ahead = ahead.min(boundary - now);
        }
    }
    (Duration::from_nanos(behind), Duration::from_nanos(ahead))
}
