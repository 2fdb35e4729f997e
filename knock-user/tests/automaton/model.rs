//! The model: every probe of a source is kept, and the end of that list compared with the sequences.

use std::{collections::HashMap, time::Duration};

use knock_user::{
    config::{Config, Knock},
    values::Port,
};

/// The kernel program counts time in units of 2^20 ns; a window's end is as sharp as that.
const TICK: u64 = 1 << 20;

/// One probe of one source.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    pub source: u8,
    pub source_port: u16,
    pub port: Port,
    /// ns since the one before.
    pub after: u64,
}

/// Every source's probes, oldest first, without duplicates: time, source port, port.
#[derive(Default)]
pub struct Model {
    probes: HashMap<u8, Vec<(u64, u16, Port)>>,
    /// How many of a source's latest probes are remembered as knocks of its present run.
    remembered: HashMap<u8, usize>,
}

/// What the model says of a probe.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Duplicate,
    /// The sequence that it completes in time, as gate and user.
    Opens(Option<(usize, usize)>),
    /// So close to a window's end that either answer is right.
    Either,
}

impl Model {
    pub fn probe(&mut self, config: &Config, probe: Probe, now: u64) -> Said {
        let Probe {
            source,
            source_port,
            port,
            after: _,
        } = probe;
        let list = self.probes.entry(source).or_default();
        let remembered = self.remembered.entry(source).or_default();
        let run = &list[list.len() - *remembered..];
        let ports: Vec<Port> = list.iter().map(|probe| probe.2).collect();
        let depth = longest_beginning(config, &ports);
        let unfinished = longest_unfinished(config, &ports);
        let window = longest_window(config, &ports[ports.len() - depth..]);
        for &(time, known_port, known) in run {
            if (known_port, known) == (source_port, port) {
                let age = now - time;
                if age.abs_diff(window) <= 2 * TICK {
                    return Said::Either;
                }
                if age < window {
                    return Said::Duplicate;
                }
            }
        }
        // The port counted last, once more: it may not cost the run.
        let repeated = list.last().copied();
        let repeated = repeated.filter(|latest| depth > 0 && latest.2 == port);
        list.push((now, source_port, port));
        let ports: Vec<Port> = list.iter().map(|probe| probe.2).collect();
        let length = longest_beginning(config, &ports);
        let keeps = length == depth + 1 || repeated.is_some() && length >= unfinished;
        if let Some((time, first_port, _)) = repeated
            && !keeps
        {
            let (age, window) = (now - time, longest_window(config, &[]));
            if age.abs_diff(window) <= 2 * TICK {
                return Said::Either;
            }
            if age < window {
                list.pop();
                list.pop();
                // It is that knock's latest packet.
                list.push((now, first_port, port));
                return Said::Duplicate;
            }
        }
        let most = match length {
            0 => 0,
            _ if keeps => 12,
            _ => length,
        };
        *remembered = (*remembered + 1).min(most);
        for (gate, rules) in config.gates.iter().enumerate() {
            for (user, knock) in rules.knocks.iter().enumerate() {
                if ports.ends_with(&knock.sequence) {
                    // A completed run is forgotten, in time or not.
                    *remembered = 0;
                    let first = list[list.len() - knock.sequence.len()].0;
                    let window = nanoseconds(knock.within);
                    let took = now - first;
                    if took.abs_diff(window) <= 2 * TICK {
                        return Said::Either;
                    }
                    return Said::Opens((took < window).then_some((gate, user)));
                }
            }
        }
        Said::Opens(None)
    }
}

/// How many of the last probes begin some sequence, at most.
fn longest_beginning(config: &Config, ports: &[Port]) -> usize {
    (0..=ports.len().min(12))
        .rev()
        .find(|length| {
            let end = &ports[ports.len() - length..];
            sequences(config).any(|knock| knock.sequence.starts_with(end))
        })
        .unwrap_or(0)
}

/// How many of the last probes begin some sequence and do not complete it, at most.
fn longest_unfinished(config: &Config, ports: &[Port]) -> usize {
    (0..=ports.len().min(12))
        .rev()
        .find(|length| {
            let end = &ports[ports.len() - length..];
            sequences(config)
                .any(|knock| knock.sequence.len() > *length && knock.sequence.starts_with(end))
        })
        .unwrap_or(0)
}

fn longest_window(config: &Config, run: &[Port]) -> u64 {
    sequences(config)
        .filter(|knock| knock.sequence.starts_with(run))
        .map(|knock| nanoseconds(knock.within))
        .max()
        .unwrap_or(0)
}

pub fn sequences(config: &Config) -> impl Iterator<Item = &Knock> {
    config.gates.iter().flat_map(|gate| &gate.knocks)
}

pub fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap()
}
