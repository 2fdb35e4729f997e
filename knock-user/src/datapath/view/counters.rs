//! What the program has counted.

use anyhow::{Context as _, Result};
use aya::maps::IterableMap as _;
use knock_common::{
    Reason,
    knock::{Outcome, authenticated, fwknop},
    report::class,
    verdict::Counter,
};

use crate::{
    datapath::{open::Datapath, tables::data},
    sys::bpf::batch,
};

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
        for (index, counter) in self.packet_counters()?.into_iter().enumerate() {
            let Counter { packets, bytes } = counter;
            let block = index / Reason::COUNT;
            let reason = Reason::ALL[index % Reason::COUNT];
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
        let counters = self.knock_counters()?;
        let mut rows = Vec::new();
        for (gate, _) in self.applied.gates() {
            for outcome in Outcome::ALL {
                let counter = counters.get(outcome.counter(gate) as usize);
                rows.push(KnockRow {
                    gate,
                    outcome,
                    count: *counter.context("a gate has no counters of knocks")?,
                });
            }
        }
        Ok(rows)
    }

    /// Returns what became of datagrams to ports for authenticated knocks, over all CPUs.
    pub fn authenticated(&self) -> Result<Vec<(authenticated::outcome::Outcome, u64)>> {
        let counted = |outcome: authenticated::outcome::Outcome| {
            let counts = self.authenticated.get(&u32::from(outcome as u8), 0)?;
            Ok((outcome, counts.iter().sum()))
        };
        authenticated::outcome::Outcome::ALL
            .into_iter()
            .map(counted)
            .collect()
    }

    /// Returns what has become of packets of fwknop's, by outcome.
    pub fn fwknop_counts(&self) -> Result<[u64; fwknop::Outcome::COUNT]> {
        let mut counts = self.fwknop_counted()?;
        let overrun = self.fwknop_overrun.get(&0, 0)?;
        counts[fwknop::Outcome::Overrun as usize] += overrun.iter().sum::<u64>();
        Ok(counts)
    }

    /// Returns the part of it that the service has counted.
    pub fn fwknop_counted(&self) -> Result<[u64; fwknop::Outcome::COUNT]> {
        let mut counts = [0; fwknop::Outcome::COUNT];
        for (index, count) in (0..).zip(&mut counts) {
            *count = self.fwknop_count.get(&index, 0)?;
        }
        Ok(counts)
    }

    /// Writes down what the service has counted.
    pub fn set_fwknop_count(&mut self, outcome: fwknop::Outcome, count: u64) -> Result<()> {
        Ok(self.fwknop_count.set(outcome as u32, count, 0)?)
    }

    /// Returns the packet counters over all CPUs, with what smaller tables held before. One system call for each would
    /// be 160,000 of them with 4,096 gates.
    fn packet_counters(&self) -> Result<Vec<Counter>> {
        let mut sums = vec![Counter::default(); self.packets.len() as usize];
        let mut add = |index: u32, counter: &Counter| {
            if let Some(sum) = sums.get_mut(index as usize) {
                *sum = added(*sum, *counter);
            }
        };
        batch::for_each(data(&self.earlier_packets), |index, counter| {
            add(*index, counter);
        })?;
        batch::for_each_cpu(self.packets.map(), |index, counters| {
            for counter in counters {
                add(*index, counter);
            }
        })?;
        Ok(sums)
    }

    /// Returns the knock counters, as above.
    fn knock_counters(&self) -> Result<Vec<u64>> {
        let mut sums = vec![0_u64; self.knocks.len() as usize];
        let mut add = |index: u32, count: u64| {
            if let Some(sum) = sums.get_mut(index as usize) {
                *sum = sum.wrapping_add(count);
            }
        };
        batch::for_each(data(&self.earlier_knocks), |index, count| {
            add(*index, *count);
        })?;
        batch::for_each_cpu(self.knocks.map(), |index, counts: &[u64]| {
            add(*index, counts.iter().sum());
        })?;
        Ok(sums)
    }

    /// Returns whether the tables of counters are large enough for this many gates.
    pub(in crate::datapath) fn counters_hold(&self, gates: usize) -> bool {
        self.packets.len() as usize >= (gates + 1) * Reason::COUNT
    }

    /// Returns a packet counter over all CPUs, with what smaller tables held before.
    pub(in crate::datapath) fn packet_counter(&self, index: u32) -> Result<Counter> {
        let mut sum = self.earlier_packets.get(&index, 0)?;
        for counter in self.packets.get(&index, 0)?.iter() {
            sum = added(sum, *counter);
        }
        Ok(sum)
    }

    /// Returns a knock counter over all CPUs, with what smaller tables held before.
    pub(in crate::datapath) fn knock_counter(&self, index: u32) -> Result<u64> {
        let earlier = self.earlier_knocks.get(&index, 0)?;
        Ok(earlier.wrapping_add(self.knocks.get(&index, 0)?.iter().sum()))
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

/// Adds two counters. An earlier count may be negative: what was counted at a gate that is gone has been moved away.
pub(in crate::datapath) const fn added(one: Counter, other: Counter) -> Counter {
    Counter {
        packets: one.packets.wrapping_add(other.packets),
        bytes: one.bytes.wrapping_add(other.bytes),
    }
}
