//! Counters, which never go back.

use std::collections::BTreeMap;

use anyhow::Result;
use knock_common::{Reason, knock::Outcome, verdict::Counter};

use crate::{
    datapath::{open::Datapath, tables::data, view::counters::added},
    sys::bpf::batch,
};

/// Notes what was counted in `old` in the new instance's tables of earlier counts.
pub fn copy(old: &Datapath, new: &mut Datapath) -> Result<()> {
    for index in 0..old.packets.len().min(new.earlier_packets.len()) {
        new.earlier_packets
            .set(index, old.packet_counter(index)?, 0)?;
    }
    for index in 0..old.knocks.len().min(new.earlier_knocks.len()) {
        new.earlier_knocks
            .set(index, old.knock_counter(index)?, 0)?;
    }
    Ok(())
}

impl Datapath {
    /// Moves the packets of gates that are gone to those of no gate, and forgets their knocks, so that a gate that gets
    /// their id begins at 0. No packet is counted there any more.
    ///
    /// Each table of earlier counts is written by one system call, within which no process is killed. So that no other table has to be
    /// written with it, what was counted at such a gate stays, and its earlier count becomes the negative of that.
    pub(super) fn retire_counters(&mut self) -> Result<()> {
        let is_gone = |gate: &u16| self.applied.gate(*gate).is_none();
        let reasons = u32::try_from(Reason::COUNT)?;
        let gates = u16::try_from(self.packets.len() / reasons)?.saturating_sub(1);
        let mut retired = BTreeMap::new();
        let mut forgotten = Vec::new();
        for gate in (0..gates).filter(is_gone) {
            for reason in 0..reasons {
                let index = (u32::from(gate) + 1) * reasons + reason;
                let count = self.packet_counter(index)?;
                if count.packets == 0 {
                    continue;
                }
                let Counter { packets, bytes } = self.earlier_packets.get(&index, 0)?;
                let rest = Counter {
                    packets: packets.wrapping_sub(count.packets),
                    bytes: bytes.wrapping_sub(count.bytes),
                };
                retired.insert(index, rest);
                let total = match retired.get(&reason) {
                    Some(total) => *total,
                    None => self.earlier_packets.get(&reason, 0)?,
                };
                retired.insert(reason, added(total, count));
            }
            for outcome in Outcome::ALL {
                let index = outcome.counter(gate);
                let count = self.knock_counter(index)?;
                if count != 0 {
                    let earlier = self.earlier_knocks.get(&index, 0)?;
                    forgotten.push((index, earlier.wrapping_sub(count)));
                }
            }
        }
        batch::write(data(&self.earlier_packets), retired)?;
        batch::write(data(&self.earlier_knocks), forgotten)
    }
}
