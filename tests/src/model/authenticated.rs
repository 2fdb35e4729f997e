//! Authenticated knocks: a list of what each key has had accepted, and what the next message of a key may ask for.

use std::{hash::Hasher as _, net::IpAddr, time::Duration};

use hmac::{Hmac, KeyInit as _, Mac as _};
use knock_common::knock::authenticated::outcome::Outcome;
use knock_user::config::Config;
use sha2::{Digest as _, Sha256};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::Start;
use crate::keyring::{self, EPOCH, Key};

/// The first 64 bytes of a datagram that is long enough.
pub type Message = [u8; 64];

/// What has been accepted.
#[derive(Debug, Default)]
pub struct Accepted {
    knocks: Vec<Knock>,
}

#[derive(Debug, Clone, Copy)]
struct Knock {
    slot: u16,
    /// Unix ns.
    time: u64,
    source: IpAddr,
}

/// A message without its mask.
#[derive(Debug, Clone, Copy)]
struct Body([u8; 48]);

/// What a message asks for that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub slot: u16,
    /// Index of the gate.
    pub gate: u16,
    pub closes: bool,
    /// In whole seconds of the host's clock; `None`: as long as the gate allows.
    pub seconds: Option<u16>,
    pub v4: Option<IpAddr>,
    pub v6: Option<IpAddr>,
    /// The source port that is to be let through alone; 0: any.
    pub port: u16,
}

/// A datagram that opens nothing.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    pub outcome: Outcome,
    /// The gate at which it counts as a knock, too.
    pub gate: Option<u16>,
}

impl From<Outcome> for Refused {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            gate: None,
        }
    }
}

/// Unmasked, the bits of byte 11.
mod flag {
    pub const V4: u8 = 1;
    pub const V6: u8 = 2;
    pub const OBSERVED: u8 = 4;
    pub const PORT: u8 = 8;
}

impl Accepted {
    /// Judges a message from `source` at `wall`, Unix ns, up to what it asks for.
    pub fn hear(
        &mut self,
        config: &Config,
        message: Option<Message>,
        source: IpAddr,
        (start, wall): (Start, u64),
    ) -> Result<Request, Refused> {
        let message = message.ok_or(Outcome::Other)?;
        let body = unmasked(&message, start, wall).ok_or(Outcome::Other)?;
        let time = body.time();
        let window = |duration| i128::from(start.unix_length(duration));
        let age = i128::from(wall) - i128::from(time);
        if age.unsigned_abs() > Duration::from_hours(30 * 24).as_nanos() {
            return Err(Outcome::Other.into());
        }
        if age > window(config.knock.max_age) || -age > window(config.knock.max_ahead) {
            return Err(Outcome::Stale.into());
        }
        let slot = body.short(8);
        let mut keys = keyring::KEYS.iter();
        let key = keys.find(|key| key.slot == slot).ok_or(Outcome::Unknown)?;
        if key.revoked {
            return Err(Outcome::Revoked.into());
        }
        if key
            .expires
            .is_some_and(|after| EPOCH + start.unix_length(after) < wall)
        {
            return Err(Outcome::Expired.into());
        }
        let newest = self.newest(slot);
        if time <= newest.map_or(EPOCH, |newest| newest.time) {
            // Where none was accepted since the key began, nothing is known to have been captured.
            let is_from_there = newest.is_none_or(|newest| newest.source == source);
            let outcome = if is_from_there || body.listed().contains(&Some(source)) {
                Outcome::Duplicate
            } else {
                Outcome::Replay
            };
            return Err(outcome.into());
        }
        if !body.is_by(key, &message) || !body.is_defined() {
            return Err(Outcome::Forged.into());
        }
        self.knocks.push(Knock { slot, time, source });
        body.request(config, key, source)
    }

    fn newest(&self, slot: u16) -> Option<Knock> {
        let of_key = self.knocks.iter().filter(|knock| knock.slot == slot);
        of_key.max_by_key(|knock| knock.time).copied()
    }
}

/// Returns the time of a message, Unix ns, if it is one for this host.
pub fn time(message: &Message, start: Start, wall: u64) -> Option<u64> {
    unmasked(message, start, wall).map(Body::time)
}

/// Returns the body of a message under the first secret of the host by which it has a version and flags that there are.
fn unmasked(message: &Message, start: Start, wall: u64) -> Option<Body> {
    let previous = EPOCH + start.unix_length(keyring::PREVIOUS_FOR) >= wall;
    let secrets = [Some(keyring::HOST), previous.then_some(keyring::PREVIOUS)];
    let bodies = secrets.into_iter().flatten().map(|secret| {
        let mut body = [0; 48];
        for block in 0..3_u8 {
            let mut hasher = SipHasher24::new_with_key(&secret);
            hasher.write(&message[..16]);
            hasher.write(&u64::from(block).to_le_bytes());
            let at = 16 * usize::from(block);
            for (index, mask) in hasher.finish128().as_bytes().into_iter().enumerate() {
                body[at + index] = message[16 + at + index] ^ mask;
            }
        }
        Body(body)
    });
    let mut plausible = bodies.filter(|Body(body)| body[10] == 1 && body[11] < 16);
    plausible.next()
}

impl Body {
    fn time(self) -> u64 {
        u64::from_be_bytes(self.0[..8].try_into().expect("8 bytes"))
    }

    fn short(self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    fn is_by(self, key: &Key, message: &Message) -> bool {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.secret).expect("any length");
        mac.update(&self.0);
        mac.finalize().into_bytes()[..16] == message[..16]
    }

    /// Returns whether it says nothing that has no meaning.
    fn is_defined(self) -> bool {
        let body = self.0;
        matches!(body[16], 1 | 2) && body[17] == 0 && body[42..] == [0; 6]
    }

    fn has(self, flag: u8) -> bool {
        self.0[11] & flag != 0
    }

    /// Returns the addresses that it lists.
    fn listed(self) -> [Option<IpAddr>; 2] {
        let v4: [u8; 4] = self.0[20..24].try_into().expect("4 bytes");
        let v6: [u8; 16] = self.0[24..40].try_into().expect("16 bytes");
        [
            self.has(flag::V4).then_some(IpAddr::from(v4)),
            self.has(flag::V6).then_some(IpAddr::from(v6)),
        ]
    }

    /// Returns what it asks for, if its key and the gate allow it.
    fn request(self, config: &Config, key: &Key, source: IpAddr) -> Result<Request, Refused> {
        let body = self.0;
        let wanted: [u8; 4] = body[12..16].try_into().expect("4 bytes");
        let mut gates = opened(config, key).into_iter();
        let gate = gates
            .find(|&gate| {
                let name = &config.gates[usize::from(gate)].name;
                wanted == [0; 4] || Sha256::digest(name.as_bytes())[..4] == wanted
            })
            .ok_or(Outcome::Gate)?;
        let [mut v4, mut v6] = self.listed();
        if self.has(flag::OBSERVED) {
            if key.bound {
                return Err(Outcome::Address.into());
            }
            let own = if source.is_ipv4() { &mut v4 } else { &mut v6 };
            *own = Some(source);
        }
        if ![v4, v6].contains(&Some(source)) {
            return Err(Outcome::Address.into());
        }
        let networks = &config.gates[usize::from(gate)].sources;
        let may = |address: IpAddr| {
            networks.is_empty() || networks.iter().any(|network| network.contains(&address))
        };
        if !v4.is_none_or(may) || !v6.is_none_or(may) {
            return Err(Refused {
                outcome: Outcome::Source,
                gate: Some(gate),
            });
        }
        let seconds = self.short(18);
        Ok(Request {
            slot: key.slot,
            gate,
            closes: body[16] == 2,
            seconds: (seconds != 0).then_some(seconds),
            v4,
            v6,
            port: if self.has(flag::PORT) {
                self.short(40)
            } else {
                0
            },
        })
    }
}

/// Returns the gates that a key opens: those of its file, then those whose rows name it.
fn opened(config: &Config, key: &Key) -> Vec<u16> {
    let index = |name: &str| config.gates.iter().position(|gate| gate.name == name);
    let own = key.gates.iter().filter_map(|name| index(name));
    let named = |gate: usize| {
        let mut names = config.gates[gate].keys.iter();
        names.any(|name| name.to_string() == key.name)
    };
    let others = (0..config.gates.len()).filter(|&gate| named(gate));
    let all = own.chain(others);
    all.map(|gate| u16::try_from(gate).expect("few gates"))
        .collect()
}
