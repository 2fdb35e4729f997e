//! Sources part-way through a sequence.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use knock_common::time::TICK_SHIFT;

use super::address::padded_address;
use crate::{
    datapath::{compile::Contents, open::Datapath},
    sys::clock::monotonic_now,
};

/// A source that has begun to knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRow {
    pub source: IpAddr,
    pub step: u8,
    pub of: u8,
    /// Ids of the gates that its knocks may lead to.
    pub gates: Vec<u16>,
    /// Since its latest knock.
    pub age: Duration,
}

impl Datapath {
    /// Returns the sources with progress at some gate that they may knock at, the latest in front.
    pub fn sources(&self) -> Result<Vec<SourceRow>> {
        let now = monotonic_now();
        let contents = self.contents()?;
        let reach = reach(contents);
        let mut rows = Vec::new();
        for progress in self.progress.map()?.rows() {
            let Some(state) = contents.automaton.states.get(progress.state as usize) else {
                continue;
            };
            let age = now.saturating_sub(progress.last());
            // A run older than any of its sequences may take leads nowhere.
            let too_old = age >> TICK_SHIFT > u64::from(state.within);
            if progress.state == 0 || progress.is_complete() || too_old {
                continue;
            }
            let source = padded_address(progress.address, progress.family() == 4);
            let gates: Vec<u16> = reach[progress.state as usize]
                .iter()
                .copied()
                .filter(|gate| self.may_knock(source, *gate))
                .collect();
            if !gates.is_empty() {
                rows.push(SourceRow {
                    source,
                    step: state.depth,
                    of: state.of,
                    gates,
                    age: Duration::from_nanos(age),
                });
            }
        }
        rows.sort_by_key(|row| (row.age, row.source));
        Ok(rows)
    }

    fn may_knock(&self, source: IpAddr, gate: u16) -> bool {
        self.applied.gate(gate).is_some_and(|gate| {
            gate.sources.is_empty() || gate.sources.iter().any(|network| network.contains(&source))
        })
    }
}

/// Returns, for every state, the gates of the sequences that begin with it.
fn reach(contents: &Contents) -> Vec<Vec<u16>> {
    let automaton = &contents.automaton;
    let mut reach = vec![Vec::new(); automaton.states.len()];
    for (gate, _, knock) in contents.applied.knocks() {
        for state in automaton.path(&knock.sequence) {
            let gates: &mut Vec<u16> = &mut reach[state as usize];
            if gates.last() != Some(&gate) {
                gates.push(gate);
            }
        }
    }
    reach
}
