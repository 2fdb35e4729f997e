//! An engine in memory, for tests: one order of all changes, hosts that can be cut off from it, compaction, and the loss of
//! everything.

use std::collections::{BTreeMap, VecDeque};

use super::engine::{Condition, Engine, Entry, Message, Outcome, Put, Write};
use super::record::grants;

/// The records, and every change since the last compaction.
#[derive(Default, Clone)]
pub struct Store {
    records: BTreeMap<String, Entry>,
    revision: i64,
    changes: VecDeque<Entry>,
    /// Every write fails.
    pub is_full: bool,
}

impl Store {
    /// Writes as the condition says. Everything of one write has one revision.
    pub fn write(&mut self, write: &Write) -> Outcome {
        if self.is_full {
            let why = "database space exceeded".to_owned();
            return Outcome::Failed { why };
        }
        let changed = |key: &str| self.records.get(key).map_or(0, |entry| entry.revision);
        let holds = match &write.condition {
            Condition::Always => true,
            Condition::Unchanged { key, revision } => changed(key) == *revision,
            Condition::Grows { to } => {
                let put = write.puts.first();
                let before = put.and_then(|put| self.records.get(&put.key));
                if before.is_some_and(|before| before.value.starts_with(to)) {
                    return Outcome::Same;
                }
                before.is_none_or(|before| before.value < *to)
            }
        };
        if !holds {
            return Outcome::Refused;
        }
        self.revision += 1;
        for Put { key, value, .. } in &write.puts {
            let entry = Entry {
                key: key.clone(),
                value: value.clone(),
                revision: self.revision,
            };
            self.records.insert(key.clone(), entry.clone());
            self.changes.push_back(entry);
        }
        Outcome::Done
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.records.get(key)
    }

    /// Returns the names and values of the records whose names begin with this.
    pub fn copies(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let records = self.records.values();
        let records = records.filter(|entry| entry.key.starts_with(prefix));
        let records = records.map(|entry| (entry.key.clone(), entry.value.clone()));
        records.collect()
    }

    /// Forgets the changes so far: who has not been told of them has to read everything.
    pub fn compact(&mut self) {
        self.changes.clear();
    }

    /// Deletes what has been of no use for long, as the engine's leases do. It is no change that anybody is told of.
    pub fn sweep(&mut self, is_swept: impl Fn(&str) -> bool) {
        self.records.retain(|key, _| !is_swept(key));
    }
}

/// A host's way to the [`Store`].
#[derive(Default)]
pub struct Link {
    /// The host is cut off.
    pub is_cut: bool,
    /// The last revision that it was told of; `None`: it has to be told everything.
    told: Option<i64>,
    /// What the store has answered and the host has not heard.
    answers: VecDeque<Message>,
    /// What it has written and the store has not taken.
    writes: VecDeque<Write>,
    waiting: VecDeque<Message>,
}

impl Link {
    /// Cuts the host off: what is on its way either way is lost.
    pub fn cut(&mut self) {
        self.is_cut = true;
        self.lose("cut off");
    }

    fn lose(&mut self, why: &str) {
        self.told = None;
        self.answers.clear();
        self.writes.clear();
        self.waiting.clear();
        self.waiting.push_back(Message::Lost { why: why.into() });
    }

    /// Has the store take one of the writes, the `nth` of those that wait: they are on their way side by side.
    pub fn carry(&mut self, store: &mut Store, nth: usize) {
        if self.is_cut || self.writes.is_empty() {
            return;
        }
        let nth = nth % self.writes.len();
        if let Some(write) = self.writes.remove(nth) {
            let outcome = store.write(&write);
            let id = write.id;
            self.answers.push_back(Message::Answered { id, outcome });
        }
    }

    /// Takes the next message; `answer`: of those that wait for either, an answer rather than a change.
    pub fn take(&mut self, store: &Store, answer: bool) -> Option<Message> {
        if let Some(waiting) = self.waiting.pop_front() {
            return Some(waiting);
        }
        if self.is_cut {
            return None;
        }
        let Some(told) = self.told else {
            self.told = Some(store.revision);
            let (of_grants, others): (Vec<Entry>, Vec<Entry>) = store
                .records
                .values()
                .cloned()
                .partition(|entry| entry.key.starts_with(grants()));
            self.waiting.push_back(Message::Grants(of_grants));
            self.waiting.push_back(Message::Current);
            return Some(Message::State(others));
        };
        if answer && let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        let compacted = store
            .changes
            .front()
            .map_or(store.revision, |first| first.revision - 1);
        if told < compacted {
            self.lose("compacted");
            return self.waiting.pop_front();
        }
        let next = store.changes.iter().find(|entry| entry.revision > told);
        if let Some(revision) = next.map(|entry| entry.revision) {
            self.told = Some(revision);
            let of_it = store.changes.iter();
            let of_it = of_it.filter(|entry| entry.revision == revision).cloned();
            return Some(Message::Changed(of_it.collect()));
        }
        self.answers.pop_front()
    }
}

impl Engine for Link {
    async fn next(&mut self) -> Message {
        match self.waiting.pop_front() {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    fn write(&mut self, write: Write) -> bool {
        let has_room = self.writes.len() < 8;
        if has_room {
            self.writes.push_back(write);
        }
        has_room
    }

    fn begin_anew(&mut self, why: &str) {
        self.lose(why);
    }
}
