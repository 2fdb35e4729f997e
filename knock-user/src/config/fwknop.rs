//! `[fwknop]` and `[[gate.fwknop]]`: clients of fwknop, who may open a gate by one packet of its format.
//!
//! Their keys never leave this process: a configuration that is written down, or shown, has a [tag](Key::tag) in their
//! place.

pub(super) mod written;

use std::fmt;

use clap::ValueEnum;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Port;

/// Where clients of fwknop send to, and what may be spent on what they did not send.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fwknop {
    /// UDP ports. Of no effect where no gate has keys.
    pub ports: Vec<Port>,
    /// Datagrams that may be refused in a second after a look at their HMAC; others are dropped unread.
    pub refusals: u32,
}

/// A key of one user at one gate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub user: String,
    /// Networks that its packets may come from; empty: every network.
    pub source: Vec<IpNet>,
    #[serde(skip)]
    pub secrets: Secrets,
    /// Differs between different secrets, but for one pair in 65,536: too little to learn one by trying.
    pub tag: u16,
    pub hmac_digest_type: HmacDigest,
    /// A packet has to name the address that is to pass.
    pub require_source_address: bool,
}

/// The two secrets of a key. Never shown and never written down, so every two are equal: their [tags](Key::tag)
/// differ.
#[derive(Clone, Default)]
pub struct Secrets {
    pub key: Zeroizing<Vec<u8>>,
    pub hmac_key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl PartialEq for Secrets {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Secrets {}

impl Secrets {
    /// Returns whether there are none: this is what a configuration has that was written down.
    pub fn are_missing(&self) -> bool {
        self.hmac_key.is_empty()
    }

    /// Whether these are the same secrets.
    pub fn are(&self, other: &Self) -> bool {
        self.key == other.key && self.hmac_key == other.hmac_key
    }

    fn tag(&self) -> u16 {
        let mut hash = Sha256::new();
        hash.update(b"knockgate: tag of fwknop's keys");
        for secret in [&self.key, &self.hmac_key] {
            hash.update((secret.len() as u64).to_le_bytes());
            hash.update(secret);
        }
        let hash: [u8; 32] = hash.finalize().into();
        u16::from_le_bytes([hash[0], hash[1]])
    }
}

/// The hash of a key's HMAC, by fwknop's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum HmacDigest {
    Md5,
    Sha1,
    #[default]
    Sha256,
    Sha384,
    Sha512,
    #[value(name = "sha3_256")]
    #[serde(rename = "sha3_256")]
    Sha3_256,
    #[value(name = "sha3_512")]
    #[serde(rename = "sha3_512")]
    Sha3_512,
}
