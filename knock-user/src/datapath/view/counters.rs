//! What the program has counted.

use anyhow::Result;
use knock_common::{Reason, knock::Outcome, report::class};

use crate::datapath::open::Datapath;

/// Packets of one reason, at one gate or none, over all CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketRow {
    pub reason: Reason,
    /// Id of the gate.
    pub gate: Option<u16>,
    pub packets: u64,
    pub bytes: u64,
}

/// Knocks of one outcome at one gate, over all CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnockRow {
    /// Id of the gate.
    pub gate: u16,
    pub outcome: Outcome,
    pub count: u64,
}

impl Datapath {
    /// Returns every packet counter that is not 0: of no gate first, then gate by gate.
    pub fn packets(&self) -> Result<Vec<PacketRow>> {
        let mut rows = Vec::new();
        for index in 0..self.packets.len() {
            let (packets, bytes) = self
                .packets
                .get(&index, 0)?
                .iter()
                .fold((0, 0), |(packets, bytes), counter| {
                    (packets + counter.packets, bytes + counter.bytes)
                });
            let block = index as usize / Reason::COUNT;
            let reason = Reason::ALL[index as usize % Reason::COUNT];
            if packets != 0 {
                rows.push(PacketRow {
                    reason,
                    gate: block
                        .checked_sub(1)
                        .and_then(|gate| u16::try_from(gate).ok()),
                    packets,
                    bytes,
                });
            }
        }
        Ok(rows)
    }

    /// Returns every knock counter, gate by gate in the order of the configuration.
    pub fn knocks(&self) -> Result<Vec<KnockRow>> {
        let mut rows = Vec::new();
        for (gate, _) in self.applied.gates() {
            for outcome in Outcome::ALL {
                let count = self.knocks.get(&outcome.counter(gate), 0)?.iter().sum();
                rows.push(KnockRow {
                    gate,
                    outcome,
                    count,
                });
            }
        }
        Ok(rows)
    }

    /// Returns the number of events that have been left out since it came up.
    pub fn lost(&self) -> Result<u64> {
        let mut lost = 0;
        for class in 0..class::COUNT {
            let budgets = self.budget.get(&class, 0)?;
            lost += budgets.iter().map(|budget| budget.lost).sum::<u64>();
        }
        Ok(lost)
    }
}
