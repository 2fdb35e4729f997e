//! The keys of the streams: what a host has, and what a sender seals with. Facts alone, which the model shares with the
//! systems that it is compared with.
//!
//! Their times count from the [`EPOCH`], at which the host's clock stands when a stream begins.

use std::time::Duration;

use jiff::Timestamp;
use knock_user::keys::{Host, HostKey, KeySet, KeyState, Secret};

use crate::nanoseconds;

/// The time on the host's clock when a stream begins, Unix ns.
pub const EPOCH: u64 = 1_900_000_000_000_000_000;

/// The host's secret, the one before it, and how long the earlier one is still valid.
pub const HOST: [u8; 16] = *b"the host's own..";
pub const PREVIOUS: [u8; 16] = *b"the one before..";
pub const PREVIOUS_FOR: Duration = Duration::from_secs(30);

/// Slots that a configuration of a stream has; the last has no key.
pub const SLOTS: u16 = 6;

/// A key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    pub slot: u16,
    pub secret: [u8; 32],
    pub bound: bool,
    pub revoked: bool,
    /// How long it is valid; `None`: for good.
    pub expires: Option<Duration>,
    /// The gates that its file names, of which a configuration may have some.
    pub gates: &'static [&'static str],
}

const ALICE: Key = Key {
    name: "alice",
    slot: 0,
    secret: *b"the key of alice for this host..",
    bound: false,
    revoked: false,
    expires: None,
    gates: &["a", "b", "c"],
};

/// All keys, by slot.
pub const KEYS: [Key; 5] = [
    ALICE,
    Key {
        name: "bob/phone",
        slot: 1,
        secret: *b"the key of bob, which is bound..",
        bound: true,
        gates: &["b", "a"],
        ..ALICE
    },
    Key {
        name: "carol",
        slot: 2,
        secret: *b"the key of carol, for a while...",
        expires: Some(Duration::from_secs(40)),
        gates: &["c", "a"],
        ..ALICE
    },
    Key {
        name: "dave",
        slot: 3,
        secret: *b"the key of dave, taken back.....",
        revoked: true,
        ..ALICE
    },
    Key {
        name: "erin",
        slot: 4,
        secret: *b"the key of erin, in gates' rows.",
        gates: &[],
        ..ALICE
    },
];

/// Returns the key with this name.
pub fn named(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Returns all keys as a host has them whose clock goes `slowed` times as fast as the test's.
pub fn key_set(slowed: u32) -> KeySet {
    let at = |after: Duration| {
        let unix = EPOCH + nanoseconds(after * slowed);
        Timestamp::from_nanosecond(unix.into()).expect("within jiff's range")
    };
    let keys = KEYS.iter().map(|key| HostKey {
        name: key.name.parse().expect("a name"),
        slot: key.slot,
        state: if key.revoked {
            KeyState::Revoked {
                since: at(Duration::ZERO),
            }
        } else {
            KeyState::Valid
        },
        secret: Secret::new(key.secret),
        created: at(Duration::ZERO),
        expires: key.expires.map(at),
        bound: key.bound,
        gates: key.gates.iter().map(|gate| (*gate).to_owned()).collect(),
        replaced: false,
    });
    KeySet {
        host: Some(Host {
            id: [0; 16],
            secret: Secret::new(HOST),
            previous: Some((Secret::new(PREVIOUS), at(PREVIOUS_FOR))),
        }),
        keys: keys.collect(),
    }
}
