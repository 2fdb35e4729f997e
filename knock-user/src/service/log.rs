//! Keeps, logs and distributes events.

use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use bytemuck::{Zeroable as _, pod_read_unaligned};
use jiff::Timestamp;
use knock_common::{
    event::{Event, Kind},
    grant::BY_HAND,
    knock::authenticated::key::KEY_USER,
    report::{Budget, class},
    rules::NO_GATE,
};
use tokio::{sync::broadcast, task::JoinSet, time::timeout};

use super::{
    alerts::Alerts,
    failures::HookFailures,
    fleet::{Counts, Member, Openings},
    hooks::Hooks,
    kept::Kept,
    names::{ALERT, EVENTS_LOST, HOOK_FAILED},
    record::{Record, monotonic, network_text},
    serving::Said,
    socket::{self, Connection},
    watch::Watch,
};
use crate::{
    config::Config,
    datapath::{Applied, Datapath, origin::Holder},
    sys::clock::monotonic_now,
};

/// Events by which a reader may fall behind before it misses some.
const BACKLOG: usize = 4096;
/// How long slow readers may keep the service from ending.
const PATIENCE: Duration = Duration::from_secs(1);
/// Events taken from the ring at a time, so that a flood keeps nothing else waiting.
const AT_ONCE: usize = 1024;

/// Events that tell of grants which may wait for the next look at these.
const MANY_CHANGES: usize = 4096;

/// By how much an event of the kernel's must be older than one of a thread's to come before it, ns: the kernel's clock is coarse,
/// and may be two of its ticks behind, of which each is 10 ms at the most.
const NEARLY: u64 = 25_000_000;

/// The latest events and their readers.
pub struct Log {
    latest: Kept,
    readers: broadcast::Sender<Record>,
    serving: JoinSet<()>,
    /// Events that the kernel had left out when they were last counted, and that this service had.
    lost: u64,
    lost_here: u64,
    /// Budgets of the events that the service finds by itself, by class.
    budgets: [Budget; class::COUNT as usize],
    alerts: Alerts,
    hooks: Hooks,
    hook_failures: HookFailures,
    openings: Openings,
    fleet: Counts,
    /// Events that tell of grants, for [`Log::changes`].
    changes: Vec<Record>,
    /// An event that was read and not added yet.
    next: Option<Event>,
}

/// Which events [`Log::take`] has added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    All,
    Some,
    /// Those before one of a gate or a user that is not known.
    UpToUnknown,
}

impl Log {
    /// With the alerts and hooks of a configuration. `member`: is to be told of gates that have opened.
    pub fn new(config: &Config, member: &Member) -> Self {
        let mut log = Self {
            latest: Kept::default(),
            readers: broadcast::Sender::new(BACKLOG),
            serving: JoinSet::new(),
            lost: 0,
            lost_here: 0,
            budgets: [Budget::zeroed(); class::COUNT as usize],
            alerts: Alerts::default(),
            hooks: Hooks::default(),
            hook_failures: HookFailures::default(),
            openings: member.openings(),
            fleet: member.counts(),
            changes: Vec::new(),
            next: None,
        };
        log.configure(config);
        log
    }

    /// Sets the alerts and hooks to those of a configuration; those that go on are not disturbed.
    pub fn configure(&mut self, config: &Config) {
        self.alerts.configure(config.alert);
        self.hooks.configure(config);
    }

    /// Adds one event, and does what the configuration says for it.
    pub fn say(&mut self, record: Record) {
        record.log();
        if record.event == HOOK_FAILED {
            self.hook_failures.add(&record);
        }
        self.hooks.notice(&record);
        let alert = self.alert_after(&record);
        self.latest.add(record.clone());
        // An error says that there is no reader.
        let _ = self.readers.send(record);
        if let Some(alert) = alert {
            self.say(alert);
        }
    }

    /// Returns the alert that an event causes: enough failed knocks of one source, or a captured knock of a key without one lately.
    fn alert_after(&mut self, record: &Record) -> Option<Record> {
        if record.event == Kind::Captured.name() {
            let is_due = self.alerts.capture(record.key.as_deref(), monotonic_now());
            return is_due.then(|| Record {
                user: record.user.clone(),
                key: record.key.clone(),
                source: record.source.clone(),
                reason: record.reason.clone(),
                ..Record::now(ALERT)
            });
        }
        if record.event != Kind::Failed.name() {
            return None;
        }
        let source = record.source.as_ref()?.parse().ok()?;
        let failing = self.alerts.failure(source, monotonic_now())?;
        Some(Record {
            gate: record.gate.clone(),
            source: Some(network_text(failing.subject)),
            failures: Some(failing.failures),
            ..Record::now(ALERT)
        })
    }

    /// Waits until a hook has ended; returns the event that says why it failed.
    pub async fn hook_ended(&mut self) -> Option<Record> {
        self.hooks.ended().await
    }

    /// Returns the counts of hooks that have failed, which go on.
    pub fn hook_failures(&self) -> HookFailures {
        self.hook_failures.clone()
    }

    /// Returns the ends of grants whose hooks have not ended yet.
    pub fn unfinished_closings(&self) -> Vec<Record> {
        self.hooks.unfinished_closings()
    }

    /// Runs the hooks for events that an earlier service has added.
    pub fn run_again(&mut self, records: &[Record]) {
        for record in records {
            self.hooks.notice(record);
        }
    }

    /// Adds an event of a [`class`] of which there may be any number at once. Where there are too many in a second, counts
    /// it as lost; its hooks run all the same.
    pub fn say_within(&mut self, class: u32, record: Record) {
        let second = monotonic_now() / 1_000_000_000;
        let budget = &mut self.budgets[class as usize];
        if budget.wants(class, second) {
            budget.count(true);
            self.say(record);
        } else {
            self.hooks.notice(&record);
        }
    }

    /// Adds an event that a thread of the service tells of.
    pub fn hear(&mut self, (class, record): Said, applied: &Applied) {
        if record.event == Kind::Opened.name() && record.origin.is_none() {
            self.openings.look();
        }
        let record = record.of_whole_grant(applied);
        self.note(&record);
        match class {
            Some(class) => self.say_within(class, record),
            None => self.say(record),
        }
    }

    /// Returns what the kernel and threads have told of grants since the last call, in their order.
    pub fn changes(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.changes)
    }

    /// Returns whether there are so many of these that they are not to be left to the next look.
    pub const fn has_many_changes(&self) -> bool {
        self.changes.len() >= MANY_CHANGES
    }

    fn note(&mut self, record: &Record) {
        let tells = [Kind::Opened, Kind::Closed].map(Kind::name);
        if tells.contains(&record.event.as_str()) {
            self.changes.push(record.clone());
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

    /// Adds the events that the kernel has reported. `watch`: what was known before. `is_current`: this is the configuration in force. Otherwise it stops at the first
    /// event of a gate or a user that this configuration does not have, which is kept for the next time. `before`: those alone that
    /// are older than what a thread has told of at that time.
    pub fn take(
        &mut self,
        ring: &mut RingBuf<MapData>,
        datapath: &Datapath,
        watch: &Watch,
        is_current: bool,
        before: Option<Timestamp>,
    ) -> Taken {
        let before = before.map_or(u64::MAX, monotonic);
        for _ in 0..AT_ONCE {
            let Some(event) = self.next.take().or_else(|| next(ring)) else {
                return Taken::All;
            };
            if event.time.saturating_add(NEARLY) > before {
                self.next = Some(event);
                return Taken::All;
            }
            if !is_current && !is_known(&event, &datapath.applied) {
                self.next = Some(event);
                return Taken::UpToUnknown;
            }
            self.openings.note(&event);
            if let Some(mut record) = Record::of_kernel(&event, datapath) {
                if !watch.knows_used(&record, &datapath.applied) {
                    record = record.of_whole_grant(&datapath.applied);
                }
                self.note(&record);
                self.say(record);
            }
        }
        Taken::Some
    }

    /// Takes events that the kernel has left out for reported: an earlier service has done that. `lost`: as in
    /// [`Log::report_lost`].
    pub fn goes_on_from(&mut self, lost: u64) {
        self.lost = lost;
    }

    /// Returns how many events that the kernel has left out have been reported, since it came up.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Adds an event where more have been lost. `lost`: events that the kernel has left out since it came up.
    pub fn report_lost(&mut self, lost: u64) {
        let here = self.budgets.iter().map(|budget| budget.lost).sum::<u64>();
        let new = lost.saturating_sub(self.lost) + here.saturating_sub(self.lost_here);
        (self.lost, self.lost_here) = (lost, here);
        if new != 0 {
            self.say(Record {
                lost: Some(new),
                ..Record::now(EVENTS_LOST)
            });
        }
        for failed in self.hooks.left_out() {
            self.say(failed);
        }
    }

    /// Sends a new reader the latest events, and those to come if it wants to follow.
    pub fn serve(&mut self, connection: Connection) {
        while self.serving.try_join_next().is_some() {}
        let latest = self.latest.in_order();
        let reader = socket::serve(
            connection,
            latest,
            self.readers.subscribe(),
            self.fleet.clone(),
        );
        self.serving.spawn(reader);
    }

    /// Waits until the hooks have ended and the readers have the last events, for a bounded time.
    pub async fn finish(&mut self) {
        for failed in self.hooks.finish().await {
            self.say(failed);
        }
        // The readers end when nobody can send to them any more.
        self.readers = broadcast::Sender::new(1);
        let all = async { while self.serving.join_next().await.is_some() {} };
        let _ = timeout(PATIENCE, all).await;
    }
}

/// Returns the events in the ring, for `events` where no service reads it.
pub fn drain(ring: &mut RingBuf<MapData>, datapath: &Datapath) -> Vec<Record> {
    std::iter::from_fn(|| next(ring))
        .filter_map(|event| Record::of_kernel(&event, datapath))
        .map(|record| record.of_whole_grant(&datapath.applied))
        .collect()
}

/// Returns whether an event's gate and user have names. Those of keys and of other hosts do not come from the configuration.
fn is_known(event: &Event, applied: &Applied) -> bool {
    let Holder { user, host } = Holder::of(event.user);
    let is_by_sequence = host == 0 && user != BY_HAND && user & KEY_USER == 0;
    (event.gate == NO_GATE || applied.gate_at(event.gate, event.time).is_some())
        && (!is_by_sequence || applied.user_name_at(user, event.time).is_some())
}

/// Returns the next report. One that is shorter than this build's becomes an event of no kind.
fn next(ring: &mut RingBuf<MapData>) -> Option<Event> {
    let item = ring.next()?;
    let bytes = item.get(..size_of::<Event>());
    Some(bytes.map_or_else(Event::zeroed, pod_read_unaligned))
}
