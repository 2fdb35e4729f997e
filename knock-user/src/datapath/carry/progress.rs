//! Progress of the sources part-way through a sequence.
//!
//! A state of the automaton stands for the latest knocks of a source. In another automaton these knocks lead to another
//! state: the longest suffix of them that begins one of its sequences.

use std::collections::HashSet;

use anyhow::Result;
use bytemuck::Zeroable as _;
use knock_common::{
    Address as _,
    address::{V4, V6},
    cursor::Cursor,
    knock::{
        MAX_SEQUENCE,
        progress::{Progress, Step},
        ring::{self, Location},
    },
    time::TICK_SHIFT,
};

use crate::{
    datapath::{compile::automaton::Automaton, open::Datapath},
    sys::bpf::mapping::Mapping,
};

/// Copies the runs that can still be completed into a ring that no program uses yet. A knock that comes between this and the
/// replacement is lost, as it might have been on the network.
pub fn copy(old: &Datapath, new: &mut Datapath, now: u64) -> Result<()> {
    let (from, to) = (&old.contents()?.automaton, &new.contents()?.automaton);
    let sets = Mapping::of(&new.progress.sets)?;
    let places = Mapping::of(&new.progress.places)?;
    let mut known = HashSet::new();
    let mut ticket = ring::FIRST;
    for row in old.progress.map()?.rows() {
        let age = now.saturating_sub(row.last()) >> TICK_SHIFT;
        let is_open = from
            .states
            .get(row.state as usize)
            .is_some_and(|state| age <= u64::from(state.within));
        if row.state == 0 || !is_open || !known.insert((row.tag, row.address)) {
            continue;
        }
        let Some(row) = translated(&row, from, to) else {
            continue;
        };
        // More than the new ring holds.
        if ticket as usize - ring::FIRST as usize >= places.len() {
            break;
        }
        let location = if row.family() == V4::FAMILY {
            Location::of(&V4::unpadded(row.address), new.seed)
        } else {
            Location::of(&V6::unpadded(row.address), new.seed)
        };
        let set = location.set as usize % sets.len();
        let mut pairs = sets.get(set);
        let Some(free) = pairs.pairs.iter_mut().find(|pair| **pair == 0) else {
            continue;
        };
        *free = location.pair(ticket).0;
        sets.set(set, pairs);
        places.set(ticket as usize % places.len(), row);
        ticket += 1;
    }
    new.progress.cursor.set(0, Cursor::at(ticket), 0)?;
    Ok(())
}

/// Returns the progress with its state and symbols by another automaton's numbers; `None` where its knocks begin none of
/// the sequences there.
fn translated(row: &Progress, from: &Automaton, to: &Automaton) -> Option<Progress> {
    let ports = from.ports(row.state)?;
    let state = to.reach(&ports);
    let depth = to.states.get(state as usize)?.depth;
    if depth == 0 {
        return None;
    }
    let mut steps = [Step::zeroed(); MAX_SEQUENCE];
    // Oldest first, as if they had come one after the other.
    for (at, back) in (0..depth).rev().enumerate() {
        let port = ports.get(ports.len().checked_sub(usize::from(back) + 1)?)?;
        steps[at] = Step {
            symbol: to.symbol(*port)?,
            ..row.step(back)
        };
    }
    Some(Progress {
        state,
        head: depth - 1,
        counted: if row.is_complete() {
            0
        } else {
            row.counted.min(depth)
        },
        steps,
        ..*row
    })
}
