//! Packets of fwknop's clients: a host tells the others of those that it has accepted, so that none of them accepts a copy.

use std::{collections::BTreeMap, time::Duration};

use super::{AT_ONCE, Condition, Moment, Outcome, Put, State, Write, own::InFlight};
use crate::fwknop::seen::{Fingerprint, KEPT};

/// Those that the engine does not have yet, and when they are to be handed to it, ns of `CLOCK_MONOTONIC`.
pub type Untold = BTreeMap<Fingerprint, u64>;

/// One has been handed to it.
const IN_FLIGHT: u64 = u64::MAX;

impl State {
    /// Learns of a packet that this host has accepted.
    pub fn accepted_packet(&mut self, packet: Fingerprint) {
        self.untold.entry(packet).or_insert(0);
    }

    /// Notes that the engine has a packet.
    pub(super) fn packet_is_told(&mut self, packet: &Fingerprint) {
        self.untold.remove(packet);
    }

    /// Returns those that the engine may not have, for the next thread.
    pub fn take_untold(&mut self) -> impl Iterator<Item = Fingerprint> + use<> {
        std::mem::take(&mut self.untold).into_keys()
    }

    /// Returns when the next one is to be told of.
    pub(super) fn next_untold(&self) -> Option<u64> {
        let due = self.untold.values().copied();
        due.filter(|due| *due != IN_FLIGHT).min()
    }

    /// Adds the packets that are to be told of now, up to `most` writes. What is so old that nobody accepts a copy is not
    /// worth it.
    pub(super) fn write_packets(&mut self, now: Moment, most: usize, writes: &mut Vec<Write>) {
        self.forget_old_packets(now);
        while writes.len() < most {
            let mut told = Vec::new();
            let due = self.untold.iter_mut();
            let due = due.filter(|(_, due)| **due <= now.monotonic);
            for (packet, due) in due.take(AT_ONCE) {
                *due = IN_FLIGHT;
                told.push(*packet);
            }
            if told.is_empty() {
                return;
            }
            let puts = told.iter().map(|packet| {
                let (key, value) = self.codec.packet(packet, &self.name);
                Put {
                    key,
                    value,
                    useful: Duration::from_secs(2 * KEPT),
                }
            });
            let puts = puts.collect();
            let id = self.take_id();
            self.in_flight.insert(id, InFlight::Packets(told));
            writes.push(Write {
                id,
                condition: Condition::Always,
                puts,
            });
        }
    }

    /// Forgets those that are so old that nobody accepts a copy.
    pub(super) fn forget_old_packets(&mut self, now: Moment) {
        let second = now.wall / 1_000_000;
        self.untold
            .retain(|packet, _| packet.time.saturating_add(KEPT) >= second);
    }

    pub(super) fn told_of_packets(&mut self, told: &[Fingerprint], outcome: &Outcome, now: Moment) {
        for packet in told {
            if *outcome == Outcome::Done {
                self.untold.remove(packet);
            } else if let Some(due) = self.untold.get_mut(packet) {
                *due = now.monotonic + self.failures.pause();
            }
        }
    }

    /// What was handed to an engine that is lost may not have been written.
    pub(super) fn tell_packets_again(&mut self) {
        for due in self.untold.values_mut() {
            *due = 0;
        }
    }
}
