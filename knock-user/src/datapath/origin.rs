//! Which host of a fleet has given a grant: a part of the number of who has it. The program copies that number, and
//! compares it with others; without this part where a user closes a gate.
//!
//! ```text
//! bit 31                 a key's slot, else a user's id (KEY_USER)
//! bits 17 to 30          the host; 0: this one
//! bits 0 to 16           slot or id
//! ```

use std::{collections::HashMap, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use knock_common::{
    grant::{BY_HAND, HOST, HOST_SHIFT},
    knock::authenticated::key::KEY_USER,
};

use super::PinRoot;
use crate::sys::state_directory;

const LOW: u32 = (1 << HOST_SHIFT) - 1;
/// Of another host, by hand. No key has this slot.
const REMOTE_BY_HAND: u32 = KEY_USER | LOW;
/// All ones are [`BY_HAND`].
const LAST: u32 = (HOST >> HOST_SHIFT) - 1;

/// Most ids of users that there can be.
pub const MOST_USERS: u32 = 1 << HOST_SHIFT;

/// A host that has no number of its own: there are too many.
const OTHER: &str = "another host";

/// The number of every host that has none of its own.
pub const SHARED: u32 = LAST;

/// Who has a grant, and the number of the host that has given it; 0: this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// As in [`Earned::user`](knock_common::grant::Earned::user).
    pub user: u32,
    pub host: u32,
}

impl Holder {
    pub fn of(number: u32) -> Self {
        if number == BY_HAND {
            return Self {
                user: BY_HAND,
                host: 0,
            };
        }
        let user = number & !HOST;
        Self {
            user: if user == REMOTE_BY_HAND {
                BY_HAND
            } else {
                user
            },
            host: (number & HOST) >> HOST_SHIFT,
        }
    }

    pub fn number(self) -> u32 {
        let user = if self.user == BY_HAND && self.host != 0 {
            REMOTE_BY_HAND
        } else {
            self.user
        };
        if self.host == 0 {
            user
        } else {
            user | self.host.min(LAST) << HOST_SHIFT
        }
    }

    /// Returns whether a grant with this number was earned by a knock at this host.
    pub fn is_local_knock(number: u32) -> bool {
        let Self { user, host } = Self::of(number);
        host == 0 && user != BY_HAND
    }
}

/// The hosts that have given grants to this one, in a file: the numbers outlive the service, as the grants do.
#[derive(Debug, Default)]
pub struct Origins {
    path: PathBuf,
    /// The first has the number 1.
    names: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Origins {
    /// Reads the file of the instance with these pins; none where there is none or it cannot be read as such.
    pub fn load(root: &PinRoot) -> Self {
        let pins = root.path().to_string_lossy();
        let name = pins.trim_matches('/').replace('/', "-");
        Self::at(state_directory::path().join(format!("origins-{name}.json")))
    }

    fn at(path: PathBuf) -> Self {
        let text = fs::read(&path).unwrap_or_default();
        let names: Vec<String> = serde_json::from_slice(&text).unwrap_or_default();
        let numbers = names.iter().cloned().zip(1..).collect();
        Self {
            path,
            names,
            numbers,
        }
    }

    /// Returns whether a host has this number.
    pub fn has(&self, host: u32) -> bool {
        host as usize <= self.names.len()
    }

    /// Returns the name of a host by its number; `None`: it is this one.
    pub fn name(&self, host: u32) -> Option<&str> {
        let place = host.checked_sub(1)? as usize;
        Some(self.names.get(place).map_or(OTHER, String::as_str))
    }

    /// Returns the number of a host. A new one is written down before it is in any grant.
    pub fn number(&mut self, name: &str) -> Result<u32> {
        if let Some(number) = self.numbers.get(name) {
            return Ok(*number);
        }
        let number = u32::try_from(self.names.len())? + 1;
        if number >= LAST {
            return Ok(LAST);
        }
        self.names.push(name.to_owned());
        if let Err(error) = state_directory::save(&self.path, &self.names) {
            self.names.pop();
            return Err(error).with_context(|| format!("cannot write {}", self.path.display()));
        }
        self.numbers.insert(name.to_owned(), number);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_who_and_where() {
        let key = KEY_USER | 0xfffe;
        for user in [0, MOST_USERS - 1, KEY_USER, key, BY_HAND] {
            for host in [0, 1, LAST] {
                let holder = Holder { user, host };
                assert_eq!(Holder::of(holder.number()), holder, "{holder:?}");
                let is_local = host == 0 && user != BY_HAND;
                assert_eq!(Holder::is_local_knock(holder.number()), is_local);
            }
            // Alone, the number is what it always was.
            assert_eq!(Holder { user, host: 0 }.number(), user);
        }
    }

    #[test]
    fn numbers_of_hosts_outlive_the_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/origins.json");
        let mut origins = Origins::at(path.clone());
        assert_eq!(origins.number("edge-1").expect("written"), 1);
        assert_eq!(origins.number("edge-2").expect("written"), 2);
        assert_eq!(origins.number("edge-1").expect("known"), 1);
        let mut again = Origins::at(path);
        assert_eq!(again.name(2), Some("edge-2"));
        assert_eq!((again.name(0), again.name(3)), (None, Some(OTHER)));
        assert_eq!(again.number("edge-2").expect("known"), 2);
    }

    #[test]
    fn hosts_beyond_the_last_number_share_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut origins = Origins::at(folder.path().join("origins.json"));
        let names = (1..LAST).map(|nth| format!("host-{nth}"));
        origins.names = names.collect();
        assert_eq!(origins.number("one-more").expect("shared"), LAST);
        assert_eq!(origins.name(LAST), Some(OTHER));
    }
}
