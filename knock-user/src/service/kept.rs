//! The latest events: each kind has its share of the room.

use std::collections::{HashMap, VecDeque};

use super::record::Record;

/// Number of events that are kept.
const KEPT: usize = 1000;

/// The events that are kept. Where there is no room for another one, the kind that has the most loses its oldest: a flood
/// of one kind evicts other kinds only down to an equal share of the room.
#[derive(Default)]
pub struct Kept {
    /// By the name of the event; each with its number, oldest in front.
    kinds: HashMap<String, VecDeque<(u64, Record)>>,
    count: usize,
    next: u64,
}

impl Kept {
    pub fn add(&mut self, record: Record) {
        let number = self.next;
        self.next += 1;
        let kind = self.kinds.entry(record.event.clone()).or_default();
        kind.push_back((number, record));
        self.count += 1;
        if self.count > KEPT
            && let Some(most) = self.kinds.values_mut().max_by_key(|kind| kind.len())
        {
            most.pop_front();
            self.count -= 1;
        }
    }

    /// Returns all of them, oldest first.
    pub fn in_order(&self) -> Vec<Record> {
        let mut all: Vec<&(u64, Record)> = self.kinds.values().flatten().collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, record)| record.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: &str, lost: u64) -> Record {
        Record {
            lost: Some(lost),
            ..Record::now(event)
        }
    }

    fn count(kept: &Kept, event: &str) -> usize {
        let all = kept.in_order();
        all.iter().filter(|record| record.event == event).count()
    }

    #[test]
    fn no_kind_flushes_another() {
        let mut kept = Kept::default();
        for number in 0..100 {
            kept.add(record("gate.opened", number));
        }
        for number in 0..20_000 {
            kept.add(record("knock.failed", number));
            kept.add(record("packet.denied", number));
        }
        assert_eq!(kept.in_order().len(), KEPT);
        assert_eq!(count(&kept, "gate.opened"), 100);
        assert_eq!(count(&kept, "knock.failed"), 450);
        // Each has at least its share, however many there are of others.
        for number in 0..20_000 {
            kept.add(record("gate.opened", number));
        }
        for event in ["gate.opened", "knock.failed", "packet.denied"] {
            assert!(count(&kept, event) >= KEPT / 3, "{event}");
        }
    }

    #[test]
    fn they_stay_in_order() {
        let mut kept = Kept::default();
        for number in 0..5000 {
            let event = if number % 3 == 0 {
                "knock.step"
            } else {
                "gate.closed"
            };
            kept.add(record(event, number));
        }
        let numbers: Vec<u64> = kept
            .in_order()
            .iter()
            .filter_map(|record| record.lost)
            .collect();
        assert!(numbers.is_sorted());
        assert_eq!(numbers.len(), KEPT);
        assert_eq!(numbers.last(), Some(&4999));
    }
}
