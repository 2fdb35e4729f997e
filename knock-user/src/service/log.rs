//! The latest events, and everyone who listens.

use std::collections::VecDeque;

use aya::maps::{MapData, RingBuf};
use bytemuck::{Zeroable as _, pod_read_unaligned};
use knock_common::event::Event;
use tokio::sync::broadcast;

use super::{
    Record,
    socket::{self, Connection},
};
use crate::gate::Gate;

/// How many events are kept for those who ask later.
const KEPT: usize = 1000;
/// How far a reader may be behind before it misses some.
const BACKLOG: usize = 4096;
/// Taken from the ring at a time, so that a flood keeps nothing else waiting.
const AT_ONCE: usize = 1024;

/// Keeps events, logs them and hands them on.
pub struct Log {
    latest: VecDeque<Record>,
    readers: broadcast::Sender<Record>,
    users: Vec<String>,
    /// How many the kernel had lost when it was last asked.
    lost: u64,
}

impl Log {
    pub fn new(gate: &Gate) -> Self {
        Self {
            latest: VecDeque::with_capacity(KEPT),
            readers: broadcast::Sender::new(BACKLOG),
            users: owned_users(gate),
            lost: 0,
        }
    }

    /// Adds one event.
    pub fn say(&mut self, record: Record) {
        tracing::info!("{}", Brief(&record));
        if self.latest.len() == KEPT {
            self.latest.pop_front();
        }
        self.latest.push_back(record.clone());
        // Nobody listening is no error.
        let _ = self.readers.send(record);
    }

    /// Takes what the kernel has reported.
    pub fn take(&mut self, ring: &mut RingBuf<MapData>, gate: &Gate) {
        for _ in 0..AT_ONCE {
            let Some(event) = next(ring) else {
                return;
            };
            if let Some(record) = Record::of_kernel(&event, gate, &self.users) {
                self.say(record);
            }
        }
    }

    /// `lost`: how many events the kernel has left out since the gate came up.
    pub fn report_lost(&mut self, lost: u64) {
        let new = lost.saturating_sub(self.lost);
        self.lost = lost;
        if new != 0 {
            self.say(Record {
                lost: Some(new),
                ..Record::now("events.lost")
            });
        }
    }

    /// Hands a new reader what is kept, and what comes if it wants to follow.
    pub fn serve(&self, connection: Connection) {
        let latest = self.latest.iter().cloned().collect();
        tokio::spawn(socket::serve(connection, latest, self.readers.subscribe()));
    }
}

/// What the ring holds, for `events` where no service reads it.
pub fn drain(ring: &mut RingBuf<MapData>, gate: &Gate) -> Vec<Record> {
    let users = owned_users(gate);
    std::iter::from_fn(|| next(ring))
        .filter_map(|event| Record::of_kernel(&event, gate, &users))
        .collect()
}

/// The next report. One of another length than this build's is an event of no kind.
fn next(ring: &mut RingBuf<MapData>) -> Option<Event> {
    let item = ring.next()?;
    let bytes = item.get(..size_of::<Event>());
    Some(bytes.map_or_else(Event::zeroed, pod_read_unaligned))
}

fn owned_users(gate: &Gate) -> Vec<String> {
    gate.users().into_iter().map(ToOwned::to_owned).collect()
}

/// An event without its time, which the log has already.
struct Brief<'r>(&'r Record);

impl std::fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = self.0.to_string();
        f.write_str(line.split_once(' ').map_or(&*line, |(_, rest)| rest))
    }
}
