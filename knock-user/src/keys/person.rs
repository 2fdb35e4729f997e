//! What a person holds: a file with which the client makes authenticated knocks at a host.

use std::{fmt::Write as _, fs, num::NonZero, path::Path};

use anyhow::{Result, anyhow, bail};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    HostId, KeyName, Secret, derive,
    private::{read, read_private},
};

/// A person's key for a host, or for the hosts that have the same id and secret.
#[derive(Debug, PartialEq, Eq)]
pub struct PersonKey {
    pub name: KeyName,
    /// Where to knock, if it is known.
    pub host: Option<String>,
    pub root: Secret<32>,
    pub host_id: HostId,
    pub host_secret: Secret<16>,
    pub slot: u16,
    /// The UDP port that takes authenticated knocks.
    pub port: u16,
    /// The gates that it may open, the first by default.
    pub gates: Vec<String>,
}

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: KeyName,
    host: Option<String>,
    root: Secret<32>,
    host_id: Secret<16>,
    host_secret: Secret<16>,
    slot: u16,
    port: NonZero<u16>,
    #[serde(default)]
    gates: Vec<String>,
}

impl PersonKey {
    /// Returns what packets to the host are signed with.
    pub fn key(&self) -> Secret<32> {
        derive(&self.root, &self.host_id)
    }

    /// Returns the text of the file. Two lines above it say what it is.
    pub fn to_toml(&self) -> Zeroizing<String> {
        let length = 1024
            + self.host.as_deref().map_or(0, str::len)
            + self.gates.iter().map(|gate| gate.len() + 4).sum::<usize>();
        let mut text = Zeroizing::new(String::with_capacity(length));
        let [root, host_secret] = [self.root.to_hex(), self.host_secret.to_hex()];
        // Writing to a String cannot fail. Debug writes lists of strings as TOML does: names have nothing that it escapes.
        let _ = writeln!(text, "name        = \"{}\"", self.name);
        if let Some(host) = &self.host {
            let _ = writeln!(text, "host        = {}", toml::Value::from(host.as_str()));
        }
        let _ = write!(
            text,
            "root        = \"{}\"\nhost_id     = \"{}\"\nhost_secret = \"{}\"\nslot        = {}\nport        = \
             {}\ngates       = {:?}\n",
            root.as_str(),
            base16ct::lower::encode_string(&self.host_id),
            host_secret.as_str(),
            self.slot,
            self.port,
            self.gates
        );
        text
    }

    /// Reads the text of such a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Entry {
            name,
            host,
            root,
            host_id,
            host_secret,
            slot,
            port,
            gates,
        } = read(text)?;
        Ok(Self {
            name,
            host,
            root,
            host_id: *host_id.bytes(),
            host_secret,
            slot,
            port: port.get(),
            gates,
        })
    }

    /// Reads the file at `path`, which must be its owner's alone. A link to it is followed.
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display();
        let target = fs::canonicalize(path);
        let text = read_private(target.as_deref().unwrap_or(path))?;
        let Some(text) = text else {
            bail!(
                "there is no file {shown}; `knockgate key new` at the host prints what belongs into it"
            );
        };
        Self::parse(&text).map_err(|error| anyhow!("{shown} is no file of a key: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;

    fn key() -> PersonKey {
        PersonKey {
            name: "alice/laptop".parse().expect("a name"),
            host: Some("host.example".to_owned()),
            root: Secret::random().expect("randomness"),
            host_id: *b"0123456789abcdef",
            host_secret: Secret::random().expect("randomness"),
            slot: 7,
            port: 41_641,
            gates: vec!["ssh".to_owned(), "web".to_owned()],
        }
    }

    #[test]
    fn a_key_survives_its_file() {
        for key in [
            key(),
            PersonKey {
                host: None,
                gates: vec![],
                ..key()
            },
        ] {
            assert_eq!(PersonKey::parse(&key.to_toml()), Ok(key));
        }
    }

    #[test]
    fn a_file_for_others_or_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("alice.key");
        let refusal = || format!("{:#}", PersonKey::load(&path).expect_err("refused"));
        assert!(refusal().contains("`knockgate key new`"));
        let text = key().to_toml();
        fs::write(&path, text.as_bytes()).expect("writable");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("own file");
        let error = refusal();
        assert!(error.contains("(mode 0644)"), "{error}");
        assert!(error.contains("`chmod 600 "), "{error}");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("own file");
        PersonKey::load(&path).expect("as it was printed");
        for (from, to, says) in [
            ("41641", "0", "line 7: "),
            ("root ", "rot ", "unknown field `rot`"),
            (
                "host_id     = \"30",
                "host_id     = \"3",
                "line 4: this is not a secret of 16 bytes",
            ),
        ] {
            fs::write(&path, text.replacen(from, to, 1)).expect("own file");
            let error = refusal();
            assert!(error.contains(says), "{error}");
        }
    }
}
