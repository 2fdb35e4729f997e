//! What the configuration in force says of grants of other hosts.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use ipnet::IpNet;
use knock_common::{grant::BY_HAND, knock::authenticated::key::KEY_USER};

use crate::{
    config::Gate,
    datapath::{
        Applied, Datapath, Who,
        keys::{Print, user_of},
        origin::Holder,
    },
    fleet::{
        record::{By, Refusal},
        state::{Moment, Policy},
    },
};

/// The configuration in force, and its keys.
pub struct Rules {
    applied: Applied,
    names: HashMap<u16, String>,
    slots: HashMap<String, Vec<u16>>,
    /// Of the keys that are not revoked, by their slots.
    prints: HashMap<u16, Print>,
    /// Which gates these keys open, by their slots.
    opened: HashSet<(u32, u32)>,
}

impl Rules {
    pub fn of(datapath: &Datapath) -> Result<Self> {
        let mut rules = Self {
            applied: datapath.applied.clone(),
            names: HashMap::new(),
            slots: HashMap::new(),
            prints: HashMap::new(),
            opened: HashSet::new(),
        };
        rules.read_keys(datapath)?;
        Ok(rules)
    }

    /// Reads again which keys there are and what they open. Returns whether that is something else than before.
    pub fn read_keys(&mut self, datapath: &Datapath) -> Result<bool> {
        if self.applied.config.knock.ports.is_empty() {
            return Ok(false);
        }
        let opened = datapath.opened_by_keys()?;
        let prints = datapath.key_prints()?.into_iter().collect();
        let is_other = self.opened != opened || self.prints != prints;
        self.opened = opened;
        self.prints = prints;
        self.names = datapath.key_slots()?.into_iter().collect();
        self.slots.clear();
        for (slot, name) in &self.names {
            self.slots.entry(name.clone()).or_default().push(*slot);
        }
        Ok(is_other)
    }

    /// Returns [`By::print`] of the key in a slot; `None`: it is revoked, or there is none.
    pub fn print_of(&self, slot: u16) -> Option<u64> {
        self.prints.get(&slot).map(|print| print.number)
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

    fn number(&self, gate: &Gate, id: u16, user: &str, by: By<'_>, now: Moment) -> Option<u32> {
        let slots = by.key.map_or(&[][..], |key| self.slots_of(key));
        if slots.is_empty() {
            // Who has a sequence here may have used a key there.
            return self.applied.ids.user(&gate.name, user);
        }
        // The key itself, and not another one of the same name: that one may have come in its place because it was stolen.
        let number = by.print?;
        let mut own = slots.iter().copied();
        let slot = own.find(|slot| {
            let print = self.prints.get(slot);
            // The tables keep a key that has expired: the kernel program looks at the clock, too.
            print.is_some_and(|print| print.number == number && !print.has_expired(now.wall))
        })?;
        let slot = u32::from(slot);
        let opens = self.opened.contains(&(slot, id.into()));
        opens.then_some(KEY_USER | slot)
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

    fn admits(&self, gate: u16, source: &IpNet, by: By<'_>, now: Moment) -> Result<u32, Refusal> {
        let rules = self.applied.gate(gate).ok_or(Refusal::Gate)?;
        let is_allowed = rules.sources.is_empty()
            || rules.sources.iter().any(|network| network.contains(source));
        let Some(user) = by.user else {
            // By hand, also for a whole network.
            return if is_allowed {
                Ok(BY_HAND)
            } else {
                Err(Refusal::Source)
            };
        };
        if by.key.is_some_and(|key| user_of(key) != user) {
            return Err(Refusal::User);
        }
        let number = self
            .number(rules, gate, user, by, now)
            .ok_or(Refusal::User)?;
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
    fn print(&self, number: u32) -> Option<u64> {
        let Holder { user, host: _ } = Holder::of(number);
        let slot = (user != BY_HAND && user & KEY_USER != 0).then_some(user & !KEY_USER)?;
        self.print_of(u16::try_from(slot).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        datapath::compile::{
            applied::{Applied, Circumstances},
            ids::Ids,
        },
    };

    const OLD: u64 = 1;
    const NEW: u64 = 2;
    /// When the old key expires, Unix ns.
    const EXPIRES: u64 = 5000;

    /// Of a host where alice has a sequence, and a key that was rotated: slot 1 has the new one, slot 0 the old one.
    fn rules(is_old_valid: bool) -> Rules {
        let text = "interfaces = [\"eth0\"]\n[knock]\nports = [\"4164/udp\"]\nkeys = \"/etc/keys\"\n[[gate]]\n\
                    name = \"ssh\"\nprotect = [\"22/tcp\"]\n[[gate.knock]]\nuser = \"alice\"\n\
                    sequence = [\"7001/tcp\", \"8002/tcp\"]\nwithin = \"5s\"\n";
        let (config, _) = Config::parse(text, "k.toml").expect("valid");
        let ids = Ids::assign(&config, None);
        let applied = Applied::new(config, ids, Circumstances::default());
        let gate = u32::from(applied.ids.gate("ssh").expect("it is there"));
        let name = "alice/laptop".to_owned();
        let print = |number, not_after| Print { number, not_after };
        let mut valid = vec![(1, print(NEW, 0))];
        valid.extend(is_old_valid.then_some((0, print(OLD, EXPIRES))));
        Rules {
            applied,
            names: [(0, name.clone()), (1, name.clone())].into(),
            slots: [(name, vec![0, 1])].into(),
            opened: valid
                .iter()
                .map(|(slot, _)| (u32::from(*slot), gate))
                .collect(),
            prints: valid.into_iter().collect(),
        }
    }

    #[test]
    fn a_grant_of_a_key_is_admitted_by_the_key_itself() {
        let source = "192.0.2.7/32".parse().expect("a network");
        let admits = |rules: &Rules, key, print| {
            let by = By {
                user: Some("alice"),
                key,
                print,
            };
            let gate = rules.gate("ssh").expect("it is there");
            rules.admits(gate, &source, by, at(EXPIRES / 1000)).ok()
        };
        let laptop = Some("alice/laptop");
        let overlap = rules(true);
        assert_eq!(admits(&overlap, laptop, Some(NEW)), Some(KEY_USER | 1));
        assert_eq!(admits(&overlap, laptop, Some(OLD)), Some(KEY_USER));
        let over = rules(false);
        assert_eq!(admits(&over, laptop, Some(NEW)), Some(KEY_USER | 1));
        assert_eq!(admits(&over, laptop, Some(OLD)), None);
        assert_eq!(admits(&over, laptop, None), None);
        // Of a key that this host does not know, and by a sequence.
        let sequence = over.applied.ids.user("ssh", "alice");
        assert!(sequence.is_some());
        assert_eq!(admits(&over, Some("alice/phone"), Some(OLD)), sequence);
        assert_eq!(admits(&over, None, None), sequence);
        assert_eq!(admits(&over, Some("bob/phone"), Some(NEW)), None);
    }

    #[test]
    fn a_grant_of_a_key_that_has_expired_is_not_admitted() {
        let source = "192.0.2.7/32".parse().expect("a network");
        let rules = rules(true);
        let gate = rules.gate("ssh").expect("it is there");
        let admits = |print, wall| {
            let by = By {
                user: Some("alice"),
                key: Some("alice/laptop"),
                print: Some(print),
            };
            rules.admits(gate, &source, by, at(wall))
        };
        let last = EXPIRES / 1000;
        assert_eq!(admits(OLD, last), Ok(KEY_USER));
        assert_eq!(admits(OLD, last + 1), Err(Refusal::User));
        assert_eq!(admits(NEW, last + 1), Ok(KEY_USER | 1));
    }

    /// `wall`: µs.
    fn at(wall: u64) -> Moment {
        Moment {
            monotonic: 0,
            steady: 0,
            wall,
        }
    }
}
