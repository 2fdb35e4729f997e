//! Records: what the keys and values of a fleet mean, and how they are signed.
//!
//! | key, after `/knockgate/<fleet>/v1/` | value |
//! |---|---|
//! | `grant/<gate>/<source>_<length>` | [`Grant`] |
//! | `revoke/<number>`, `revoke-head` | [`Revocation`], [`Mark`] |
//! | `seen/<key>` | [`Seen`] |
//! | `fwknop/<hash>` | [`Packet`] |
//! | `host/<name>` | [`Host`] |
//!
//! A value is text: `<version> <time> <id> <mac> <body>`. `version` is `VERSION`; `time` is of [`Seen`] alone, 20 digits,
//! and 0 elsewhere, so that these values grow with it; `id` and `mac` are of the key that signed all else with the name of
//! the record; `body` is JSON.

mod refusal;

use std::{num::NonZeroU64, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    engine::{Condition, Put, Write},
    keys::Keyring,
};
use crate::{config::LONGEST_GRANT, fwknop::seen::Fingerprint, keys::KeyName, values::parse_name};

pub use refusal::Refusal;

/// The version of the values that this build writes, and the only one that it reads.
const VERSION: &str = "1";
/// Longest value that is looked at.
const LONGEST: usize = 4096;

const GRANT: &str = "grant/";
const REVOKE: &str = "revoke/";
const HEAD: &str = "revoke-head";
const SEEN: &str = "seen/";
const FWKNOP: &str = "fwknop/";
const HOST: &str = "host/";

/// A grant that a host has given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who knocked; `None`: it was given by hand.
    pub user: Option<String>,
    /// The key, where it was no sequence.
    pub key: Option<String>,
    /// See [`By::print`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub print: Option<u64>,
    /// The host that gave it.
    pub origin: String,
    /// That host's time when it said so, µs since 1970. It only grows, whatever becomes of the host's clock.
    pub serial: u64,
    /// That host's time when it gave or renewed the grant, µs since 1970: not later than `serial`, and the same each time that
    /// it says so again.
    pub given: u64,
    /// When it ends by that host's clock, ms since 1970.
    pub end: u64,
    /// The time until then, ms.
    pub left: u64,
    /// The last revocation that the host had put into its tables.
    pub head: Mark,
}

impl Grant {
    pub fn by(&self) -> By<'_> {
        By {
            user: self.user.as_deref(),
            key: self.key.as_deref(),
            print: self.print,
        }
    }
}

/// Who has knocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By<'r> {
    /// `None`: it was given by hand.
    pub user: Option<&'r str>,
    /// The key, where it was no sequence.
    pub key: Option<&'r str>,
    /// Of the key: the name of one that was rotated is the new one's too.
    pub print: Option<u64>,
}

/// A place in the order of revocations. A number alone is none: it may be given again after the engine has lost its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// How many revocations there are; 0: none.
    pub number: u64,
    /// [`Revocation::nonce`] of the last one; 0: there is none.
    pub nonce: u64,
}

/// The end of every grant before it, of the sources in a network or of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// `None`: at all gates.
    pub gate: Option<String>,
    /// `None`: of all sources.
    pub network: Option<IpNet>,
    /// The host that was asked for it.
    pub host: String,
    /// A random number that tells it from every other.
    pub nonce: u64,
    /// The nonce of the one before it; 0: it is the first.
    pub after: u64,
}

impl Revocation {
    pub fn covers(&self, gate: &str, source: &IpNet) -> bool {
        self.gate.as_deref().is_none_or(|own| own == gate)
            && self.network.is_none_or(|own| own.contains(source))
    }
}

/// The newest time of the packets of a key that were accepted, Unix ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub time: u64,
}

/// A packet of a client of fwknop's that a host has accepted. The key of its record has the hash of it, SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Its last characters.
    pub end: String,
    /// When it was made, Unix time.
    pub time: u64,
    /// The host that has accepted it.
    pub host: String,
}

/// A host of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub version: String,
    /// Of what the hosts of a fleet should have in common.
    pub configuration: String,
    /// As in [`Grant`].
    pub serial: u64,
    /// Its clock, ms since 1970.
    pub clock: u64,
    /// Another one for each run of its service.
    pub run: u64,
    /// The time that the last of its grants took to the engine and back, ms; `None`: it has published none.
    #[serde(default)]
    pub lag: Option<u64>,
}

/// A record that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Grant {
        gate: String,
        source: IpNet,
        grant: Grant,
    },
    Revocation(u64, Revocation),
    /// The last revocation.
    Head(Mark),
    Seen(KeyName, Seen),
    Packet(Fingerprint, Packet),
    Host(String, Host),
}

/// Reads and writes the records of one fleet.
pub struct Codec {
    prefix: String,
    keyring: Keyring,
}

impl Codec {
    pub fn new(fleet: &str, keyring: Keyring) -> Self {
        Self {
            prefix: prefix(fleet),
            keyring,
        }
    }

    pub fn grant(&self, gate: &str, source: IpNet, grant: &Grant) -> (String, Vec<u8>) {
        self.signed(grant_key(gate, source), 0, grant)
    }

    pub fn revocation(&self, number: u64, revocation: &Revocation) -> (String, Vec<u8>) {
        self.signed(format!("{REVOKE}{number:020}"), 0, revocation)
    }

    pub fn head(&self, head: Mark) -> (String, Vec<u8>) {
        self.signed(HEAD.to_owned(), 0, &head)
    }

    pub fn seen(&self, key: &str, seen: Seen) -> (String, Vec<u8>) {
        self.signed(format!("{SEEN}{key}"), seen.time, &seen)
    }

    /// Returns what the value of a newest time begins with. What follows depends on the key that has signed it, and says nothing of
    /// which is later.
    pub fn seen_prefix(time: u64) -> Vec<u8> {
        format!("{VERSION} {time:020}").into_bytes()
    }

    pub fn packet(&self, packet: &Fingerprint, host: &str) -> (String, Vec<u8>) {
        let hash = base16ct::lower::encode_string(&packet.hash);
        let packet = Packet {
            end: String::from_utf8_lossy(&packet.end).into_owned(),
            time: packet.time,
            host: host.to_owned(),
        };
        self.signed(format!("{FWKNOP}{hash}"), 0, &packet)
    }

    pub fn host(&self, name: &str, host: &Host) -> (String, Vec<u8>) {
        self.signed(self.host_key(name), 0, host)
    }

    /// Returns the key of the record of a host.
    pub fn host_key(&self, name: &str) -> String {
        format!("{HOST}{name}")
    }

    fn signed(&self, key: String, time: u64, body: &impl Serialize) -> (String, Vec<u8>) {
        let body = serde_json::to_string(body).unwrap_or_default();
        let (id, mac) = self.keyring.sign(
            self.name(&key).as_bytes(),
            signed_text(VERSION, time, &body).as_bytes(),
        );
        let (id, mac) = (
            base16ct::lower::encode_string(&id),
            base16ct::lower::encode_string(&mac),
        );
        (
            key,
            format!("{VERSION} {time:020} {id} {mac} {body}").into_bytes(),
        )
    }

    /// Reads a record, once it is known that it is one of the fleet's.
    pub fn read(&self, key: &str, value: &[u8]) -> Result<Record, Refusal> {
        let body = self.verified(key, value)?;
        let record = if let Some(place) = key.strip_prefix(GRANT) {
            let (gate, source) = place_of(place).ok_or(Refusal::Malformed)?;
            let grant: Grant = parse(body)?;
            if Duration::from_millis(grant.left) > LONGEST_GRANT {
                return Err(Refusal::TooLong);
            }
            if !is_consistent(&grant) {
                return Err(Refusal::Malformed);
            }
            Record::Grant {
                gate,
                source,
                grant,
            }
        } else if let Some(number) = key.strip_prefix(REVOKE) {
            let number: NonZeroU64 = number.parse().map_err(|_| Refusal::Malformed)?;
            Record::Revocation(number.get(), parse(body)?)
        } else if key == HEAD {
            Record::Head(parse(body)?)
        } else if let Some(name) = key.strip_prefix(SEEN) {
            let name = name.parse().map_err(|_| Refusal::Malformed)?;
            Record::Seen(name, parse(body)?)
        } else if let Some(hash) = key.strip_prefix(FWKNOP) {
            let packet: Packet = parse(body)?;
            let print = fingerprint(hash, &packet).ok_or(Refusal::Malformed)?;
            Record::Packet(print, packet)
        } else if let Some(name) = key.strip_prefix(HOST) {
            let name = parse_name(name).map_err(|_| Refusal::Malformed)?;
            Record::Host(name, parse(body)?)
        } else {
            return Err(Refusal::Malformed);
        };
        Ok(record)
    }

    /// Returns whether this value, which was [read](Self::read), is signed with the key that this host signs with.
    pub fn is_by_own_key(&self, value: &[u8]) -> bool {
        let mut parts = value.split(|byte| *byte == b' ').skip(2);
        let id = self.keyring.ids().next();
        parts.next()
            == id
                .map(|id| base16ct::lower::encode_string(&id))
                .as_deref()
                .map(str::as_bytes)
    }

    fn verified<'v>(&self, key: &str, value: &'v [u8]) -> Result<&'v str, Refusal> {
        let text = Some(value)
            .filter(|value| value.len() <= LONGEST)
            .and_then(|value| std::str::from_utf8(value).ok())
            .ok_or(Refusal::Forged)?;
        let mut parts = text.splitn(5, ' ');
        let mut part = || parts.next().ok_or(Refusal::Forged);
        let version = part()?;
        if version != VERSION {
            // What comes next in it is not known, so neither is who has written it.
            return Err(Refusal::Version);
        }
        let time = part()?.parse().map_err(|_| Refusal::Forged)?;
        let (mut id, mut mac) = ([0; 8], [0; 32]);
        decode(part()?, &mut id)?;
        decode(part()?, &mut mac)?;
        let body = part()?;
        let signed = signed_text(version, time, body);
        if self
            .keyring
            .verify(&id, &mac, self.name(key).as_bytes(), signed.as_bytes())
        {
            Ok(body)
        } else {
            Err(Refusal::Forged)
        }
    }

    /// Returns the whole name of a record: that of another fleet cannot take its place.
    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

/// Returns the number of the revocation whose record has this key.
pub fn revocation_number(key: &str) -> Option<u64> {
    key.strip_prefix(REVOKE)?.parse().ok()
}

/// Returns the key whose newest time the record with this name has.
pub fn seen_key(key: &str) -> Option<&str> {
    key.strip_prefix(SEEN)
}

/// For how long a revocation may be missed: a host that comes back later than this ends all grants that it has given.
const REVOKED_FOR: Duration = Duration::from_hours(24 * 366);

/// Returns the write of the revocation with this number. `head`: the revision of the record that counts them, which is
/// written with it.
pub fn revoke(codec: &Codec, number: u64, head: i64, revocation: &Revocation) -> Write {
    let last = Mark {
        number,
        nonce: revocation.nonce,
    };
    let puts = revocations_and_head(codec, [(number, revocation)], last);
    unless_revoked(number, head, puts)
}

/// Returns the records of revocations and of the last one, in this order: who hears of the number has heard of the
/// revocation.
pub fn revocations_and_head<'r>(
    codec: &Codec,
    revocations: impl IntoIterator<Item = (u64, &'r Revocation)>,
    last: Mark,
) -> Vec<Put> {
    let revocations = revocations.into_iter();
    let revocations = revocations.map(|(number, revocation)| codec.revocation(number, revocation));
    let put = |(key, value)| Put {
        key,
        value,
        useful: REVOKED_FOR,
    };
    revocations.chain([codec.head(last)]).map(put).collect()
}

/// Returns a write that is done unless something else was revoked. `head`: the revision of the record that counts
/// revocations.
pub fn unless_revoked(id: u64, head: i64, puts: Vec<Put>) -> Write {
    Write {
        id,
        condition: Condition::Unchanged {
            key: HEAD.to_owned(),
            revision: head,
        },
        puts,
    }
}

/// Returns what the keys of a fleet begin with.
pub fn prefix(fleet: &str) -> String {
    format!("/knockgate/{fleet}/v1/")
}

/// Returns the key of the record that counts revocations.
pub const fn head_key() -> &'static str {
    HEAD
}

/// Returns what the keys of revocations, and the key of the record that counts them, begin with.
pub const fn revocations() -> &'static str {
    "revoke"
}

/// Returns what the keys of grants begin with.
pub const fn grants() -> &'static str {
    GRANT
}

fn grant_key(gate: &str, source: IpNet) -> String {
    format!("{GRANT}{gate}/{}_{}", source.addr(), source.prefix_len())
}

fn place_of(text: &str) -> Option<(String, IpNet)> {
    let (gate, source) = text.split_once('/')?;
    let (address, length) = source.split_once('_')?;
    let source = IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()?;
    let gate = parse_name(gate).ok()?;
    // One grant has one name, and the kernel program has no length for everyone.
    let is_own = source == source.trunc() && source.prefix_len() != 0;
    (is_own && format!("{GRANT}{text}") == grant_key(&gate, source)).then_some((gate, source))
}

fn fingerprint(hash: &str, packet: &Packet) -> Option<Fingerprint> {
    let mut print = Fingerprint {
        hash: [0; 32],
        end: packet.end.as_bytes().try_into().ok()?,
        time: packet.time,
    };
    decode(hash, &mut print.hash).ok()?;
    Some(print)
}

/// Whether its times agree, to the millisecond.
fn is_consistent(grant: &Grant) -> bool {
    grant
        .end
        .abs_diff((grant.serial / 1000).saturating_add(grant.left))
        <= 1
        && grant.given <= grant.serial
        && parse_name(&grant.origin).is_ok()
}

fn signed_text(version: &str, time: u64, body: &str) -> String {
    format!("{version} {time:020} {body}")
}

fn decode(text: &str, bytes: &mut [u8]) -> Result<(), Refusal> {
    let length = bytes.len();
    match base16ct::lower::decode(text, bytes) {
        Ok(read) if read.len() == length => Ok(()),
        _ => Err(Refusal::Forged),
    }
}

fn parse<T: DeserializeOwned>(body: &str) -> Result<T, Refusal> {
    serde_json::from_str(body).map_err(|_| Refusal::Malformed)
}

#[cfg(test)]
mod tests;
