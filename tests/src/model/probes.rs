//! What a source has probed, and which sequences its last probes are.

use std::{iter, time::Duration};

use knock_common::knock::Outcome;
use knock_user::config::{Config, Gate, Knock, Port};

/// A sequence with its place in the configuration.
pub struct Sequence<'c> {
    /// Index among all users of all gates.
    pub user: u32,
    pub gate: u16,
    pub rules: &'c Gate,
    pub knock: &'c Knock,
}

/// All sequences, in the order of the configuration.
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

/// What a source has probed, oldest first.
#[derive(Debug, Default)]
pub struct Source {
    probes: Vec<Probe>,
    /// The latest probe completed a sequence, in time or not: no run is left to break.
    complete: bool,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    port: Port,
    source_port: u16,
    time: u64,
    /// A packet like it is a duplicate: its run has neither completed nor been broken.
    remembered: bool,
}

/// What a probe has come to.
pub struct Heard<'c> {
    /// Counted at these gates.
    pub outcomes: Vec<(u16, Outcome)>,
    /// The sequence that is complete now, and the ns from its first knock to the last.
    pub completed: Option<(Sequence<'c>, u64)>,
}

impl Heard<'_> {
    /// No sequence is complete.
    const fn only(outcomes: Vec<(u16, Outcome)>) -> Self {
        Self {
            outcomes,
            completed: None,
        }
    }
}

/// Knocks of the longest sequence that can be configured.
const LONGEST: usize = 12;

/// Past this, nothing can be completed any more that has its latest knock from now.
fn longest_within(config: &Config) -> Duration {
    let withins = sequences(config).map(|sequence| sequence.knock.within);
    withins.max().unwrap_or_default()
}

impl Source {
    /// A probe, which `is_knock` where some sequence has its port, and `is_own` where a socket of the host's is
    /// connected to its sender.
    pub fn probe<'c>(
        &mut self,
        config: &'c Config,
        (port, source_port): (Port, u16),
        (is_knock, is_own): (bool, bool),
        now: u64,
    ) -> Heard<'c> {
        let before = self.run(config);
        // Steps of a run that may still lead to several gates are counted at the first of them.
        let gate_before = self
            .begun(config, before)
            .next()
            .map_or(0, |begun| begun.gate);
        if is_knock && self.is_duplicate(config, before, port, source_port, now) {
            return Heard::only(vec![(gate_before, Outcome::Duplicate)]);
        }
        // The first knock of a run is taken as it comes: only where there is a run is the host asked for its
        // sockets.
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
            // All is as it was, but what begins with this port begins now.
            self.probes.pop();
            let latest = self.probes.last_mut().expect("the one that was repeated");
            latest.time = now;
            return Heard::only(vec![(gate_before, Outcome::Duplicate)]);
        }
        let was_complete = self.complete;
        let completed = sequences(config).find(|sequence| self.ends_with(&sequence.knock.sequence));
        self.complete = completed.is_some();
        // Forgotten is what the run has left behind; all of it where it has reached its end.
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

    /// Times of the latest probes, as many as a sequence may have.
    pub fn latest(&self) -> impl Iterator<Item = u64> {
        self.probes
            .iter()
            .rev()
            .take(LONGEST)
            .map(|probe| probe.time)
    }

    /// How many of the last probes begin a sequence, at most.
    fn run(&self, config: &Config) -> usize {
        self.longest(config, 0)
    }

    /// How many of the last probes begin a sequence that they do not complete, at most.
    fn unfinished(&self, config: &Config) -> usize {
        self.longest(config, 1)
    }

    /// How many of the last probes begin a sequence of which at least `missing` knocks are left, at most.
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

    /// The sequences that the last `run` probes begin.
    fn begun<'c>(&self, config: &'c Config, run: usize) -> impl Iterator<Item = Sequence<'c>> {
        let run: Vec<Port> = self.probes[self.probes.len() - run..]
            .iter()
            .map(|probe| probe.port)
            .collect();
        sequences(config).filter(move |sequence| sequence.knock.sequence.starts_with(&run))
    }

    /// A packet of a knock of the present run, not older than the longest `within` that could still count it.
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
