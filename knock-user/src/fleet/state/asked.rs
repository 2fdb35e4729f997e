//! What a host asks before it opens: whether no other host has accepted the same packet.
//!
//! The engine keeps the newest time that any host has accepted of each key, and takes only a later one. So of all hosts that
//! have the same packet one is told yes. Of one key, one packet at a time is asked about: the engine may take two writes in any
//! order, and would refuse the earlier packet if the later one came first.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Act, Moment, Outcome, Policy, Seen, State, Write,
    newest::{grows, replaced, seen_write},
    own::InFlight,
};

/// What the engine has said of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// No other host has accepted it, and none will any more.
    Agreed,
    /// Another host has accepted it, or another packet of the same time.
    Taken,
    /// Another host has accepted a later one of the same key.
    Older,
    /// Nothing: it cannot be reached.
    Nothing,
}

/// The packets of a key that are to be asked about, in the order in which this host has accepted them.
#[derive(Debug, Default)]
pub struct Queue {
    /// Their times, Unix ns, and the numbers of what waits for them.
    waiting: VecDeque<(u64, u64)>,
    /// The first of them has been asked about.
    is_in_flight: bool,
}

/// By key.
pub type Asked = BTreeMap<String, Queue>;

impl State {
    /// Asks about a packet with this time, Unix ns. The answer is an [`Act::Answered`] with `ask`. Returns whether there is
    /// anybody to be asked.
    pub fn ask(&mut self, key: &str, time: u64, ask: u64) -> bool {
        if self.told.is_current {
            let queue = self.asked.entry(key.to_owned()).or_default();
            queue.waiting.push_back((time, ask));
        }
        self.told.is_current
    }

    /// Returns whether there is something to ask about now.
    pub(super) fn has_questions(&self) -> bool {
        self.asked.values().any(|queue| !queue.is_in_flight)
    }

    /// Adds what is to be asked about now, up to `most` writes.
    pub(super) fn write_questions(
        &mut self,
        now: Moment,
        most: usize,
        policy: &impl Policy,
        writes: &mut Vec<Write>,
    ) {
        let latest = policy.latest(now);
        let ready = self
            .asked
            .iter_mut()
            .filter(|(_, queue)| !queue.is_in_flight);
        for (key, queue) in ready.take(most.saturating_sub(writes.len())) {
            let Some(&(time, _)) = queue.waiting.front() else {
                continue;
            };
            queue.is_in_flight = true;
            let (name, value) = self.codec.seen(key, Seen { time });
            let condition = grows(&self.unreached, (key, time), &name, latest);
            self.next_write += 1;
            let id = self.next_write;
            let replaced = replaced(&condition);
            self.in_flight
                .insert(id, InFlight::Question(key.clone(), replaced));
            writes.push(seen_write(id, condition, (name, value)));
        }
    }

    pub(super) fn question_answered(&mut self, key: &str, outcome: &Outcome, acts: &mut Vec<Act>) {
        let Some(queue) = self.asked.get_mut(key) else {
            return;
        };
        queue.is_in_flight = false;
        if let Some((_, ask)) = queue.waiting.pop_front() {
            let answer = match outcome {
                Outcome::Done => Answer::Agreed,
                Outcome::Same => Answer::Taken,
                Outcome::Refused => Answer::Older,
                Outcome::Failed { .. } => Answer::Nothing,
            };
            acts.push(Act::Answered { ask, answer });
        }
        if queue.waiting.is_empty() {
            self.asked.remove(key);
        }
    }

    /// What the engine had no room for is asked about again.
    pub(super) fn question_not_written(&mut self, key: &str) {
        if let Some(queue) = self.asked.get_mut(key) {
            queue.is_in_flight = false;
        }
    }

    /// Nobody answers any more.
    pub(super) fn give_up_asking(&mut self, acts: &mut Vec<Act>) {
        for queue in std::mem::take(&mut self.asked).into_values() {
            let unanswered = queue.waiting.into_iter().map(|(_, ask)| Act::Answered {
                ask,
                answer: Answer::Nothing,
            });
            acts.extend(unanswered);
        }
    }
}
