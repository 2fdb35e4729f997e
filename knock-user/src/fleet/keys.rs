//! The keys of a fleet: what one host tells the others is signed with one of them, so that who runs or shares the etcd members
//! can open no gate.
//!
//! All hosts of a fleet have the same keys, each in a file of its own. During a rotation there are two: the first signs, and
//! both verify.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow, ensure};
use ctutils::CtEq as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::keys::{
    Secret,
    private::{read, read_private},
};

/// What names the purpose of a signature, so that no key is of use for another one.
const PURPOSE: &[u8] = b"knockgate fleet 1";

/// Enough for every text here: one that grows would leave copies of secrets behind.
const ROOM: usize = 512;

/// What records name a key by.
pub type KeyId = [u8; 8];

/// A signature: HMAC-SHA-256(key, purpose ‖ length of the record's key ‖ the record's key ‖ its value).
pub type Signature = [u8; 32];

/// A key of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetKey {
    /// The first bytes of the SHA-256 of the key.
    pub id: KeyId,
    secret: Secret<32>,
}

/// The keys of the fleet that this host has, at least one.
#[derive(Debug, Clone)]
pub struct Keyring {
    keys: Vec<FleetKey>,
}

/// The file of a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    secret: Secret<32>,
    #[expect(
        dead_code,
        reason = "for people; read so that a file without a date is no other file"
    )]
    created: Timestamp,
}

impl FleetKey {
    /// Draws a new one.
    pub fn random() -> Result<Self> {
        Secret::random().map(Self::new)
    }

    fn new(secret: Secret<32>) -> Self {
        let hash: [u8; 32] = Sha256::digest(secret.bytes()).into();
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        Self { id, secret }
    }

    /// Reads the file of a key.
    ///
    /// # Errors
    /// Where others can read or change the file; the message has the command that repairs it.
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = read_private(path)?.ok_or_else(|| {
            anyhow!(
                "there is no {shown}: copy the fleet's key from another of its hosts, or make the first by `knockgate fleet key \
                 new {shown}`"
            )
        })?;
        let unfit = |why| anyhow!("{shown} is no file of a fleet's key: {why}");
        let Entry { secret, created: _ } = read(&text).map_err(unfit)?;
        Ok(Self::new(secret))
    }

    /// Returns the text of its file.
    pub fn to_text(&self, created: Timestamp) -> Zeroizing<String> {
        let secret = self.secret.to_hex();
        let mut text = Zeroizing::new(String::with_capacity(ROOM));
        let _ = write!(
            text,
            "# Written by `knockgate fleet key new`. Who reads this file can open every gate of the fleet.\n\n\
             secret  = \"{}\"\ncreated = \"{created}\"\n",
            secret.as_str()
        );
        text
    }

    fn mac(&self, key: &[u8], value: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.bytes())
            .expect("HMAC takes keys of any length");
        mac.update(PURPOSE);
        // The end of the key is signed too: no byte of it can be taken for one of the value.
        mac.update(&(key.len() as u64).to_be_bytes());
        mac.update(key);
        mac.update(value);
        mac
    }
}

impl Keyring {
    /// Reads the files of the keys, of which the first is to sign.
    ///
    /// # Errors
    /// Where one of them cannot be read, is no file of a key, or can be read or changed by others: none of the keys is to be
    /// used then.
    pub fn load(paths: &[PathBuf]) -> Result<Self> {
        let keys = paths.iter().map(|path| FleetKey::load(path));
        Self::new(keys.collect::<Result<_>>()?)
    }

    /// Makes one of these keys, of which the first is to sign.
    pub fn new(keys: Vec<FleetKey>) -> Result<Self> {
        ensure!(
            !keys.is_empty(),
            "a fleet needs a key: `keys` of [fleet] names none"
        );
        Ok(Self { keys })
    }

    /// Signs a record by the first key. Returns the id of that key too.
    pub fn sign(&self, key: &[u8], value: &[u8]) -> (KeyId, Signature) {
        let signing = &self.keys[0];
        let signature = signing.mac(key, value).finalize().into_bytes().into();
        (signing.id, signature)
    }

    /// Returns whether one of the keys, the one with this id, has signed the record.
    pub fn verify(&self, id: &[u8], signature: &[u8], key: &[u8], value: &[u8]) -> bool {
        let is_meant = |known: &&FleetKey| known.id.as_slice().ct_eq(id).to_bool();
        self.keys.iter().filter(is_meant).any(|known| {
            // In the same time for every wrong signature.
            known.mac(key, value).verify_slice(signature).is_ok()
        })
    }

    /// Returns the ids of the keys; the first signs.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(|key| key.id)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn key(byte: u8) -> FleetKey {
        FleetKey::new(Secret::new([byte; 32]))
    }

    fn ring(bytes: &[u8]) -> Keyring {
        Keyring::new(bytes.iter().map(|byte| key(*byte)).collect()).expect("at least one")
    }

    #[test]
    fn every_bit_that_is_signed_counts() {
        let ring = ring(&[1]);
        let (id, signature) = ring.sign(b"grant/ssh", b"value");
        assert!(ring.verify(&id, &signature, b"grant/ssh", b"value"));
        let flipped = |bytes: &[u8], bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        for bit in 0..64 {
            assert!(!ring.verify(&flipped(&id, bit), &signature, b"grant/ssh", b"value"));
        }
        for bit in 0..256 {
            assert!(!ring.verify(&id, &flipped(&signature, bit), b"grant/ssh", b"value"));
        }
        for bit in 0..72 {
            assert!(!ring.verify(&id, &signature, &flipped(b"grant/ssh", bit), b"value"));
        }
        for bit in 0..40 {
            assert!(!ring.verify(&id, &signature, b"grant/ssh", &flipped(b"value", bit)));
        }
        for short in [&[][..], &signature[..31]] {
            assert!(!ring.verify(&id, short, b"grant/ssh", b"value"));
        }
        assert!(!ring.verify(&[], &signature, b"grant/ssh", b"value"));
        assert!(!ring.verify(&id[..7], &signature, b"grant/ssh", b"value"));
    }

    #[test]
    fn key_and_value_cannot_be_cut_elsewhere() {
        let ring = ring(&[1]);
        let (id, signature) = ring.sign(b"ab", b"c");
        assert!(!ring.verify(&id, &signature, b"a", b"bc"));
        assert!(!ring.verify(&id, &signature, b"abc", b""));
    }

    #[test]
    fn the_first_signs_and_all_verify() {
        let (old, both, new, other) = (ring(&[1]), ring(&[2, 1]), ring(&[2]), ring(&[3]));
        let (id, signature) = both.sign(b"k", b"v");
        assert_eq!(id, key(2).id);
        assert!(both.ids().eq([key(2).id, key(1).id]));
        for (ring, verifies) in [(&old, false), (&both, true), (&new, true), (&other, false)] {
            assert_eq!(ring.verify(&id, &signature, b"k", b"v"), verifies);
        }
        let (id, signature) = old.sign(b"k", b"v");
        for (ring, verifies) in [(&old, true), (&both, true), (&new, false), (&other, false)] {
            assert_eq!(ring.verify(&id, &signature, b"k", b"v"), verifies);
        }
        // The id of one key with the signature of another.
        assert!(!both.verify(&key(2).id, &signature, b"k", b"v"));
    }

    /// By `printf '\1%.0s' {1..32} | sha256sum`, and by `openssl dgst -sha256 -mac HMAC -macopt hexkey:0101…` over
    /// `knockgate fleet 1`, seven zeroes, a one, and `kv`.
    #[test]
    fn signatures_are_what_another_program_makes() {
        let (id, signature) = ring(&[1]).sign(b"k", b"v");
        let hex = base16ct::lower::encode_string;
        assert_eq!(hex(&id), "72cd6e8422c407fb");
        assert_eq!(
            hex(&signature),
            "94b9a2dfee5044ff4a0a1e68509b07719e25676e868b823f6f2199e3a9c80a88"
        );
    }

    #[test]
    fn files_survive_and_their_owner_alone_may_have_them() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("fleet.key");
        let set =
            |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        let fails = |says: &str| {
            let error = Keyring::load(std::slice::from_ref(&path)).expect_err(says);
            let error = format!("{error:#}");
            assert!(error.contains(says), "{error}");
        };
        fails("`knockgate fleet key new");
        let key = FleetKey::random().expect("randomness");
        let text = key.to_text(Timestamp::now());
        fs::write(&path, text.as_bytes()).expect("writable");
        set(0o640);
        fails(&format!("`chmod 600 {}`", path.display()));
        for mode in [0o600, 0o400] {
            set(mode);
            assert_eq!(FleetKey::load(&path).expect("readable"), key);
        }
        set(0o600);
        for wrong in ["", "secret = \"00\"\n", "[[key]]\nslot = 1\n", "nonsense"] {
            fs::write(&path, wrong).expect("writable");
            fails("is no file of a fleet's key: ");
        }
        let secret = key.secret.to_hex();
        fs::write(&path, text.replace("created", "made")).expect("writable");
        let error = FleetKey::load(&path).expect_err("an unknown key");
        assert!(!format!("{error:#}").contains(secret.as_str()));
        assert!(Keyring::load(&[]).is_err());
        assert_ne!(key.id, FleetKey::random().expect("randomness").id);
        assert!(!format!("{key:?}").contains(secret.as_str()));
    }
}
