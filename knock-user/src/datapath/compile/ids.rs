//! The numbers by which kernel tables refer to gates and users.
//!
//! A number belongs to a name, not to a place in the file: where a configuration replaces another, the gates and users
//! that both have keep their ids, and so their grants and sessions.

#![expect(
    clippy::cast_possible_truncation,
    reason = "ids of gates are taken from below NO_GATE, which has 16 bits"
)]

use std::collections::{BTreeMap, BTreeSet};

use knock_common::rules::NO_GATE;
use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, Gate},
    datapath::origin::MOST_USERS,
};

/// The id of every gate and user of a configuration, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    gates: BTreeMap<String, GateIds>,
    /// Absent from what earlier builds have pinned.
    #[serde(default)]
    since: Since,
}

/// When ids were given to the names that have them, ns of `CLOCK_MONOTONIC`: an event may be read when other names have the ids that
/// it has. Those that are absent have been theirs since the instance came up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Since {
    gates: BTreeMap<u16, u64>,
    users: BTreeMap<u32, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct GateIds {
    id: u16,
    /// Users are unique within a gate; the same name at another gate is another user.
    users: BTreeMap<String, u32>,
}

impl Ids {
    /// Numbers the gates and users of `config`. A name that `previous` has keeps its id; other names are numbered in the
    /// order of the file, from 0 on, by ids that `previous` does not use. With `previous`: the time now, ns of `CLOCK_MONOTONIC`.
    pub fn assign(config: &Config, previous: Option<(&Self, u64)>) -> Self {
        let none = Self::default();
        let now = previous.map(|(_, now)| now);
        let before = previous.map_or(&none, |(before, _)| before);
        let previous = &before.gates;
        let mut free_gates = Free::new(
            previous.values().map(|gate| gate.id.into()),
            u32::from(NO_GATE) - 1,
        );
        let mut free_users = Free::new(
            previous
                .values()
                .flat_map(|gate| gate.users.values().copied()),
            MOST_USERS - 1,
        );
        let known_gate = |gate: &Gate| previous.get(&gate.name);
        let known_user = |gate: &Gate, user: &str| known_gate(gate)?.users.get(user).copied();
        for gate in &config.gates {
            free_gates
                .taken
                .extend(known_gate(gate).map(|known| u32::from(known.id)));
            let users = gate.users();
            free_users
                .taken
                .extend(users.filter_map(|user| known_user(gate, user)));
        }
        let mut gates = BTreeMap::new();
        let mut since = Since::default();
        for gate in &config.gates {
            let id = known_gate(gate).map_or_else(|| free_gates.take() as u16, |known| known.id);
            let begun = match known_gate(gate) {
                Some(_) => before.since.gates.get(&id).copied(),
                None => now,
            };
            since.gates.extend(begun.map(|begun| (id, begun)));
            let mut users = BTreeMap::new();
            for user in gate.users() {
                // One person may have several ways to open a gate.
                if !users.contains_key(user) {
                    let known = known_user(gate, user);
                    let id = known.unwrap_or_else(|| free_users.take());
                    let begun = match known {
                        Some(_) => before.since.users.get(&id).copied(),
                        None => now,
                    };
                    since.users.extend(begun.map(|begun| (id, begun)));
                    users.insert(user.to_owned(), id);
                }
            }
            gates.insert(gate.name.clone(), GateIds { id, users });
        }
        Self { gates, since }
    }

    /// Returns since when the gate that has this id has had it, ns of `CLOCK_MONOTONIC`.
    pub fn gate_since(&self, id: u16) -> u64 {
        self.since.gates.get(&id).copied().unwrap_or_default()
    }

    /// Returns since when the user who has this id has had it, ns of `CLOCK_MONOTONIC`.
    pub fn user_since(&self, id: u32) -> u64 {
        self.since.users.get(&id).copied().unwrap_or_default()
    }

    /// Returns the id of a gate.
    pub fn gate(&self, name: &str) -> Option<u16> {
        self.gates.get(name).map(|gate| gate.id)
    }

    /// Returns the id of a user of a gate.
    pub fn user(&self, gate: &str, user: &str) -> Option<u32> {
        self.gates.get(gate)?.users.get(user).copied()
    }

    /// Returns the largest id of a gate plus one: the number of entries of a table that is indexed by gates.
    pub fn gates_end(&self) -> usize {
        let ids = self.gates.values().map(|gate| usize::from(gate.id) + 1);
        ids.max().unwrap_or(0)
    }

    /// Returns the largest id of a user plus one.
    pub fn users_end(&self) -> usize {
        let ids = self.gates.values().flat_map(|gate| gate.users.values());
        ids.map(|id| *id as usize + 1).max().unwrap_or(0)
    }
}

/// Ids to be given to new names.
struct Free {
    /// Of the previous configuration's names, and so in grants and sessions.
    previous: BTreeSet<u32>,
    /// Of names of this configuration.
    taken: BTreeSet<u32>,
    next: u32,
    last: u32,
}

impl Free {
    fn new(previous: impl Iterator<Item = u32>, last: u32) -> Self {
        Self {
            previous: previous.collect(),
            taken: BTreeSet::new(),
            next: 0,
            last,
        }
    }

    /// Returns the lowest id that the previous configuration did not use; if there is none, the lowest that this one
    /// does not use.
    fn take(&mut self) -> u32 {
        while self.previous.contains(&self.next) {
            self.next += 1;
        }
        let id = if self.next <= self.last {
            self.next += 1;
            self.next - 1
        } else {
            let mut all = 0..=self.last;
            all.find(|id| !self.taken.contains(id)).unwrap_or(self.last)
        };
        self.taken.insert(id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration with these gates, each with these users.
    fn config(gates: &[(&str, &[&str])]) -> Config {
        let mut text = String::new();
        let mut ports = 1000_u16..;
        let mut port = || ports.next().expect("few are needed");
        for (name, users) in gates {
            let gate = format!("[[gate]]\nname = '{name}'\nprotect = ['{}/tcp']\n", port());
            text.push_str(&gate);
            for user in *users {
                let sequence = format!("['{}/udp', '{}/udp']", port(), port());
                let knock = format!("[[gate.knock]]\nuser = '{user}'\nsequence = {sequence}\n");
                text.push_str(&knock);
            }
        }
        Config::parse(&text, "ids").expect("valid").0
    }

    #[test]
    fn a_new_instance_numbers_them_in_order() {
        let ids = Ids::assign(
            &config(&[("ssh", &["bob", "alice"]), ("mail", &["alice"])]),
            None,
        );
        assert_eq!(ids.gate("ssh"), Some(0));
        assert_eq!(ids.gate("mail"), Some(1));
        assert_eq!(ids.user("ssh", "bob"), Some(0));
        assert_eq!(ids.user("ssh", "alice"), Some(1));
        assert_eq!(ids.user("mail", "alice"), Some(2));
        assert_eq!(ids.user("mail", "bob"), None);
        assert_eq!((ids.gates_end(), ids.users_end()), (2, 3));
    }

    #[test]
    fn names_keep_their_ids_when_the_file_is_reordered() {
        let before = Ids::assign(
            &config(&[("ssh", &["bob", "alice"]), ("mail", &["alice"])]),
            None,
        );
        let after = Ids::assign(
            &config(&[("mail", &["alice"]), ("ssh", &["alice", "bob"])]),
            Some((&before, 7)),
        );
        assert_eq!(after, before);
    }

    #[test]
    fn what_is_added_takes_ids_that_nothing_had() {
        let before = Ids::assign(
            &config(&[("ssh", &["alice", "bob"]), ("mail", &["alice"])]),
            None,
        );
        // `ssh` goes, and `dns` comes in its place; so does a user.
        let after = Ids::assign(
            &config(&[("dns", &["alice"]), ("mail", &["carol", "alice"])]),
            Some((&before, 7)),
        );
        assert_eq!(after.gate("mail"), before.gate("mail"));
        assert_eq!(after.user("mail", "alice"), before.user("mail", "alice"));
        assert_eq!(after.gate("dns"), Some(2));
        assert_eq!(after.user("dns", "alice"), Some(3));
        assert_eq!(after.user("mail", "carol"), Some(4));
        assert_eq!(after.gate("ssh"), None);
        assert_eq!((after.gates_end(), after.users_end()), (3, 5));
    }

    #[test]
    fn a_renamed_gate_is_another_with_other_users() {
        let before = Ids::assign(&config(&[("ssh", &["alice"])]), None);
        let after = Ids::assign(&config(&[("shell", &["alice"])]), Some((&before, 7)));
        assert_eq!(after.gate("shell"), Some(1));
        assert_eq!(after.user("shell", "alice"), Some(1));
    }

    #[test]
    fn the_last_ids_are_followed_by_freed_ones() {
        let mut free = Free::new([0, 2].into_iter(), 3);
        free.taken.insert(2);
        let taken: Vec<u32> = (0..3).map(|_| free.take()).collect();
        assert_eq!(taken, [1, 3, 0]);
    }

    #[test]
    fn freed_ids_are_used_again_once_nothing_had_them() {
        let first = Ids::assign(&config(&[("a", &["u"])]), None);
        let second = Ids::assign(&config(&[("b", &["u"])]), Some((&first, 7)));
        let third = Ids::assign(&config(&[("c", &["u"])]), Some((&second, 9)));
        assert_eq!((second.gate("b"), third.gate("c")), (Some(1), Some(0)));
        assert_eq!(third.user("c", "u"), Some(0));
    }

    #[test]
    fn since_when_a_name_has_its_id_is_known() {
        let first = Ids::assign(&config(&[("a", &["u"]), ("b", &["u"])]), None);
        let second = Ids::assign(
            &config(&[("b", &["u", "v"]), ("c", &["u"])]),
            Some((&first, 7)),
        );
        let third = Ids::assign(&config(&[("b", &["v"]), ("c", &["u"])]), Some((&second, 9)));
        let json = serde_json::to_string(&third).expect("it has a form");
        assert_eq!(
            serde_json::from_str::<Ids>(&json).expect("it was written"),
            third
        );
        let of_gate = |ids: &Ids, gate| ids.gate(gate).map(|id| ids.gate_since(id));
        let of_user = |ids: &Ids, gate, user| ids.user(gate, user).map(|id| ids.user_since(id));
        for ids in [&second, &third] {
            assert_eq!((of_gate(ids, "b"), of_gate(ids, "c")), (Some(0), Some(7)));
            assert_eq!(of_user(ids, "b", "v"), Some(7));
            assert_eq!(of_user(ids, "c", "u"), Some(7));
        }
        assert_eq!(of_user(&second, "b", "u"), Some(0));
    }
}
