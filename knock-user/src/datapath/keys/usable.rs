//! The keys that are to come into force with a configuration, where what cannot be used of them keeps nothing else from it.

use std::{collections::HashMap, mem};

use anyhow::{Result, anyhow};
use knock_common::knock::authenticated::key::KeyGate;

use super::{
    apply::load,
    rows::{KeyRows, beyond_limit},
    tables::text,
};
use crate::{
    config::Config,
    datapath::{
        compile::applied::Applied,
        install::pins::{lock::Busy, root::PinRoot},
        open::Datapath,
    },
    keys::{KeyName, KeySet},
};

/// The keys that are to come into force with a configuration.
#[derive(Debug)]
pub enum Keys {
    /// All of these, or nothing comes into force.
    All(KeySet),
    /// Those of these that can be used. An error: the folder cannot be, so those that are in force stay.
    Usable(Result<KeySet>),
}

/// The rows of keys for a configuration.
#[derive(Debug)]
pub struct Compiled {
    pub rows: KeyRows,
    /// Why some keys, or all, cannot be used.
    pub unused: Option<anyhow::Error>,
}

impl Keys {
    /// Reads those of a configuration. Fails where they cannot be read, and `all` of them are needed.
    pub fn read(config: &Config, all: bool) -> Result<Self> {
        if all {
            load(config).map(Self::All)
        } else {
            Ok(Self::Usable(load(config)))
        }
    }

    /// Compiles them for a configuration. `present`: what is up. Fails where a key cannot be used, and all are needed, or
    /// where the keys in force cannot be read.
    pub fn compile(&self, applied: &Applied, present: Option<&Datapath>) -> Result<Compiled> {
        match (self, present) {
            (Self::All(set), _) => Ok(Compiled {
                rows: KeyRows::compile(set, applied)?,
                unused: None,
            }),
            (Self::Usable(Ok(set)), _) => {
                let (rows, unfit) = KeyRows::of_fitting(set, applied);
                Ok(Compiled {
                    rows,
                    unused: together(unfit),
                })
            }
            (Self::Usable(Err(error)), present) => {
                let folder = &applied.config.knock.keys;
                let (rows, mut unfit) = match present {
                    // Those of another folder are not what this configuration admits.
                    Some(present) if present.config().knock.keys == *folder => {
                        carried(present.keys()?.rows()?, &present.applied, applied)
                    }
                    _ => KeyRows::of_fitting(&KeySet::default(), applied),
                };
                let which = if rows.keys.is_empty() {
                    "no key opens anything"
                } else {
                    "the keys in force stay"
                };
                unfit.insert(
                    0,
                    anyhow!("{which}, since the folder of keys cannot be used: {error:#}"),
                );
                Ok(Compiled {
                    rows,
                    unused: together(unfit),
                })
            }
        }
    }
}

impl Datapath {
    /// Puts the keys of the configuration in force into force, as far as they can be used, without a command that has made
    /// any. Needs the lock. Returns why some cannot be used, or none.
    pub(in crate::datapath) fn apply_usable_keys(&mut self) -> Result<Option<anyhow::Error>> {
        let keys = Keys::read(self.config(), false)?;
        self.apply_compiled(keys.compile(&self.applied, Some(self))?)
    }

    /// Puts rows of keys into force that were compiled for this configuration. Returns why some keys are not among them.
    pub(in crate::datapath) fn apply_compiled(
        &mut self,
        compiled: Compiled,
    ) -> Result<Option<anyhow::Error>> {
        let Compiled { rows, unused } = compiled;
        self.apply_rows(&rows, &[])?;
        Ok(unused)
    }

    /// Puts the keys into force that could not be used before, for those who do not hold the lock. Returns whether all of
    /// them are in force now: not where another process is changing what is up, or has.
    ///
    /// # Errors
    /// Why some of them cannot be used. The others are in force.
    pub fn retry_keys(&mut self) -> Result<bool> {
        let root: PinRoot = self.root.clone();
        let _lock = match root.try_lock() {
            Err(error) if error.is::<Busy>() => return Ok(false),
            lock => lock?,
        };
        if !self.is_pinned()? || self.reopened()?.is_some() {
            return Ok(false);
        }
        self.apply_usable_keys()?.map_or(Ok(true), Err)
    }
}

/// Returns the rows that are in force under one configuration as they are under another one, and why some of them are not.
///
/// Which gates the files of keys name is not known any more: those that a key opens, and the first configuration does not let
/// it open.
fn carried(mut rows: KeyRows, before: &Applied, after: &Applied) -> (KeyRows, Vec<anyhow::Error>) {
    let mut opened: HashMap<u32, Vec<(KeyGate, u32)>> = HashMap::new();
    for (gate, id) in mem::take(&mut rows.gates) {
        opened.entry(gate.slot).or_default().push((gate, id));
    }
    let mut unfit = Vec::new();
    let keys = mem::take(&mut rows.keys);
    for (slot, row) in keys {
        let Ok(name) = text(&row.name).parse::<KeyName>() else {
            continue;
        };
        if slot >= after.config.limits.keys {
            unfit.push(beyond_limit(&name, slot, after.config.limits.keys));
            continue;
        }
        rows.keys.insert(slot, row);
        let mut own = opened.remove(&slot).unwrap_or_default();
        // The first gate is there twice: as such, before the others, and by its name.
        own.sort_by_key(|(gate, id)| (gate.gate != 0, *id));
        let own: Vec<String> = own
            .into_iter()
            .filter_map(|(_, id)| before.gate(u16::try_from(id).ok()?))
            .filter(|gate| !gate.keys.contains(&name))
            .map(|gate| gate.name.clone())
            .collect();
        if let Err(error) = rows.open(slot, &name, &own, after) {
            unfit.push(error);
        }
    }
    (rows, unfit)
}

/// Returns one error that says all of these.
fn together(errors: Vec<anyhow::Error>) -> Option<anyhow::Error> {
    errors
        .into_iter()
        .reduce(|all, error| anyhow!("{all:#}; {error:#}"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        config::Gate,
        datapath::compile::{applied::Circumstances, ids::Ids},
        keys::{HostKey, KeyState, Secret},
    };

    fn key(name: &str, slot: u16, gates: &[&str]) -> HostKey {
        HostKey {
            name: name.parse().expect("a name"),
            slot,
            state: KeyState::Valid,
            secret: Secret::new([7; 32]),
            created: Timestamp::UNIX_EPOCH,
            expires: None,
            bound: false,
            gates: gates.iter().map(|gate| (*gate).to_owned()).collect(),
            replaced: false,
        }
    }

    fn set() -> KeySet {
        KeySet {
            host: None,
            keys: vec![
                key("alice", 0, &["web", "ssh", "gone"]),
                key("bob", 1, &[]),
                key("carol", 9, &["ssh"]),
            ],
        }
    }

    /// A configuration with room for so many keys, and these gates, with the keys that each names.
    fn applied(slots: u32, gates: &[(&str, &[&str])], before: Option<&Applied>) -> Applied {
        let gates = gates.iter().map(|(name, keys)| Gate {
            name: (*name).to_owned(),
            keys: keys
                .iter()
                .map(|key| key.parse().expect("a name"))
                .collect(),
            ..Gate::default()
        });
        let mut config = Config {
            gates: gates.collect(),
            ..Config::default()
        };
        config.limits.keys = slots;
        let ids = Ids::assign(&config, before.map(|before| (&before.ids, 0)));
        Applied::new(config, ids, Circumstances::default())
    }

    fn texts(errors: &[anyhow::Error]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_key_that_does_not_fit_keeps_no_other_from_its_gates() {
        let applied = applied(9, &[("ssh", &["bob"]), ("web", &[])], None);
        let (rows, unfit) = KeyRows::of_fitting(&set(), &applied);
        assert_eq!(rows.keys.keys().copied().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(
            texts(&unfit),
            ["the key carol has the slot 9, but `keys` in [limits] is 9: set it to 10 or more"]
        );
        KeyRows::compile(&set(), &applied).expect_err("not all of them fit");
    }

    /// Whoever cannot read the files has what they say from the tables, as far as it does not follow from the configuration.
    #[test]
    fn keys_in_force_open_under_another_configuration_what_their_files_would_let_them() {
        let before = applied(
            10,
            &[
                ("ssh", &["bob"]),
                ("web", &[]),
                ("gone", &[]),
                ("mail", &["alice"]),
            ],
            None,
        );
        let after = applied(
            10,
            &[
                ("mail", &[]),
                ("web", &["bob"]),
                ("ssh", &[]),
                ("new", &["carol"]),
            ],
            Some(&before),
        );
        let rows = |applied: &Applied| KeyRows::compile(&set(), applied).expect("they fit");
        let (same, unfit) = carried(rows(&before), &before, &before);
        assert_eq!(same.gates, rows(&before).gates);
        assert!(unfit.is_empty(), "{unfit:?}");
        let (other, unfit) = carried(rows(&before), &before, &after);
        assert_eq!(other.gates, rows(&after).gates);
        assert!(unfit.is_empty(), "{unfit:?}");
        let fewer = applied(9, &[("ssh", &[])], Some(&before));
        let (fewer, unfit) = carried(rows(&before), &before, &fewer);
        assert_eq!(fewer.keys.keys().copied().collect::<Vec<_>>(), [0, 1]);
        assert!(fewer.gates.keys().all(|gate| gate.slot == 0), "{fewer:?}");
        assert_eq!(unfit.len(), 1, "{unfit:?}");
    }
}
