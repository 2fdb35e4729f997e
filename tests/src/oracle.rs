//! Compares a system under test with the model: both judge the same stream, and the first difference is reported.

pub mod generate;
pub mod guided;
pub mod random;
pub mod shrink;

use std::{fmt, time::Duration};

use knock_common::knock::Outcome;
use knock_user::config::Config;

use crate::{
    model::{Model, Start},
    nanoseconds,
    stream::Step,
    system::{GrantSeen, SystemUnderTest, Tally, bytes},
};

/// How much is compared after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Verdict and counter after each packet, all tables from time to time: counters only grow, so a difference is
    /// still there at the next comparison.
    Quick,
    /// Everything after each step.
    Close,
}

/// Steps between two comparisons of the tables.
const EVERY: usize = 64;

/// The first difference between model and system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Index of the step after which it was found.
    pub at: usize,
    pub what: String,
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    Different(Difference),
    /// The machine interrupted the test in the middle of a packet, so the time at which it was judged is unknown.
    Interrupted,
}

/// Has a new model and an emptied system judge `steps`.
pub fn compare(
    config: &Config,
    system: &mut dyn SystemUnderTest,
    steps: &[Step],
    look: Look,
) -> Comparison {
    let mut pair = Pair::begin(config, system);
    for (at, step) in steps.iter().enumerate() {
        let seen = pair.step(step).and_then(|()| {
            if look == Look::Close || (at + 1) % EVERY == 0 || at + 1 == steps.len() {
                pair.tables()
            } else {
                Ok(())
            }
        });
        match seen {
            Ok(()) => {}
            Err(Failure::Interrupted) => return Comparison::Interrupted,
            Err(Failure::Differs(what)) => return Comparison::Different(Difference { at, what }),
        }
    }
    Comparison::Equal
}

/// As [`compare`], repeated while the machine interrupts it.
pub fn difference(
    config: &Config,
    system: &mut dyn SystemUnderTest,
    steps: &[Step],
    look: Look,
) -> Option<Difference> {
    const TRIES: usize = 20;
    for _ in 0..TRIES {
        match compare(config, system, steps, look) {
            Comparison::Equal => return None,
            Comparison::Different(difference) => return Some(difference),
            Comparison::Interrupted => {}
        }
    }
    panic!("this machine was too busy {TRIES} times in a row to judge packets by its clock");
}

/// Returns the effect of each step on the model, one line each.
pub fn told(config: &Config, system: &mut dyn SystemUnderTest, steps: &[Step]) -> Vec<String> {
    let mut pair = Pair::begin(config, system);
    steps
        .iter()
        .map(|step| {
            let before = pair.model.tally().clone();
            // The caller reports what the system does.
            let _ = pair.step(step);
            pair.model.tally().since(&before)
        })
        .collect()
}

/// A model and a system at the same point of a stream.
struct Pair<'a> {
    config: &'a Config,
    system: &'a mut dyn SystemUnderTest,
    model: Model<'a>,
    /// The moment until which no boundary is near.
    clear_until: u64,
}

enum Failure {
    Differs(String),
    Interrupted,
}

impl<'a> Pair<'a> {
    /// Returns a new model and an emptied system.
    fn begin(config: &'a Config, system: &'a mut dyn SystemUnderTest) -> Self {
        system.forget();
        let start = Start {
            begun: system.now(),
            slowed: system.slowed(),
        };
        let framing = system.framing();
        Self {
            config,
            system,
            model: Model::new(config, framing, start),
            clear_until: 0,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Connect { own, peer } => {
                self.model.connect(*own, *peer);
                self.system.connect(*own, *peer);
                Ok(())
            }
            Step::Packet(datagram) => {
                let frame = bytes(datagram, self.system);
                self.packet(&frame)
            }
            Step::Wait(time) => {
                self.system.wait(*time);
                self.clear_until = 0;
                Ok(())
            }
            Step::Allow {
                source,
                gate,
                length,
            } => {
                let Some(gate) = self.gate(gate) else {
                    return Ok(());
                };
                self.settle(&[]);
                let now = self.system.now();
                let until = now + nanoseconds(*length);
                let wanted = self.model.allow(*source, gate, until, now);
                let got = self.system.allow(*source, gate, *length);
                self.in_time(now)?;
                same("room for a grant by hand", &wanted, &got)
            }
            Step::Revoke { source, gate } => {
                if let Some(gate) = self.gate(gate) {
                    self.model.revoke(*source, gate);
                    self.system.revoke(*source, gate);
                }
                Ok(())
            }
        }
    }

    fn packet(&mut self, frame: &[u8]) -> Result<(), Failure> {
        if !self.system.takes(frame) {
            return Ok(());
        }
        self.settle(frame);
        let now = self.system.now();
        let verdict = self.model.packet(frame, now);
        let passed = self.system.judge(frame);
        self.in_time(now)?;
        if passed != verdict.reason.passes() {
            let word = |passes| if passes { "passes" } else { "is denied" };
            let counted = self.system.tally().since(&Tally::of(self.config));
            return Err(Failure::Differs(format!(
                "the packet {}; the model has {verdict}. Counted since the beginning: {counted}",
                word(passed)
            )));
        }
        let wanted = self.model.tally().packets[verdict.index()];
        let got = self.system.counted(verdict);
        same(&format!("packets and bytes of {verdict}"), &wanted, &got)
    }

    fn tables(&mut self) -> Result<(), Failure> {
        self.settle(&[]);
        let now = self.system.now();
        let (mut wanted, mut got) = (self.model.tally().clone(), self.system.tally());
        // If a run may still open several gates, no rule says at which of them it is counted.
        merge_unfinished(&mut wanted);
        merge_unfinished(&mut got);
        let nothing = Tally::of(self.config);
        if wanted != got {
            same("counters", &wanted.since(&nothing), &got.since(&nothing))?;
            same("bytes", &wanted.packets, &got.packets)?;
        }
        let grain = nanoseconds(self.system.grain());
        let (grants, found) = (self.model.grants(now), self.system.grants());
        self.in_time(now)?;
        let about = |(wanted, got): (&GrantSeen, &GrantSeen)| {
            wanted.until.abs_diff(got.until) <= grain
                && *wanted
                    == GrantSeen {
                        until: wanted.until,
                        ..*got
                    }
        };
        if grants.len() != found.len() || !grants.iter().zip(&found).all(about) {
            same("grants", &grants, &found)?;
        }
        let (flows, found) = (self.model.flows(now), self.system.flows());
        self.in_time(now)?;
        same("flows", &flows, &found)
    }

    /// Waits until no boundary is near, nor one of this packet.
    fn settle(&mut self, frame: &[u8]) {
        /// The nearest boundary that a packet can set: tests configure no shorter times.
        const NEXT: Duration = Duration::from_millis(500);
        let now = self.system.now();
        let mut own = self.model.clearance_of(frame, now);
        if own.is_none() && now < self.clear_until {
            return;
        }
        let grain = self.system.grain();
        loop {
            let now = self.system.now();
            let (mut behind, mut ahead) = self.model.clearance(now);
            if own.is_some() {
                own = self.model.clearance_of(frame, now);
            }
            if let Some(own) = own {
                behind = behind.min(own.0);
                ahead = ahead.min(own.1);
            }
            if behind >= grain && ahead >= 2 * grain {
                self.clear_until = now + nanoseconds(ahead.min(NEXT).saturating_sub(grain));
                return;
            }
            let past = if ahead < 2 * grain {
                ahead + grain
            } else {
                grain.saturating_sub(behind)
            };
            self.system.wait(past);
        }
    }

    fn in_time(&self, begun: u64) -> Result<(), Failure> {
        let took = self.system.now() - begun;
        if took < nanoseconds(self.system.grain()) / 2 {
            Ok(())
        } else {
            Err(Failure::Interrupted)
        }
    }

    fn gate(&self, name: &str) -> Option<u16> {
        let index = self
            .config
            .gates
            .iter()
            .position(|gate| gate.name == name)?;
        u16::try_from(index).ok()
    }
}

fn same<T: PartialEq + fmt::Debug>(what: &str, wanted: &T, got: &T) -> Result<(), Failure> {
    if wanted == got {
        Ok(())
    } else {
        Err(Failure::Differs(format!(
            "{what}: the model has {wanted:?}, the system {got:?}"
        )))
    }
}

/// Adds up, over all gates, the outcomes of runs that have opened none.
fn merge_unfinished(tally: &mut Tally) {
    const MERGED: [Outcome; 3] = [Outcome::Step, Outcome::Wrong, Outcome::Duplicate];
    for outcome in MERGED {
        let places = (outcome as usize..tally.knocks.len()).step_by(Outcome::ALL.len());
        let sum = places.clone().map(|place| tally.knocks[place]).sum();
        for place in places {
            tally.knocks[place] = 0;
        }
        tally.knocks[outcome as usize] = sum;
    }
}
