//! The latest events, and everyone who listens.

use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use bytemuck::{Zeroable as _, pod_read_unaligned};
use knock_common::{
    event::Event,
    report::{Budget, class},
};
use tokio::{sync::broadcast, task::JoinSet, time::timeout};

use super::{
    kept::Kept,
    record::Record,
    socket::{self, Connection},
};
use crate::{datapath::Datapath, sys::clock::monotonic_now};

/// How far a reader may be behind before it misses some.
const BACKLOG: usize = 4096;
/// How long slow readers may keep the service from ending.
const PATIENCE: Duration = Duration::from_secs(1);
/// Taken from the ring at a time, so that a flood keeps nothing else waiting.
const AT_ONCE: usize = 1024;

/// Keeps events, logs them and hands them on.
pub struct Log {
    latest: Kept,
    readers: broadcast::Sender<Record>,
    serving: JoinSet<()>,
    /// How many the kernel had lost when it was last asked.
    lost: u64,
    /// For events that the kernel doesn't report, by class.
    budgets: [Budget; class::COUNT as usize],
}

impl Log {
    pub fn new() -> Self {
        Self {
            latest: Kept::default(),
            readers: broadcast::Sender::new(BACKLOG),
            serving: JoinSet::new(),
            lost: 0,
            budgets: [Budget::zeroed(); class::COUNT as usize],
        }
    }

    /// Adds one event.
    pub fn say(&mut self, record: Record) {
        tracing::info!("{}", Brief(&record));
        self.latest.add(record.clone());
        // Nobody listening is no error.
        let _ = self.readers.send(record);
    }

    /// Adds one of a [`class`] of which there may be any number at once; where there are too many in a
    /// second, counts it as lost.
    pub fn say_within(&mut self, class: u32, record: Record) {
        let second = monotonic_now() / 1_000_000_000;
        let budget = &mut self.budgets[class as usize];
        if budget.wants(class, second) {
            budget.count(true);
            self.say(record);
        }
    }

    /// Adds an event for every gate.
    pub fn say_of_gates(&mut self, event: &str, datapath: &Datapath) {
        for gate in &datapath.config().gates {
            self.say(Record {
                gate: Some(gate.name.clone()),
                ..Record::now(event)
            });
        }
    }

    /// Takes what the kernel has reported, and says whether that was all.
    pub fn take(&mut self, ring: &mut RingBuf<MapData>, datapath: &Datapath) -> bool {
        for _ in 0..AT_ONCE {
            let Some(event) = next(ring) else {
                return true;
            };
            if let Some(record) = Record::of_kernel(&event, &datapath.applied) {
                self.say(record);
            }
        }
        false
    }

    /// `lost`: how many events the kernel has left out since the gate came up.
    pub fn report_lost(&mut self, lost: u64) {
        let lost = lost + self.budgets.iter().map(|budget| budget.lost).sum::<u64>();
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
    pub fn serve(&mut self, connection: Connection) {
        while self.serving.try_join_next().is_some() {}
        let latest = self.latest.in_order();
        let reader = socket::serve(connection, latest, self.readers.subscribe());
        self.serving.spawn(reader);
    }

    /// Lets the readers have the last events, unless they are slow to take them.
    pub async fn finish(self) {
        let Self {
            readers,
            mut serving,
            ..
        } = self;
        drop(readers);
        let all = async { while serving.join_next().await.is_some() {} };
        let _ = timeout(PATIENCE, all).await;
    }
}

/// What the ring holds, for `events` where no service reads it.
pub fn drain(ring: &mut RingBuf<MapData>, datapath: &Datapath) -> Vec<Record> {
    std::iter::from_fn(|| next(ring))
        .filter_map(|event| Record::of_kernel(&event, &datapath.applied))
        .collect()
}

/// The next report. One of another length than this build's is an event of no kind.
fn next(ring: &mut RingBuf<MapData>) -> Option<Event> {
    let item = ring.next()?;
    let bytes = item.get(..size_of::<Event>());
    Some(bytes.map_or_else(Event::zeroed, pod_read_unaligned))
}

/// An event without its time, which the log has already.
struct Brief<'r>(&'r Record);

impl std::fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = self.0.to_string();
        f.write_str(line.split_once(' ').map_or(&*line, |(_, rest)| rest))
    }
}
