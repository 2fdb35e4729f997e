//! The probes of a source, and the sequences that the last ones form.

use std::{iter, time::Duration};

use knock_common::knock::Outcome;
use knock_user::{
    config::{Config, Gate, Knock},
    values::Port,
};

/// A sequence, with its gate and user.
pub struct Sequence<'c> {
    /// Index among all users of all gates.
    pub user: u32,
    pub gate: u16,
    pub rules: &'c Gate,
    pub knock: &'c Knock,
}

/// Returns all sequences, in the order of the configuration.
pub fn sequences(config: &Config) -> impl Iterator<Item = Sequence<'_>> {
    let gates = iter::zip(0_u16.., &config.gates);
    let knocks =
        gates.flat_map(|(gate, rules)| rules.knocks.iter().map(move |knock| (gate, rules, knock)));
    iter::zip(0_u32.., knocks).map(|(user, (gate, rules, knock))| Sequence {
        user,
        gate,
        rules,
        knock,
    })
}

/// The probes of a source, oldest first.
#[derive(Debug, Default)]
pub struct Source {
    probes: Vec<Probe>,
    /// Whether the latest probe completed a sequence, in time or not: there is no run left to break.
    complete: bool,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    port: Port,
    source_port: u16,
    time: u64,
    /// Whether the same packet again is a duplicate: the run has neither been completed nor broken.
    remembered: bool,
}

/// The effect of a probe.
pub struct Heard<'c> {
    /// The gates at which it is counted, and how.
    pub outcomes: Vec<(u16, Outcome)>,
    /// The sequence that it completes, and the time from the first knock to this one, ns.
    pub completed: Option<(Sequence<'c>, u64)>,
}

impl Heard<'_> {
    /// The effect of a probe that completes no sequence.
    const fn only(outcomes: Vec<(u16, Outcome)>) -> Self {
        Self {
            outcomes,
            completed: None,
        }
    }
}

/// Knocks in the longest sequence that can be configured.
const LONGEST: usize = 12;

/// Returns the longest window of all sequences.
fn longest_within(config: &Config) -> Duration {
    let withins = sequences(config).map(|sequence| sequence.knock.within);
    withins.max().unwrap_or_default()
}

impl Source {
    /// Adds a probe. `is_knock`: a sequence contains its port. `is_own`: a socket of the host is connected to its
    /// sender.
    pub fn probe<'c>(
        &mut self,
        config: &'c Config,
        (port, source_port): (Port, u16),
        (is_knock, is_own): (bool, bool),
        now: u64,
    ) -> Heard<'c> {
        let before = self.run(config);
        // Steps of a run that may still open several gates are counted at the first of these.
        let gate_before = self
            .begun(config, before)
            .next()
            .map_or(0, |begun| begun.gate);
        if is_knock && self.is_duplicate(config, before, port, source_port, now) {
            return Heard::only(vec![(gate_before, Outcome::Duplicate)]);
        }
        // The first knock of a run counts even from a socket's peer: the host's sockets are looked up only if there is
        // a run.
        if is_own && before > 0 {
            return Heard::only(Vec::new());
        }
        let unfinished = self.unfinished(config);
        let repeated = self.probes.last().copied();
        let repeated = repeated.filter(|latest| before > 0 && latest.port == port);
        self.probes.push(Probe {
            port,
            source_port,
            time: now,
            remembered: is_knock,
        });
        let after = self.run(config);
        let keeps = after == before + 1 || repeated.is_some() && after >= unfinished;
        if let Some(latest) = repeated
            && !keeps
            && Duration::from_nanos(now - latest.time) <= longest_within(config)
        {
            // Nothing changes, except that a run that begins with this port begins now.
            self.probes.pop();
            let latest = self.probes.last_mut().expect("the one that was repeated");
            latest.time = now;
            return Heard::only(vec![(gate_before, Outcome::Duplicate)]);
        }
        let was_complete = self.complete;
        let completed = sequences(config).find(|sequence| self.ends_with(&sequence.knock.sequence));
        self.complete = completed.is_some();
        // Probes before the run are forgotten; after a completed run, all of them.
        let kept = if self.complete || after == 0 {
            0
        } else if keeps {
            LONGEST
        } else {
            after
        };
        let forgotten = self.probes.len().saturating_sub(kept);
        for probe in &mut self.probes[..forgotten] {
            probe.remembered = false;
        }
        let mut outcomes = Vec::new();
        if !self.complete && !was_complete && before > 0 && !keeps {
            outcomes.push((gate_before, Outcome::Wrong));
        }
        if !self.complete && after > 0 {
            let gate = self
                .begun(config, after)
                .next()
                .map_or(0, |begun| begun.gate);
            outcomes.push((gate, Outcome::Step));
        }
        let took = |sequence: &Sequence<'_>| {
            let first = self.probes.len() - sequence.knock.sequence.len();
            now - self.probes[first].time
        };
        Heard {
            outcomes,
            completed: completed.map(|sequence| {
                let took = took(&sequence);
                (sequence, took)
            }),
        }
    }

    /// Returns the times of the latest probes, as many as the longest sequence has.
    pub fn latest(&self) -> impl Iterator<Item = u64> {
        self.probes
            .iter()
            .rev()
            .take(LONGEST)
            .map(|probe| probe.time)
    }

    /// Returns the largest number of last probes that begin a sequence.
    fn run(&self, config: &Config) -> usize {
        self.longest(config, 0)
    }

    /// Returns the largest number of last probes that begin a sequence and do not complete it.
    fn unfinished(&self, config: &Config) -> usize {
        self.longest(config, 1)
    }

    /// Returns the largest number of last probes that begin a sequence of which at least `missing` knocks are left.
    fn longest(&self, config: &Config, missing: usize) -> usize {
        let begun = sequences(config).filter_map(|sequence| {
            let knocks = &sequence.knock.sequence;
            (1..=knocks.len() - missing)
                .rev()
                .find(|&length| self.ends_with(&knocks[..length]))
        });
        begun.max().unwrap_or(0)
    }

    fn ends_with(&self, knocks: &[Port]) -> bool {
        let Some(first) = self.probes.len().checked_sub(knocks.len()) else {
            return false;
        };
        iter::zip(&self.probes[first..], knocks).all(|(probe, port)| probe.port == *port)
    }

    /// Returns the sequences that the last `run` probes begin.
    fn begun<'c>(&self, config: &'c Config, run: usize) -> impl Iterator<Item = Sequence<'c>> {
        let run: Vec<Port> = self.probes[self.probes.len() - run..]
            .iter()
            .map(|probe| probe.port)
            .collect();
        sequences(config).filter(move |sequence| sequence.knock.sequence.starts_with(&run))
    }

    /// Returns whether a probe repeats a packet of the present run that is not older than the longest `within` for
    /// which it could still count.
    fn is_duplicate(
        &self,
        config: &Config,
        run: usize,
        port: Port,
        source_port: u16,
        now: u64,
    ) -> bool {
        let within = self
            .begun(config, run)
            .map(|sequence| sequence.knock.within);
        let within = within.max().unwrap_or_default();
        self.probes.iter().any(|probe| {
            probe.remembered
                && probe.port == port
                && probe.source_port == source_port
                && Duration::from_nanos(now - probe.time) <= within
        })
    }
}
