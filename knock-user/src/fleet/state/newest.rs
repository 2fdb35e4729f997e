//! Newest times of keys: a host tells the others of the time of the newest packet that it has accepted of each, so that none of
//! them accepts a copy.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Condition, Moment, Outcome, Policy, Put, REST, SECOND, Seen, State, Write, own::InFlight,
};
use crate::fleet::record::Codec;

/// How long a newest time is of use: a packet that is older than this is refused for its age.
const SEEN_FOR: Duration = Duration::from_hours(24);
/// A newest time that is further ahead than this of what a packet may carry, ns, was not accepted by a host whose clock is only a
/// little wrong, nor is it this host's that is.
pub(super) const FAR: u64 = 3600 * SECOND;

/// The newest time of a key, Unix ns.
#[derive(Debug, Clone, Copy, Default)]
pub struct Newest {
    pub(super) time: u64,
    pub(super) published: u64,
    /// When it was handed to the engine, the last time but one and the last time, ns of `CLOCK_MONOTONIC`; 0: never.
    handed: [u64; 2],
    pub(super) is_in_flight: bool,
}

impl Newest {
    /// Returns when it is to be written, ns of `CLOCK_MONOTONIC`: two writes a second, so that the packet after the first is not
    /// kept waiting.
    pub(super) fn due(&self) -> Option<u64> {
        let [before, _] = self.handed;
        let is_due = self.time > self.published && !self.is_in_flight;
        is_due.then_some(if before == 0 { 0 } else { before + REST })
    }
}

/// Returns the write of a record of a newest time.
pub(super) fn seen_write(id: u64, condition: Condition, (key, value): (String, Vec<u8>)) -> Write {
    Write {
        id,
        condition,
        puts: vec![Put {
            key,
            value,
            useful: SEEN_FOR,
        }],
    }
}

/// Returns the condition of a write of a newest time with this name: it only grows, unless what is there is much later than any
/// packet can be, and would lock out the key's user until then. `unreached`: see [`State`].
pub(super) fn grows(
    unreached: &BTreeMap<String, (u64, i64)>,
    (key, time): (&str, u64),
    name: &str,
    latest: u64,
) -> Condition {
    match unreached.get(key) {
        Some((there, revision)) if is_far(*there, latest) => Condition::Unchanged {
            key: name.to_owned(),
            revision: *revision,
        },
        _ => Condition::Grows {
            to: Codec::seen_prefix(time),
        },
    }
}

/// Returns whether a newest time is [far](FAR) ahead of the latest that a packet may carry.
pub(super) fn is_far(time: u64, latest: u64) -> bool {
    time > latest.saturating_add(FAR)
}

/// Returns the revision of the record that a write is to replace.
pub(super) fn replaced(condition: &Condition) -> Option<i64> {
    match condition {
        Condition::Unchanged { revision, .. } => Some(*revision),
        _ => None,
    }
}

impl State {
    /// Learns of the newest time of a key, Unix ns.
    pub fn accepted(&mut self, key: &str, time: u64) {
        let newest = self.seen.entry(key.to_owned()).or_default();
        newest.time = newest.time.max(time);
    }

    /// Returns the newest times of keys that any host has accepted, Unix ns.
    pub fn newest(&self) -> Vec<(String, u64)> {
        let seen = self.seen.iter();
        seen.map(|(key, newest)| (key.clone(), newest.time))
            .collect()
    }

    pub(super) fn write_newest(
        &mut self,
        now: Moment,
        policy: &impl Policy,
        writes: &mut Vec<Write>,
    ) {
        let latest = policy.latest(now);
        let wanted: Vec<(String, u64)> = self
            .seen
            .iter()
            .filter(|(_, newest)| newest.due().is_some_and(|due| due <= now.monotonic))
            .map(|(key, newest)| (key.clone(), newest.time))
            .collect();
        for (key, time) in wanted {
            let (name, value) = self.codec.seen(&key, Seen { time });
            let id = self.take_id();
            if let Some(newest) = self.seen.get_mut(&key) {
                newest.handed = [newest.handed[1], now.monotonic];
                newest.is_in_flight = true;
            }
            let condition = grows(&self.unreached, (&key, time), &name, latest);
            self.in_flight
                .insert(id, InFlight::Newest(key, time, replaced(&condition)));
            writes.push(seen_write(id, condition, (name, value)));
        }
    }

    /// Notes that the engine has a time that no packet can have for long, in place of the one that is known here.
    pub(super) fn note_unreached(&mut self, key: String, time: u64, revision: i64) {
        if let Some(newest) = self.seen.get_mut(&key) {
            newest.published = 0;
        }
        self.unreached.insert(key, (time, revision));
    }

    /// Notes what became of one that was handed to the engine; `replaced`: see [`InFlight::Newest`].
    pub(super) fn told_of_newest(
        &mut self,
        key: &str,
        time: u64,
        replaced: Option<i64>,
        outcome: &Outcome,
    ) {
        let is_refused = matches!(outcome, Outcome::Refused | Outcome::Same);
        if let Some(newest) = self.seen.get_mut(key) {
            newest.is_in_flight = false;
            // Refused: another host has accepted a later one, or this one, and says so.
            if *outcome == Outcome::Done || (is_refused && replaced.is_none()) {
                newest.published = newest.published.max(time);
            }
        }
        if is_refused {
            self.is_gone(key, replaced);
        }
    }

    /// Forgets a newest time that was to be replaced and is not there any more: others have replaced it, or it was deleted.
    pub(super) fn is_gone(&mut self, key: &str, replaced: Option<i64>) {
        let known = self.unreached.get(key).map(|(_, revision)| *revision);
        if replaced.is_some() && known == replaced {
            self.unreached.remove(key);
        }
    }
}
