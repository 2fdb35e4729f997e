//! A set of keys to the rows of the tables: a value, made without a kernel.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, anyhow, bail};
use jiff::Timestamp;
use knock_common::knock::authenticated::{
    key::{HostSecret, KeyGate, NAME, state},
    sha256::Midstates,
};
use sha2::{Digest as _, Sha256};

use crate::{
    datapath::compile::applied::Applied,
    keys::{HostKey, KeyName, KeySet, KeyState},
};

/// The rows of the tables of keys.
#[derive(Debug, Clone)]
pub struct KeyRows {
    /// By slot.
    pub keys: BTreeMap<u32, KeyRow>,
    /// The id of each gate that a key opens.
    pub gates: HashMap<KeyGate, u32>,
    pub secrets: [HostSecret; HostSecret::COUNT],
}

/// A key.
#[derive(Debug, Clone)]
pub struct KeyRow {
    pub name: [u8; NAME],
    pub secret: Midstates,
    /// Unix ns; 0: for good.
    pub not_after: u64,
    /// See [`state`].
    pub state: u32,
    pub bound: bool,
    /// Unix ns.
    pub created: u64,
}

impl KeyRows {
    /// Compiles the keys for a configuration. Fails where a key has a slot that the tables do not have, or a gate has the
    /// same short name as another.
    pub fn compile(set: &KeySet, applied: &Applied) -> Result<Self> {
        let (rows, unfit) = Self::of_fitting(set, applied);
        unfit.into_iter().next().map_or(Ok(rows), Err)
    }

    /// Compiles those keys that fit a configuration, and returns why the others do not.
    pub fn of_fitting(set: &KeySet, applied: &Applied) -> (Self, Vec<anyhow::Error>) {
        let slots = applied.config.limits.keys;
        let mut rows = Self {
            keys: BTreeMap::new(),
            gates: HashMap::new(),
            secrets: secrets(set),
        };
        let mut unfit = Vec::new();
        for key in &set.keys {
            let slot = u32::from(key.slot);
            if slot >= slots {
                unfit.push(beyond_limit(&key.name, slot, slots));
                continue;
            }
            rows.keys.insert(slot, KeyRow::of(key));
            if let Err(error) = rows.open(slot, &key.name, &key.gates, applied) {
                unfit.push(error);
            }
        }
        (rows, unfit)
    }

    /// Adds the gates that the key in a slot opens: `own`, those of its file, then those that name it. Fails where two have
    /// the same short name.
    pub(super) fn open(
        &mut self,
        slot: u32,
        key: &KeyName,
        own: &[String],
        applied: &Applied,
    ) -> Result<()> {
        for (place, (name, id)) in opened(key, own, applied).into_iter().enumerate() {
            let gate = short(name);
            let taken = self.gates.insert(KeyGate { slot, gate }, id);
            if taken.is_some_and(|taken| taken != id) {
                bail!(
                    "a knock cannot tell the gate \"{name}\" from another one of the key {key}: give it another name"
                );
            }
            if place == 0 {
                self.gates.insert(KeyGate { slot, gate: 0 }, id);
            }
        }
        Ok(())
    }
}

/// Returns the error about a key whose slot the tables do not have.
pub fn beyond_limit(key: &KeyName, slot: u32, slots: u32) -> anyhow::Error {
    anyhow!(
        "the key {key} has the slot {slot}, but `keys` in [limits] is {slots}: set it to {} or more",
        slot + 1
    )
}

impl KeyRow {
    fn of(key: &HostKey) -> Self {
        let mut name = [0; NAME];
        let text = key.name.to_string();
        // A name is shorter than that; see `KeyName`.
        for (place, byte) in name.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        Self {
            name,
            secret: Midstates::of(key.secret.bytes()),
            not_after: key.expires.map_or(0, nanoseconds),
            state: match key.state {
                KeyState::Valid => state::VALID,
                KeyState::Revoked { .. } => state::REVOKED,
            },
            bound: key.bound,
            created: nanoseconds(key.created),
        }
    }
}

/// Returns the gates that a key opens, with their ids: its `own`, those of its file, then those that name it.
fn opened<'a>(key: &KeyName, own: &'a [String], applied: &'a Applied) -> Vec<(&'a str, u32)> {
    let mut all: Vec<(&str, u32)> = Vec::new();
    let own = own.iter().map(String::as_str);
    let naming = applied.config.gates.iter();
    let naming = naming.filter(|gate| gate.keys.contains(key));
    for name in own.chain(naming.map(|gate| gate.name.as_str())) {
        if let Some(id) = applied.ids.gate(name)
            && all.iter().all(|(_, known)| *known != u32::from(id))
        {
            all.push((name, id.into()));
        }
    }
    all
}

/// Returns a gate's name as a knock has it.
fn short(name: &str) -> u32 {
    let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

fn secrets(set: &KeySet) -> [HostSecret; HostSecret::COUNT] {
    let of = |bytes: &[u8; 16], not_after| HostSecret {
        words: bytemuck::must_cast::<_, [u64; 2]>(*bytes).map(u64::from_le),
        not_after,
    };
    let none = HostSecret {
        words: [0; 2],
        not_after: 0,
    };
    let Some(host) = &set.host else {
        return [none; 2];
    };
    let previous = host.previous.as_ref();
    [
        of(host.secret.bytes(), u64::MAX),
        previous.map_or(none, |(secret, until)| {
            of(secret.bytes(), nanoseconds(*until))
        }),
    ]
}

/// Unix ns, within what the kernel's clock can show.
fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(if time < Timestamp::UNIX_EPOCH {
        1
    } else {
        u64::MAX
    })
}
