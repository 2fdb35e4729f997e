//! The programs before and after ours, as commands print them.

use anyhow::Result;
use serde::Serialize;

use super::snapshot::Status;
use crate::datapath::{
    chain::{NextState, into::InSlot},
    open::Datapath,
};

/// A slot of another's array of programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CalledBy {
    /// Where the array is pinned.
    pub pin: String,
    pub slot: u32,
    /// The kernel's id of the program in it.
    pub program: Option<u32>,
}

/// The program that gets what passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Next {
    /// Where its owner has pinned it.
    pub pin: String,
    /// The kernel's id of the program that packets go on to; `None`: to the host, as nothing was there to go on to.
    pub program: Option<u32>,
    /// The id of the program that is pinned there now.
    pub pinned: Option<u32>,
}

impl Status {
    /// Returns the interfaces on which nothing follows, though the configuration names a program.
    pub fn unfollowed(&self) -> Vec<(&str, &Next)> {
        let rows = self.interfaces.iter().filter(|row| row.guarded);
        let next = rows.filter_map(|row| Some((row.name.as_str(), row.next.as_ref()?)));
        next.filter(|(_, next)| next.program.is_none()).collect()
    }
}

impl From<NextState> for Next {
    fn from(state: NextState) -> Self {
        let NextState {
            pin,
            program,
            pinned,
        } = state;
        Self {
            pin: pin.display().to_string(),
            program,
            pinned,
        }
    }
}

impl Datapath {
    /// Returns why packets may not come to ours, or to another program of the array that calls ours.
    pub(super) fn in_the_way(&self) -> Result<Vec<String>> {
        match &self.applied.circumstances.into {
            Some(into) => into.in_the_way(self.config()),
            None => Ok(Vec::new()),
        }
    }

    /// Returns why packets may not come to ours.
    pub fn before_ours(&self) -> Result<Vec<String>> {
        match &self.applied.circumstances.into {
            Some(into) => into.before_ours(self.config()),
            None => Ok(Vec::new()),
        }
    }

    /// Reads the slot that the program is in.
    pub(super) fn into(&self) -> Result<Option<CalledBy>> {
        let Some(into) = &self.applied.circumstances.into else {
            return Ok(None);
        };
        Ok(Some(CalledBy {
            pin: into.pin.display().to_string(),
            slot: into.slot,
            program: match into.look()? {
                InSlot::Program(program) => Some(program),
                InSlot::NoArray | InSlot::Nothing => None,
            },
        }))
    }
}
