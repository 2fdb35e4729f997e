//! What may keep packets from a program in another's array, though that is in its slot.

use std::{ops::Range, os::fd::OwnedFd};

use anyhow::{Context as _, Result};

use super::into::{IntoSlot, OpenArray};
use crate::{
    config::Config,
    datapath::install::{framing::index_of, xdp},
    sys::bpf::programs,
};

impl IntoSlot {
    /// Returns why packets may not come to ours, or to another program of the array. An array is often called slot by slot, and
    /// the first program that is there decides which packets come to those behind it.
    pub fn in_the_way(&self, config: &Config) -> Result<Vec<String>> {
        let mut found = self.before_ours(config)?;
        let Some(OpenArray { array, slots }) = self.open_to_look()? else {
            return Ok(found);
        };
        if !config.all_followed()
            && let Some(other) = self.first(&array, self.slot + 1..slots)?
        {
            found.push(format!(
                "{other}, behind {self}: if the slots are tried in turn, it gets nothing any more, since what knockgate \
                 passes goes to the host; pin that program and name it as `next`"
            ));
        }
        Ok(found)
    }

    /// Returns why packets may not come to ours. Which arrays a program uses is known with `CAP_SYS_ADMIN` alone. Nothing where
    /// the array is gone, or the slot holds another program, or an interface none: that is said with the interface's state.
    pub fn before_ours(&self, config: &Config) -> Result<Vec<String>> {
        let Some(OpenArray { array, .. }) = self.open_to_look()? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        if let Some(other) = self.first(&array, 0..self.slot)? {
            found.push(format!(
                "{other}, before {self}: if the slots are tried in turn, only what it hands on comes to knockgate, and all \
                 else is open"
            ));
        }
        let id = programs::array(&array)
            .with_context(|| self.cannot("look at"))?
            .map(|of| of.id);
        for name in &config.interfaces {
            let carried = index_of(name)
                .ok()
                .map(xdp::attached)
                .transpose()?
                .flatten();
            let Some(carried) = carried else { continue };
            let tables = xdp::tables(carried.program);
            if let (Some(id), Some(tables)) = (id, tables)
                && !tables.contains(&id)
            {
                found.push(format!(
                    "{name} carries {}, which does not itself use the array pinned at {}: unless a program that it calls \
                     does, no packet comes to knockgate there, and every port is open",
                    xdp::program_name(carried.program),
                    self.pin.display()
                ));
            }
        }
        Ok(found)
    }

    /// Describes the first program in these slots, if there is one.
    fn first(&self, array: &OwnedFd, mut slots: Range<u32>) -> Result<Option<String>> {
        let holds = |slot: u32| -> Result<Option<String>> {
            let at = Self {
                pin: self.pin.clone(),
                slot,
            };
            let program = programs::slot(array, slot).with_context(|| at.cannot("look at"))?;
            Ok(program.map(|program| format!("{at} holds {}", xdp::program_name(program))))
        };
        slots.find_map(|slot| holds(slot).transpose()).transpose()
    }
}
