//! The configuration in force, as it is kept beside the tables for the commands that read them.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::ids::Ids;
use crate::{
    config::{Config, Gate, Knock},
    datapath::chain::into::IntoSlot,
};

/// A configuration as it was applied, with the ids by which tables refer to its gates and users.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    pub config: Config,
    pub ids: Ids,
    pub circumstances: Circumstances,
    #[serde(skip)]
    by_id: ById,
}

/// How a configuration came to be in force, beside what the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circumstances {
    /// The interfaces were named on the command line, and not taken from the file.
    pub named_interfaces: bool,
    /// Identifies the build of the kernel program; see [`fingerprint`](crate::datapath::fingerprint).
    pub program: u64,
    /// It was applied for a trial.
    pub trial: Option<Trial>,
    /// The slot that the program is in, in place of links. Absent from what earlier builds have pinned.
    #[serde(default)]
    pub into: Option<IntoSlot>,
}

/// A trial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The configuration to return to when the trial ends, and whether its interfaces were named on the command line; `None`
    /// where nothing was up before.
    pub previous: Option<(Config, bool)>,
}

/// Where gates and users are in the configuration, by id.
#[derive(Debug, Clone, Default)]
struct ById {
    gates: Vec<Option<usize>>,
    /// Gate, and [`Gate::user`]'s place.
    users: Vec<Option<(usize, usize)>>,
}

impl Applied {
    pub fn new(config: Config, ids: Ids, circumstances: Circumstances) -> Self {
        let by_id = ById::of(&config, &ids);
        Self {
            config,
            ids,
            circumstances,
            by_id,
        }
    }

    /// Reads what [`Applied::to_json`] has written.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        let Self {
            config,
            ids,
            circumstances,
            by_id: _,
        } = serde_json::from_slice(text)?;
        Ok(Self::new(config, ids, circumstances))
    }

    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).context("cannot write down the configuration")
    }

    /// Returns a gate by its id.
    pub fn gate(&self, id: u16) -> Option<&Gate> {
        let index = (*self.by_id.gates.get(usize::from(id))?)?;
        self.config.gates.get(index)
    }

    /// Returns the name of a gate.
    pub fn gate_name(&self, id: u16) -> Option<&str> {
        self.gate(id).map(|gate| gate.name.as_str())
    }

    /// Returns the name of a user whose knocks are sequences. Numbers of keys are [`Datapath::who`]'s.
    ///
    /// [`Datapath::who`]: crate::datapath::Datapath::who
    pub fn user_name(&self, id: u32) -> Option<&str> {
        let (gate, place) = (*self.by_id.users.get(id as usize)?)?;
        self.config.gates.get(gate)?.user(place)
    }

    /// Returns the gate that had this id at a time, ns of `CLOCK_MONOTONIC`, if it still has it.
    pub fn gate_at(&self, id: u16, time: u64) -> Option<&Gate> {
        self.gate(id).filter(|_| self.ids.gate_since(id) <= time)
    }

    /// As [`Applied::user_name`], of the user who had this id at a time, ns of `CLOCK_MONOTONIC`, and still has it.
    pub fn user_name_at(&self, id: u32, time: u64) -> Option<&str> {
        self.user_name(id)
            .filter(|_| self.ids.user_since(id) <= time)
    }

    /// Returns every knock with the ids of its gate and its user, in the order of the file.
    pub fn knocks(&self) -> impl Iterator<Item = (u16, u32, &Knock)> {
        self.gates().flat_map(|(gate_id, gate)| {
            let user_id = |knock: &Knock| self.ids.user(&gate.name, &knock.user);
            let knocks = gate.knocks.iter();
            knocks.filter_map(move |knock| Some((gate_id, user_id(knock)?, knock)))
        })
    }

    /// Returns the gates with their ids, in the order of the file.
    pub fn gates(&self) -> impl Iterator<Item = (u16, &Gate)> {
        let gates = self.config.gates.iter();
        gates.filter_map(|gate| Some((self.ids.gate(&gate.name)?, gate)))
    }
}

impl ById {
    fn of(config: &Config, ids: &Ids) -> Self {
        let mut by_id = Self {
            gates: vec![None; ids.gates_end()],
            users: vec![None; ids.users_end()],
        };
        for (index, gate) in config.gates.iter().enumerate() {
            if let Some(id) = ids.gate(&gate.name) {
                by_id.gates[usize::from(id)] = Some(index);
            }
            for (place, user) in gate.users().enumerate() {
                if let Some(id) = ids.user(&gate.name, user) {
                    by_id.users[id as usize] = Some((index, place));
                }
            }
        }
        by_id
    }
}
