//! Counters, which never go back.

use anyhow::Result;
use knock_common::{Reason, knock::Outcome};

use crate::datapath::open::Datapath;

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
    pub(super) fn retire_counters(&mut self) -> Result<()> {
        let reasons = u32::try_from(Reason::COUNT)?;
        let blocks = self.packets.len() / reasons;
        for block in 1..blocks {
            let gate = u16::try_from(block - 1)?;
            if self.applied.gate(gate).is_some() {
                continue;
            }
            for reason in 0..reasons {
                let index = block * reasons + reason;
                let count = self.packet_counter(index)?;
                if count.packets == 0 {
                    continue;
                }
                let mut total = self.earlier_packets.get(&reason, 0)?;
                total.packets += count.packets;
                total.bytes += count.bytes;
                self.earlier_packets.set(reason, total, 0)?;
                self.clear_packet_counter(index)?;
            }
            for outcome in Outcome::ALL {
                let index = outcome.counter(gate);
                if self.knock_counter(index)? != 0 {
                    self.clear_knock_counter(index)?;
                }
            }
        }
        Ok(())
    }
}
