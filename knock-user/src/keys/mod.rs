//! Keys for authenticated knocks: what a host keeps of them, and what a person holds.
//!
//! A person has a root of 32 random bytes. Each host stores only what is derived from it for this host
//! ([`derive()`]), in a [`Folder`] of its own with one file for each name. [`Folder::load`] gives all of them as
//! a [`KeySet`], which the datapath turns into tables.
//!
//! Nothing here needs the kernel program: the client uses the same names, secrets and derivation.

#[cfg(feature = "host")]
mod file;
#[cfg(feature = "host")]
mod folder;
mod name;
mod person;
pub(crate) mod private;
mod secret;

use std::cmp::Reverse;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;

#[cfg(feature = "host")]
pub use self::folder::{Folder, Lock};
pub use self::{name::KeyName, person::PersonKey, secret::Secret};

/// What names the purpose of a derivation, so that the same root can serve another purpose.
const PURPOSE: &[u8] = b"knockgate knock 1";

/// How long the slot of a key that has ended is not given to another key: what it did shortly before its end is still
/// shown under its name.
const QUARANTINE: SignedDuration = SignedDuration::from_hours(24);

/// The random number that hosts have in common for which a person has one key.
pub type HostId = [u8; 16];

/// Returns the key that a person with this root has for the host with this id: HMAC-SHA-256(root, purpose ‖ id).
pub fn derive(root: &Secret<32>, host: &HostId) -> Secret<32> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(root.bytes()).expect("HMAC takes keys of any length");
    mac.update(PURPOSE);
    mac.update(host);
    Secret::new(mac.finalize().into_bytes().into())
}

/// Returns the newest time that a key is to have after this host's clock was set back, so that its packets count again: the
/// latest one that a packet may have now. `None` where it is not later than that: then nothing keeps the key from working, and
/// an earlier time would only let packets open twice.
pub fn newest_after_reset(
    newest: Timestamp,
    now: Timestamp,
    max_ahead: SignedDuration,
) -> Option<Timestamp> {
    let latest = now.saturating_add(max_ahead).unwrap_or(Timestamp::MAX);
    (newest > latest).then_some(latest)
}

/// Every key of a host, and what they have in common.
#[derive(Debug, Default)]
pub struct KeySet {
    /// Absent until the first key is made.
    pub host: Option<Host>,
    /// Ordered by slot; no two have the same.
    pub keys: Vec<HostKey>,
}

/// What all authenticated knocks at a host are masked with.
#[derive(Debug, PartialEq, Eq)]
pub struct Host {
    pub id: HostId,
    pub secret: Secret<16>,
    /// The secret before the present one, and how long clients may still use it.
    pub previous: Option<(Secret<16>, Timestamp)>,
}

/// One key, as the host stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// Several keys may have one name: at most one of them is in use, the others are [replaced](Self::replaced).
    pub name: KeyName,
    pub slot: u16,
    pub state: KeyState,
    /// Derived from the person's root for this host.
    pub secret: Secret<32>,
    pub created: Timestamp,
    /// From then on it opens nothing.
    pub expires: Option<Timestamp>,
    /// It opens nothing for a source that its packets do not name.
    pub bound: bool,
    /// The gates that it may open, the first by default. Those whose `[[gate.knock]]` names it come in addition.
    pub gates: Vec<String>,
    /// A newer key has taken its name. Until this one expires, both work.
    pub replaced: bool,
}

/// Whether a key was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    Valid,
    Revoked { since: Timestamp },
}

impl HostKey {
    /// Returns since when it opens nothing any more; `None` while it does.
    pub fn ended(&self, now: Timestamp) -> Option<Timestamp> {
        let expired = self.expires.filter(|end| *end <= now);
        match self.state {
            KeyState::Valid => expired,
            KeyState::Revoked { since } => Some(expired.map_or(since, |end| end.min(since))),
        }
    }

    /// Ends it for good, whatever the clock will say, and with it what it has opened. Returns whether it was not revoked
    /// before; it may have expired.
    pub fn revoke(&mut self, since: Timestamp) -> bool {
        let is_valid = self.state == KeyState::Valid;
        if is_valid {
            self.state = KeyState::Revoked { since };
        }
        is_valid
    }
}

impl KeySet {
    /// Returns the key that has this name now, valid or not.
    pub fn get(&self, name: &KeyName) -> Option<&HostKey> {
        let mut keys = self.keys.iter();
        keys.find(|key| key.name == *name && !key.replaced)
    }

    /// Returns all keys that have or had this name.
    pub fn named<'k>(&'k self, name: &'k KeyName) -> impl Iterator<Item = &'k HostKey> {
        self.keys.iter().filter(move |key| key.name == *name)
    }

    /// Returns copies of all keys that have or had this name, the newest first.
    pub fn newest_first(&self, name: &KeyName) -> Vec<HostKey> {
        let mut keys: Vec<HostKey> = self.named(name).cloned().collect();
        keys.sort_by_key(|key| (key.replaced, Reverse(key.created)));
        keys
    }

    /// Puts a key among the others. Returns the one that had its slot.
    pub fn put(&mut self, key: HostKey) -> Option<HostKey> {
        let place = self.keys.partition_point(|other| other.slot < key.slot);
        match self.keys.get_mut(place) {
            Some(other) if other.slot == key.slot => Some(std::mem::replace(other, key)),
            _ => {
                self.keys.insert(place, key);
                None
            }
        }
    }

    /// Returns a slot below `slots` for a new key: the lowest that no key has. Where all are taken, the one whose key ended
    /// first, a day ago at least; what is kept of that key must go.
    pub fn free_slot(&self, slots: u32, now: Timestamp) -> Option<u16> {
        let mut taken = self.keys.iter().map(|key| key.slot).peekable();
        let lowest = (0..=u16::MAX).find(|slot| taken.next_if_eq(slot).is_none());
        let below = |slot: &u16| u32::from(*slot) < slots;
        lowest.filter(below).or_else(|| {
            let ended = |key: &HostKey| {
                let end = key.ended(now)?;
                (end + QUARANTINE <= now && below(&key.slot)).then_some((end, key.slot))
            };
            self.keys
                .iter()
                .filter_map(ended)
                .min()
                .map(|(_, slot)| slot)
        })
    }
}

#[cfg(test)]
mod tests;
