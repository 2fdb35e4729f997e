//! Profiles: what a user keeps in `~/.config/knockgate/client.toml` to knock by a name.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::{AddressRule, parse_seconds, parse_tcp_port, parse_timeout};
use crate::values::{Port, nearest, parse_duration};

/// What such a file looks like, for messages and `--help`.
pub const EXAMPLE: &str = r#"[profile.home]
host     = "host.example"
sequence = ["7000/udp", "8443/tcp", "9301/udp"]
# and, where wanted:
delay    = "20ms"      # pause between two knocks of the first try
retries  = 3           # further tries while the port stays closed
timeout  = "1s"        # how long the port may take to answer, the first time
connect  = "22/tcp"    # as --connect; or then = "22/tcp", as --then

[profile.work]
key      = "work.key"  # in place of a sequence: a file beside this one, or a whole path
# and, where wanted:
host     = "host.example"  # where the file of the key names none
gate     = "ssh"       # as --gate; for = "5m" as --for, address = "observed" as --address
"#;

/// One `[profile.NAME]`. What is absent comes from the command line or is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// A name or an address.
    #[serde(default, deserialize_with = "host")]
    pub host: Option<String>,
    /// The knocks in order; never empty.
    #[serde(default, deserialize_with = "sequence")]
    pub sequence: Option<Vec<Port>>,
    /// The file of a key, never together with `sequence`; a relative path begins at the folder of the profiles.
    pub key: Option<PathBuf>,
    /// The gate that the key is to open.
    pub gate: Option<String>,
    /// How long the key's grant is to last, s.
    #[serde(default, rename = "for", deserialize_with = "seconds")]
    pub seconds: Option<u16>,
    /// For which address the key opens.
    #[serde(default, deserialize_with = "address")]
    pub address: Option<AddressRule>,
    /// The pause between two knocks.
    #[serde(default, deserialize_with = "delay")]
    pub delay: Option<Duration>,
    /// How often the sequence is sent again while the port stays closed.
    pub retries: Option<u32>,
    /// How long the port may take to answer.
    #[serde(default, deserialize_with = "timeout")]
    pub timeout: Option<Duration>,
    /// The TCP port to check; never together with `connect`.
    #[serde(default, deserialize_with = "tcp_port")]
    pub then: Option<u16>,
    /// The TCP port to connect to.
    #[serde(default, deserialize_with = "tcp_port")]
    pub connect: Option<u16>,
}

impl Profile {
    /// Reads the profile `name` from the user's file.
    pub fn load(name: &str) -> Result<Self, Invalid> {
        let path = default_path()?;
        Self::load_from(&path, name)
    }

    /// Reads the profile `name` from the file `path`. One bad profile makes the whole file invalid.
    pub fn load_from(path: &Path, name: &str) -> Result<Self, Invalid> {
        let unread = |error| Invalid(unreadable(path, name, &error));
        let mut file = fs::File::open(path).map_err(unread)?;
        let mode = file.metadata().map_err(unread)?.permissions().mode();
        if let Some(why) = changeable(path, mode) {
            return Err(Invalid(why));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unread)?;
        let mut profile = Self::parse(&text, &path.display().to_string(), name)?;
        if let (Some(key), Some(folder)) = (&mut profile.key, path.parent()) {
            *key = match (key.strip_prefix("~"), env::home_dir()) {
                (Ok(below), Some(home)) => home.join(below),
                _ => folder.join(&*key),
            };
        }
        Ok(profile)
    }

    /// Takes the profile `name` from `text`; `origin` is the file's name for messages.
    fn parse(text: &str, origin: &str, name: &str) -> Result<Self, Invalid> {
        let File { mut profile } = toml::from_str(text)
            .map_err(|error| Invalid::at(origin, text, error.span(), error.message()))?;
        for (name, profile) in &profile {
            if profile.sequence.is_some() && profile.key.is_some() {
                return Err(Invalid(format!(
                    "{origin}: [profile.{name}] has both `sequence` and `key`; leave one out"
                )));
            }
            if profile.key.is_none()
                && (profile.gate.is_some()
                    || profile.seconds.is_some()
                    || profile.address.is_some())
            {
                return Err(Invalid(format!(
                    "{origin}: [profile.{name}] has `gate`, `for` or `address`, which a sequence cannot say; they need a \
                     `key`"
                )));
            }
            if profile.then.is_some() && profile.connect.is_some() {
                return Err(Invalid(format!(
                    "{origin}: [profile.{name}] has both `then` and `connect`; `connect` checks the port \
                     by itself, so leave `then` out"
                )));
            }
        }
        profile
            .remove(name)
            .ok_or_else(|| Invalid(missing(origin, name, &profile)))
    }
}

/// A file of profiles that cannot be used: exit status 3. `Display` says what is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(String);

impl Invalid {
    /// A finding about the command line and profile together.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    fn at(origin: &str, text: &str, span: Option<Range<usize>>, message: &str) -> Self {
        let Some(before) = span.and_then(|span| text.get(..span.start)) else {
            return Self(format!("{origin}: {message}"));
        };
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |start| start.chars().count())
            + 1;
        let source = text.lines().nth(line - 1).unwrap_or_default();
        if !is_shown(source) {
            return Self(format!("{origin}:{line}:{column}: {message}"));
        }
        let margin = " ".repeat(line.to_string().len());
        let indent = " ".repeat(column - 1);
        Self(format!(
            "{origin}:{line}:{column}: {message}\n{margin} |\n{line} | {source}\n{margin} | {indent}^"
        ))
    }
}

/// Returns whether a line of the file is repeated in messages. A sequence is a password: no line is that may be one, under
/// whatever name, or go on with one.
fn is_shown(line: &str) -> bool {
    const HARMLESS: [&str; 10] = [
        "host", "key", "gate", "for", "address", "delay", "retries", "timeout", "then", "connect",
    ];
    // `then` and `connect` have one port.
    let has_ports =
        line.contains("sequence") || line.contains('[') || line.matches('/').count() > 1;
    if let Some((name, _)) = line.split_once('=') {
        return HARMLESS.contains(&name.trim()) && !has_ports;
    }
    let header = line.trim();
    header.starts_with("[profile") && header.matches(['[', ']', '/', ',']).count() <= 2
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

/// Why the user's file is refused where others than its owner can change it: they would say where to connect.
fn changeable(path: &Path, mode: u32) -> Option<String> {
    let so = "it says where to knock and to connect";
    (mode & 0o022 != 0).then(|| open_to("change", path, mode, so))
}

/// What to say of the user's file where others than its owner can read it.
pub fn exposed(path: &Path, mode: u32) -> Option<String> {
    (mode & 0o044 != 0).then(|| open_to("read", path, mode, "its sequences are passwords"))
}

fn open_to(what: &str, path: &Path, mode: u32, so: &str) -> String {
    let path = path.display();
    format!(
        "others than you can {what} {path} (mode {:04o}), and {so}; run `chmod 600 {path}`",
        mode & 0o7777
    )
}

/// Where the user's profiles are: under `XDG_CONFIG_HOME` where that is an absolute path, else `~/.config`.
pub fn default_path() -> Result<PathBuf, Invalid> {
    let config = match env::var_os("XDG_CONFIG_HOME").map(PathBuf::from) {
        Some(path) if path.is_absolute() => Some(path),
        _ => env::home_dir()
            .filter(|home| home.is_absolute())
            .map(|home| home.join(".config")),
    };
    config.map(|config| config.join("knockgate/client.toml")).ok_or_else(|| {
        Invalid::new(
            "cannot tell where profiles are kept: this user has no home directory; set XDG_CONFIG_HOME to \
             the directory that holds knockgate/client.toml, or give HOST and steps instead of --profile",
        )
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    profile: BTreeMap<String, Profile>,
}

fn unreadable(path: &Path, name: &str, error: &io::Error) -> String {
    let path = path.display();
    let advice = match error.kind() {
        io::ErrorKind::NotFound => {
            return format!(
                "there is no {path}, so no profile {name:?}; write that file (mode 0600: sequences are \
                 secrets), for example:\n\n{EXAMPLE}"
            );
        }
        io::ErrorKind::PermissionDenied => {
            "; make it readable for you and nobody else: `ls -l` shows its owner"
        }
        io::ErrorKind::InvalidData => "; save it as UTF-8",
        _ if error.raw_os_error() == Some(libc::EMFILE) => {
            "; this process may open no more files, so raise its limit with `ulimit -n 1024`"
        }
        _ => "",
    };
    format!("cannot read {path}: {error}{advice}")
}

fn missing(origin: &str, name: &str, known: &BTreeMap<String, Profile>) -> String {
    let nearest = nearest(name, known.keys().map(String::as_str));
    let names: Vec<_> = known.keys().map(|name| format!("{name:?}")).collect();
    match (nearest, names.is_empty()) {
        (Some(nearest), _) => {
            format!(
                "{origin} has no profile {name:?}; did you mean {nearest:?}? it has {}",
                names.join(", ")
            )
        }
        (None, false) => format!(
            "{origin} has no profile {name:?}; it has {}",
            names.join(", ")
        ),
        (None, true) => {
            format!("{origin} has no profile at all; a profile looks like this:\n\n{EXAMPLE}")
        }
    }
}

fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let parse = |text: &str| match text {
        "" => Err("the host is empty; give a name or an address".to_owned()),
        _ => Ok(text.to_owned()),
    };
    deserializer
        .deserialize_str(Text {
            expected: "a name or an address as a string",
            parse,
        })
        .map(Some)
}

fn delay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let expected = "a duration as a string, such as \"20ms\"";
    deserializer
        .deserialize_str(Text {
            expected,
            parse: parse_duration,
        })
        .map(Some)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let expected = "a duration as a string, such as \"5m\"";
    deserializer
        .deserialize_str(Text {
            expected,
            parse: parse_seconds,
        })
        .map(Some)
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AddressRule>, D::Error> {
    let expected = "\"auto\", \"observed\" or an address, as a string";
    deserializer
        .deserialize_str(Text {
            expected,
            parse: str::parse::<AddressRule>,
        })
        .map(Some)
}

fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let expected = "a duration as a string, such as \"1s\"";
    deserializer
        .deserialize_str(Text {
            expected,
            parse: parse_timeout,
        })
        .map(Some)
}

fn tcp_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let expected = "a TCP port as a string, such as \"22/tcp\"";
    deserializer
        .deserialize_str(Text {
            expected,
            parse: parse_tcp_port,
        })
        .map(Some)
}

fn sequence<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Port>>, D::Error> {
    let sequence: Vec<Port> = Deserialize::deserialize(deserializer)?;
    if sequence.is_empty() {
        return Err(de::Error::custom(
            "the sequence is empty; list its knocks, such as [\"7000/udp\", \"8443/tcp\"]",
        ));
    }
    Ok(Some(sequence))
}

/// Reads a value from a string, and says what was expected where it is something else.
struct Text<F> {
    expected: &'static str,
    parse: F,
}

impl<T, F: Fn(&str) -> Result<T, String>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests;
