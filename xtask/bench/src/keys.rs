//! Keys for authenticated knocks, as their owners have them, and what is sent with them.

use std::{
    fs::File,
    io::Read as _,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use hmac::{Hmac, KeyInit as _, Mac as _};
use knock_common::testing::knock::Knock;
use serde_json::Value;
use sha2::Sha256;

/// The bytes of an authenticated knock.
pub type Message = [u8; 64];

/// A key of one host.
#[derive(Debug)]
pub struct Key {
    host: [u8; 16],
    key: [u8; 32],
    slot: u16,
    /// The time of the newest knock, Unix ns.
    newest: AtomicU64,
}

impl Key {
    /// Reads what `knockgate key new --json` prints.
    pub fn read(document: &str) -> Result<Self> {
        let document: Value = serde_json::from_str(document).context("`knockgate key new`")?;
        let root: [u8; 32] = digits(&document["root"])?;
        let mut key = Hmac::<Sha256>::new_from_slice(&root).expect("HMAC takes any length");
        key.update(b"knockgate knock 1");
        key.update(&digits::<16>(&document["host_id"])?);
        let slot = document["slot"].as_u64().context("a key has a slot")?;
        Ok(Self {
            host: digits(&document["host_secret"])?,
            key: key.finalize().into_bytes().into(),
            slot: u16::try_from(slot)?,
            newest: AtomicU64::new(0),
        })
    }

    /// Returns a knock for the address that it comes from, later than all before.
    pub fn knock(&self) -> Message {
        let time = now().max(self.newest() + 1);
        self.newest.store(time, Ordering::Relaxed);
        self.made_at(time).sealed()
    }

    /// Returns a knock that is this much older than the newest one, ns.
    pub fn earlier(&self, by: u64) -> Message {
        self.made_at(self.newest() - by).sealed()
    }

    /// Returns a knock that was made this long ago, ns.
    pub fn ago(&self, by: u64) -> Message {
        self.made_at(now() - by).sealed()
    }

    /// Returns what somebody makes who has the host's secret, and not this key: it is newer than all knocks by this much, ns.
    pub fn forged(&self, by: u64) -> Message {
        let knock = self.made_at(now().max(self.newest()) + by);
        Knock {
            key: self.key.map(|byte| !byte),
            ..knock
        }
        .sealed()
    }

    fn newest(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }

    fn made_at(&self, time: u64) -> Knock {
        Knock {
            host: self.host,
            key: self.key,
            slot: self.slot,
            ..Knock::at(time)
        }
    }
}

/// Returns this many messages of random bytes, as who knows nothing of the host sends them.
pub fn random(count: u32) -> Result<Vec<Message>> {
    let mut source = File::open("/dev/urandom").context("cannot open /dev/urandom")?;
    let mut messages = vec![[0; 64]; count as usize];
    source
        .read_exact(messages.as_flattened_mut())
        .context("cannot read /dev/urandom")?;
    Ok(messages)
}

/// Returns the present time, Unix ns.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos().try_into().unwrap_or(u64::MAX))
}

/// Reads `N` bytes in hexadecimal digits.
fn digits<const N: usize>(value: &Value) -> Result<[u8; N]> {
    let text = value.as_str().filter(|text| text.len() == 2 * N);
    let text = text.with_context(|| format!("{value} is not {} hexadecimal digits", 2 * N))?;
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        let pair = text.get(2 * at..2 * at + 2).unwrap_or_default();
        *byte = u8::from_str_radix(pair, 16)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Value {
        let vectors = include_str!("../../../docs/clients/vectors.json");
        let vectors: Value = serde_json::from_str(vectors).unwrap();
        let mut example = vectors[0].clone();
        example["slot"] = 0.into();
        example
    }

    #[test]
    fn knocks_are_those_of_the_documented_example() {
        let example = example();
        let key = Key::read(&example.to_string()).unwrap();
        let body: [u8; 48] = digits(&example["body"]).unwrap();
        let time = u64::from_be_bytes(body[..8].try_into().unwrap());
        let message: Message = digits(&example["message"]).unwrap();
        assert_eq!(key.made_at(time).sealed(), message);
    }

    #[test]
    fn each_knock_is_newer() {
        let key = Key::read(&example().to_string()).unwrap();
        let mut before = 0;
        for _ in 0..1_000 {
            key.knock();
            assert!(key.newest() > before);
            before = key.newest();
        }
    }

    #[test]
    fn what_is_no_hexadecimal_number_is_refused() {
        for text in ["", "0", "0g", "000", "é"] {
            assert!(digits::<1>(&text.into()).is_err(), "{text}");
        }
    }
}
