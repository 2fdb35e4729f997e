//! The newest times of keys: what this host has accepted is told, and copies of what others have accepted are refused.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;

use super::{Worker, moment};
use crate::{
    datapath::keys::user_of,
    fleet::{
        engine::Engine,
        record::Refusal,
        state::{Policy as _, Refused},
    },
};

/// Times that no packet can have yet; more are left out, and the latest first.
const AHEAD: usize = 4096;

/// By so much sooner than a packet can have it, a time is taken. This is looked at once a [`LOOK`](super::LOOK), and a copy must
/// not come before that.
const EARLY: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Newest {
    /// Of the packets that this host has accepted, by the slot of their key, as it was last seen, Unix ns.
    accepted: Vec<u64>,
    /// Of others' packets, by this host's clock later than any that it accepts: with the names of their keys.
    ahead: BTreeSet<(u64, String)>,
}

impl Newest {
    /// The slots may be other keys' from now on.
    pub fn forget(&mut self) {
        self.accepted.clear();
    }

    fn await_time(&mut self, time: u64, key: &str) {
        self.ahead.insert((time, key.to_owned()));
        if self.ahead.len() > AHEAD {
            self.ahead.pop_last();
        }
    }

    /// Takes one that is not later than `reached`, Unix ns.
    fn take_reached(&mut self, reached: u64) -> Option<(u64, String)> {
        let is_reached = |(time, _): &&(u64, String)| *time <= reached;
        self.ahead.first().filter(is_reached)?;
        self.ahead.pop_first()
    }
}

impl<E: Engine> Worker<E> {
    /// `accepted`: the newest time of each slot.
    pub(super) fn note_accepted(&mut self, accepted: Vec<u64>) {
        for (slot, time) in (0..).zip(&accepted) {
            let known = self.newest.accepted.get(usize::from(slot));
            if known.is_none_or(|known| known < time) {
                self.note_time(slot, *time);
            }
        }
        self.newest.accepted = accepted;
    }

    pub(super) fn note_time(&mut self, slot: u16, time: u64) {
        // What waits for the engine's word is accepted only by it.
        if self.datapath.config().holds_knocks() {
            return;
        }
        // All ones: the key accepts nothing yet.
        if time != 0
            && time != u64::MAX
            && let Some(name) = self.rules.key_in(slot)
        {
            self.state.accepted(name, time);
        }
    }

    /// Refuses packets of a key that another host has accepted. A time that no packet can have yet would lock its user out, so
    /// that is done when its time has come.
    pub(super) fn raise_newest(&mut self, key: &str, time: u64) -> Result<()> {
        let slots = self.rules.slots_of(key).to_vec();
        if slots.is_empty() {
            return Ok(());
        }
        if time > self.reached() {
            self.newest.await_time(time, key);
            self.refuse(Refused {
                reason: Refusal::TooLong,
                origin: None,
                gate: None,
                user: Some(user_of(key).to_owned()),
                source: None,
                key: key.to_owned(),
            });
            return Ok(());
        }
        for slot in slots {
            self.datapath.raise_newest(slot, time)?;
        }
        Ok(())
    }

    /// Returns up to which time packets are refused now where another host says so, Unix ns.
    fn reached(&self) -> u64 {
        let latest = self.rules.latest(moment());
        latest.saturating_add(u64::try_from(EARLY.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Refuses packets whose time was too far ahead when another host said that it has accepted them.
    pub(super) fn raise_reached(&mut self) -> Result<()> {
        while let Some((time, key)) = self.newest.take_reached(self.reached()) {
            self.raise_newest(&key, time)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_are_ahead_are_taken_when_they_are_reached() {
        let mut newest = Newest::default();
        for (time, key) in [(30, "alice"), (10, "alice"), (20, "bob")] {
            newest.await_time(time, key);
        }
        assert_eq!(newest.take_reached(9), None);
        assert_eq!(newest.take_reached(20), Some((10, "alice".into())));
        assert_eq!(newest.take_reached(20), Some((20, "bob".into())));
        assert_eq!(newest.take_reached(29), None);
        newest.forget();
        assert_eq!(newest.take_reached(30), Some((30, "alice".into())));
        for time in 0..AHEAD as u64 + 9 {
            newest.await_time(time, "carol");
        }
        assert_eq!(newest.ahead.len(), AHEAD);
        assert_eq!(newest.take_reached(0), Some((0, "carol".into())));
    }
}
