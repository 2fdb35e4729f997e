//! What the configuration in force says of grants of other hosts.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{grant::BY_HAND, knock::authenticated::key::KEY_USER};

use crate::{
    config::Gate,
    datapath::{Applied, Datapath, Who, keys::user_of, origin::Holder},
    fleet::{
        record::Refusal,
        state::{Moment, Policy},
    },
};

/// The configuration in force, and its keys.
pub struct Rules {
    applied: Applied,
    names: HashMap<u16, String>,
    slots: HashMap<String, Vec<u16>>,
    /// Which gates the valid keys open, by their slots.
    opened: HashSet<(u32, u32)>,
}

impl Rules {
    pub fn of(datapath: &Datapath) -> Result<Self> {
        let mut rules = Self {
            applied: datapath.applied.clone(),
            names: HashMap::new(),
            slots: HashMap::new(),
            opened: HashSet::new(),
        };
        rules.read_keys(datapath)?;
        Ok(rules)
    }

    /// Reads again which keys there are and what they open.
    pub fn read_keys(&mut self, datapath: &Datapath) -> Result<()> {
        if self.applied.config.knock.ports.is_empty() {
            return Ok(());
        }
        self.opened = datapath.opened_by_keys()?;
        self.names = datapath.key_slots()?.into_iter().collect();
        self.slots.clear();
        for (slot, name) in &self.names {
            self.slots.entry(name.clone()).or_default().push(*slot);
        }
        Ok(())
    }

    /// Returns the slots of the keys with this name.
    pub fn slots_of(&self, key: &str) -> &[u16] {
        self.slots.get(key).map_or(&[], Vec::as_slice)
    }

    /// Returns the name of the key in a slot.
    pub fn key_in(&self, slot: u16) -> Option<&str> {
        self.names.get(&slot).map(String::as_str)
    }

    /// Returns the network that a knock from this address gets a grant for.
    pub fn granted(&self, gate: u16, source: std::net::IpAddr) -> Option<IpNet> {
        Some(self.applied.gate(gate)?.grant_to.network(source))
    }

    fn number(&self, gate: &Gate, id: u16, user: &str, key: Option<&str>) -> Option<u32> {
        let by_key = key.and_then(|key| {
            let slots = self.slots_of(key).iter().copied().map(u32::from);
            let mut opening = slots.filter(|slot| self.opened.contains(&(*slot, id.into())));
            opening.next().map(|slot| KEY_USER | slot)
        });
        // Who has a sequence here may have used a key there.
        by_key.or_else(|| self.applied.ids.user(&gate.name, user))
    }
}

impl Policy for Rules {
    fn gate(&self, name: &str) -> Option<u16> {
        self.applied.ids.gate(name)
    }

    fn gate_name(&self, gate: u16) -> Option<&str> {
        self.applied.gate_name(gate)
    }

    fn open_for(&self, gate: u16) -> u64 {
        let open_for = self.applied.gate(gate).map(|gate| gate.open_for);
        u64::try_from(open_for.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
    }

    fn latest(&self, now: Moment) -> u64 {
        let ahead = self.applied.config.knock.max_ahead.as_nanos();
        let ahead = u64::try_from(ahead).unwrap_or(u64::MAX);
        now.wall.saturating_mul(1000).saturating_add(ahead)
    }

    fn admits(
        &self,
        gate: u16,
        source: &IpNet,
        user: Option<&str>,
        key: Option<&str>,
    ) -> Result<u32, Refusal> {
        let rules = self.applied.gate(gate).ok_or(Refusal::Gate)?;
        let is_allowed = rules.sources.is_empty()
            || rules.sources.iter().any(|network| network.contains(source));
        let Some(user) = user else {
            // By hand, also for a whole network.
            return if is_allowed {
                Ok(BY_HAND)
            } else {
                Err(Refusal::Source)
            };
        };
        if key.is_some_and(|key| user_of(key) != user) {
            return Err(Refusal::User);
        }
        let number = self.number(rules, gate, user, key).ok_or(Refusal::User)?;
        // No knock here would open for more than this.
        let widest = rules.grant_to.network(source.addr()).prefix_len();
        let is_narrow = source.prefix_len() >= widest;
        if is_allowed && is_narrow {
            Ok(number)
        } else {
            Err(Refusal::Source)
        }
    }

    fn who(&self, number: u32) -> Who {
        let Holder { user, host: _ } = Holder::of(number);
        if user == BY_HAND {
            return Who::default();
        }
        if user & KEY_USER == 0 {
            return Who {
                user: self.applied.user_name(user).map(ToOwned::to_owned),
                ..Who::default()
            };
        }
        let slot = u16::try_from(user & !KEY_USER).ok();
        let key = slot
            .and_then(|slot| self.key_in(slot))
            .map(ToOwned::to_owned);
        Who {
            user: key.as_deref().map(user_of).map(ToOwned::to_owned),
            key,
            origin: None,
        }
    }
}
