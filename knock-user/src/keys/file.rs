//! The files of the folder: how keys and what they have in common are written.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Host, HostKey, KeyName, KeyState, Secret, private::read};
use crate::values::parse_name;

/// Enough for every text here: one that grows would leave copies of secrets behind.
const ROOM_FOR_ONE: usize = 1024;

/// A file with the keys of one name, the newest first.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysOfName {
    key: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    slot: u16,
    secret: Secret<32>,
    created: Timestamp,
    expires: Option<Timestamp>,
    revoked: Option<Timestamp>,
    #[serde(default)]
    bound: bool,
    #[serde(default)]
    gates: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostEntry {
    id: Secret<16>,
    secret: Secret<16>,
    previous: Option<PreviousEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreviousEntry {
    secret: Secret<16>,
    until: Timestamp,
}

/// Reads the keys of `name`.
pub(super) fn read_keys(name: &KeyName, text: &str) -> Result<Vec<HostKey>, String> {
    let entries = read::<KeysOfName>(text)?.key;
    if entries.is_empty() {
        return Err("it has no [[key]]".to_owned());
    }
    let keys = entries.into_iter().enumerate().map(|(nth, entry)| {
        for gate in &entry.gates {
            parse_name(gate)?;
        }
        Ok(HostKey {
            name: name.clone(),
            slot: entry.slot,
            state: match entry.revoked {
                None => KeyState::Valid,
                Some(since) => KeyState::Revoked { since },
            },
            secret: entry.secret,
            created: entry.created,
            expires: entry.expires,
            bound: entry.bound,
            gates: entry.gates,
            replaced: nth > 0,
        })
    });
    keys.collect()
}

/// Writes the keys of one name, the newest first.
pub(super) fn write_keys<'k>(
    keys: impl ExactSizeIterator<Item = &'k HostKey>,
) -> Zeroizing<String> {
    let gates = |key: &HostKey| key.gates.iter().map(|gate| gate.len() + 4).sum::<usize>();
    let keys: Vec<&HostKey> = keys.collect();
    let room = keys.iter().map(|key| ROOM_FOR_ONE + gates(key)).sum();
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str("# Written by `knockgate key`. Who reads this file can knock at this host.\n");
    for key in keys {
        let secret = key.secret.to_hex();
        let _ = write!(
            text,
            "\n[[key]]\nslot    = {}\nsecret  = \"{}\"\ncreated = \"{}\"\n",
            key.slot,
            secret.as_str(),
            key.created
        );
        if let Some(expires) = key.expires {
            let _ = writeln!(text, "expires = \"{expires}\"");
        }
        if let KeyState::Revoked { since } = key.state {
            let _ = writeln!(text, "revoked = \"{since}\"");
        }
        // Debug writes strings and lists of them as TOML does: names hold nothing that is written differently.
        let _ = writeln!(text, "bound   = {}\ngates   = {:?}", key.bound, key.gates);
    }
    text
}

pub(super) fn read_host(text: &str) -> Result<Host, String> {
    let HostEntry {
        id,
        secret,
        previous,
    } = read(text)?;
    Ok(Host {
        id: *id.bytes(),
        secret,
        previous: previous.map(|previous| (previous.secret, previous.until)),
    })
}

pub(super) fn write_host(host: &Host) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(ROOM_FOR_ONE));
    let secret = host.secret.to_hex();
    let _ = write!(
        text,
        "# Written by `knockgate key`. Hosts for which people have one key in common have the same file.\n\n\
         id     = \"{}\"\nsecret = \"{}\"\n",
        base16ct::lower::encode_string(&host.id),
        secret.as_str()
    );
    if let Some((secret, until)) = &host.previous {
        let secret = secret.to_hex();
        let _ = write!(
            text,
            "\n[previous]\nsecret = \"{}\"\nuntil  = \"{until}\"\n",
            secret.as_str()
        );
    }
    text
}
