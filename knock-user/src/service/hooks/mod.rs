//! Runs the programs of hooks, beside everything else that the service does.

mod command;
mod output;
mod process;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use knock_common::event::Kind;
use tokio::{
    task::{self, JoinSet},
    time::timeout,
};

use self::process::{Failure, LIMITS, Limits};
use super::{
    names::{ALERT, HOOK_FAILED, QUEUE_FULL, STOPPED},
    record::Record,
};
use crate::config::{Config, Gate, Hook, Trigger};

/// Programs that run at once.
const AT_ONCE: usize = 8;
/// Runs that may wait for their turn. Those for alerts have half of the places: whoever causes alerts without end is to keep no
/// gate's end from running what it is to run.
const WAITING: usize = 4096;
/// How long the programs may keep the service from ending.
const GRACE: Duration = Duration::from_secs(5);

/// The hooks of a configuration, and their runs. Dropped with its runtime, ends every program that still runs.
pub struct Hooks {
    limits: Limits,
    /// By gate.
    configured: HashMap<String, Vec<Arc<Hook>>>,
    /// Those of every gate for an alert that concerns none, each command line once.
    of_any_gate: Vec<Arc<Hook>>,
    waiting: VecDeque<Run>,
    running: JoinSet<Option<Failure>>,
    /// By number.
    started: BTreeMap<u64, Run>,
    /// Numbers of the runs that go on, by task.
    numbers: HashMap<task::Id, u64>,
    /// Subjects of the runs that go on.
    busy: HashSet<Subject>,
    next: u64,
    /// Runs for which there was no room, by gate and program.
    left_out: BTreeMap<(Option<String>, String), u64>,
}

/// Runs with the same subject follow each other in the order of their events.
type Subject = (Option<String>, Option<String>);

/// A program to be run for an event.
struct Run {
    hook: Arc<Hook>,
    record: Record,
}

impl Run {
    fn subject(&self) -> Subject {
        (self.record.gate.clone(), self.record.source.clone())
    }

    fn program(&self) -> &str {
        self.hook.run.first().map_or("", String::as_str)
    }

    /// Returns the event that says that it has failed.
    fn failed(&self, reason: &str) -> Record {
        Record {
            gate: self.record.gate.clone(),
            user: self.record.user.clone(),
            source: self.record.source.clone(),
            reason: Some(reason.to_owned()),
            hook: Some(self.program().to_owned()),
            ..Record::now(HOOK_FAILED)
        }
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self::within(LIMITS)
    }
}

impl Hooks {
    /// None so far.
    fn within(limits: Limits) -> Self {
        Self {
            limits,
            configured: HashMap::new(),
            of_any_gate: Vec::new(),
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            started: BTreeMap::new(),
            numbers: HashMap::new(),
            busy: HashSet::new(),
            next: 0,
            left_out: BTreeMap::new(),
        }
    }

    /// Sets the hooks to those of a configuration. What waits or runs goes on.
    pub fn configure(&mut self, config: &Config) {
        let of = |gate: &Gate| {
            let hooks = gate.hooks.iter().cloned().map(Arc::new).collect();
            (gate.name.clone(), hooks)
        };
        self.configured = config.gates.iter().map(of).collect();
        let hooks = config.gates.iter().flat_map(|gate| &gate.hooks);
        let mut seen = HashSet::new();
        self.of_any_gate = hooks
            .filter(|hook| hook.on == Trigger::Alert && seen.insert(&hook.run))
            .cloned()
            .map(Arc::new)
            .collect();
    }

    /// Has the hooks run that wait for this event. Needs a runtime.
    pub fn notice(&mut self, record: &Record) {
        let Some(trigger) = trigger(&record.event) else {
            return;
        };
        let hooks = match &record.gate {
            Some(gate) => self.configured.get(gate),
            None => Some(&self.of_any_gate),
        };
        let Some(hooks) = hooks else {
            return;
        };
        for hook in hooks.iter().filter(|hook| hook.on == trigger) {
            let run = Run {
                hook: Arc::clone(hook),
                record: record.clone(),
            };
            let room = if trigger == Trigger::Alert {
                WAITING / 2
            } else {
                WAITING
            };
            if self.waiting.len() < room {
                self.waiting.push_back(run);
            } else {
                let program = run.program().to_owned();
                let left_out = self.left_out.entry((record.gate.clone(), program));
                *left_out.or_default() += 1;
            }
        }
        self.start();
    }

    /// Starts what waits, as far as there is room.
    fn start(&mut self) {
        while self.running.len() < AT_ONCE
            && let Some(place) = self.place_of_next()
            && let Some(run) = self.waiting.remove(place)
        {
            let (hook, record) = (Arc::clone(&run.hook), run.record.clone());
            let limits = self.limits;
            self.begin(run, async move {
                let (lines, failure) = process::run(&hook.run, &record, limits).await;
                let program = hook.run.first().map_or("", String::as_str);
                for line in lines {
                    tracing::info!("hook {program}: {line}");
                }
                failure
            });
        }
    }

    /// Begins a run, which `work` does.
    fn begin(&mut self, run: Run, work: impl Future<Output = Option<Failure>> + Send + 'static) {
        let number = self.next;
        self.next += 1;
        self.busy.insert(run.subject());
        self.started.insert(number, run);
        let task = self.running.spawn(work);
        self.numbers.insert(task.id(), number);
    }

    /// Returns the place of the first that has no run of its subject before it.
    fn place_of_next(&self) -> Option<usize> {
        let mut runs = self.waiting.iter();
        runs.position(|run| !self.busy.contains(&run.subject()))
    }

    /// Waits until a run has ended; returns the event that says why it failed.
    pub async fn ended(&mut self) -> Option<Record> {
        let Some(ended) = self.running.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (task, failure) = match ended {
            Ok((task, failure)) => (task, failure.map(|said| (said.reason(), said.to_string()))),
            // It has panicked, which has been printed.
            Err(error) => (error.id(), Some((STOPPED, "was given up".to_owned()))),
        };
        let number = self.numbers.remove(&task)?;
        let run = self.started.remove(&number)?;
        self.busy.remove(&run.subject());
        self.start();
        let (reason, text) = failure?;
        tracing::warn!("hook {} {text}", run.program());
        Some(run.failed(reason))
    }

    /// Returns an event for each program that could not be run since there were too many.
    pub fn left_out(&mut self) -> Vec<Record> {
        let left_out = std::mem::take(&mut self.left_out).into_iter();
        let event = |((gate, program), count)| Record {
            gate,
            reason: Some(QUEUE_FULL.to_owned()),
            lost: Some(count),
            hook: Some(program),
            ..Record::now(HOOK_FAILED)
        };
        left_out.map(event).collect()
    }

    /// Returns the ends of grants whose hooks have not ended yet, in order.
    pub fn unfinished_closings(&self) -> Vec<Record> {
        let runs = self.started.values().chain(&self.waiting);
        let closings = runs.filter(|run| run.hook.on == Trigger::Closed);
        // A gate may have several such hooks.
        let mut seen = HashSet::new();
        closings
            .filter(|run| seen.insert((run.record.time, run.subject())))
            .map(|run| run.record.clone())
            .collect()
    }

    /// Waits for what runs and waits, for a bounded time, and ends the rest. Returns the events of what has failed.
    pub async fn finish(&mut self) -> Vec<Record> {
        let mut failed = Vec::new();
        let all = async {
            while !self.started.is_empty() {
                failed.extend(self.ended().await);
            }
        };
        let is_in_time = timeout(GRACE, all).await.is_ok();
        if !is_in_time {
            let left = self.started.values().chain(&self.waiting);
            failed.extend(left.map(|run| run.failed(STOPPED)));
        }
        failed
    }
}

fn trigger(event: &str) -> Option<Trigger> {
    if event == Kind::Opened.name() {
        Some(Trigger::Opened)
    } else if event == Kind::Closed.name() {
        Some(Trigger::Closed)
    } else if event == ALERT {
        Some(Trigger::Alert)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
