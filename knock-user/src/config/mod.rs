//! The configuration: a TOML file becomes a checked [`Config`], the only form the rest takes.
//!
//! A file is first read value by value into a `draft`, which keeps the place of everything for
//! messages; `contradictions` then refuses what doesn't fit together and `lint` warns of what is weak.
//! Each step collects all it finds, so one run shows everything there is to repair.

mod contradictions;
mod draft;
mod duration;
mod finding;
mod kinds;
mod lint;
mod nearest;
mod port;
mod reader;
mod schema;
mod surroundings;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use self::{
    contradictions::contradictions,
    draft::Draft,
    finding::Source,
    lint::{file_mode, lint},
};
pub use self::{
    duration::{HumanDuration, parse_duration},
    finding::{Finding, Invalid, Level},
    port::{Port, Protocol},
    surroundings::{SshSession, Surroundings, connections, ephemeral_ports, listening_ports},
};
pub(crate) use self::{
    finding::count,
    kinds::{parse_interface, parse_name, zone_fault},
    nearest::nearest,
};

/// Where the configuration is looked for when `--config` doesn't say.
pub const DEFAULT_PATH: &str = "/etc/knockgate/knockgate.toml";

/// A million knocks take well under half of this.
const LARGEST_FILE: u64 = 128 * 1024 * 1024;

/// A whole configuration, checked: every value is in its bounds and none contradicts another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Interfaces to guard; may be empty, since the command line can name them as well.
    pub interfaces: Vec<String>,
    pub attach: Attach,
    pub mode: Mode,
    /// Networks that no gate ever closes on.
    pub allow: Vec<IpNet>,
    /// Guard only packets to these destinations; empty: every destination.
    pub addresses: Vec<IpAddr>,
    pub open_ports: OpenPorts,
    pub limits: Limits,
    /// In the order of the file; names are unique.
    pub gates: Vec<Gate>,
}

/// How the program is put on an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// Native where the driver can, else generic with a warning.
    #[default]
    Auto,
    Native,
    Generic,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Enforce,
    /// Count what would be denied, deny nothing.
    Monitor,
}

/// Ports on which packets are no probes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenPorts {
    /// The ports that this host listens on.
    #[default]
    Auto,
    List(Vec<Port>),
}

/// Sizes of the kernel tables, in entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub sources: u32,
    pub grants: u32,
    pub sessions: u32,
}

/// One protected service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    pub name: String,
    /// At least one, and none that another gate guards.
    pub protect: Vec<Port>,
    pub open_for: Duration,
    /// A flow ends after this long without a packet.
    pub session_idle: Duration,
    pub established: Established,
    /// New connections that one grant admits; 0: any number.
    pub connections: u32,
    pub grant_to: GrantTo,
    pub deny: Deny,
    /// Networks that may knock; empty: every network.
    pub sources: Vec<IpNet>,
    /// May be empty: the gate then opens by hand only. Users are unique within a gate.
    pub knocks: Vec<Knock>,
}

/// What becomes of a flow when the grant ends under which it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Established {
    /// It goes on.
    #[default]
    Keep,
    /// It ends too.
    Cut,
}

/// Whom a completed sequence opens the gate for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantTo {
    /// The source address alone.
    #[default]
    Address,
    /// The source's /24 (IPv4) or /64 (IPv6).
    Prefix,
}

/// What becomes of a packet that may not pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deny {
    /// Silence.
    #[default]
    Drop,
    /// What a closed port of this host answers.
    Reject,
}

/// One user's way to open a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock {
    pub user: String,
    /// 2 to 12 knocks; no sequence of the configuration ends with another.
    pub sequence: Vec<Port>,
    /// The longest time from the first knock to the last.
    pub within: Duration,
}

impl Config {
    /// Reads and checks the file at `path`, and lints it for this host.
    ///
    /// The findings beside the configuration are warnings, in the order of the file. A file that is
    /// missing or can't be read is [`Invalid`] too.
    pub fn load(path: &Path) -> Result<(Self, Vec<Finding>), Invalid> {
        let name = path.display().to_string();
        let (text, mode) = read(path).map_err(|error| unreadable(&name, &error))?;
        let (config, mut findings) = Self::parse_on(&text, &name, &Surroundings::of_this_host())?;
        findings.extend(mode.and_then(|mode| file_mode(&name, mode)));
        Ok((config, findings))
    }

    /// Checks `text`, which messages call `name`, and warns of what is weak wherever it runs.
    pub fn parse(text: &str, name: &str) -> Result<(Self, Vec<Finding>), Invalid> {
        Self::parse_on(text, name, &Surroundings::default())
    }

    /// As [`Config::parse`], and warns of what is weak or risky in these surroundings.
    pub fn parse_on(
        text: &str,
        name: &str,
        surroundings: &Surroundings,
    ) -> Result<(Self, Vec<Finding>), Invalid> {
        let source = Source::new(name, text);
        let document = DeTable::parse(text).map_err(|error| {
            let span = error.span().unwrap_or_default().into();
            let message = format!("this is not valid TOML: {}", error.message());
            Invalid::new(
                name,
                vec![source.finding(Level::Error, "syntax", span, message)],
            )
        })?;
        let (draft, mut errors) = Draft::read(&source, document.get_ref());
        errors.extend(contradictions(&draft, &source));
        if !errors.is_empty() {
            return Err(Invalid::new(name, in_order(errors)));
        }
        let warnings = in_order(lint(&draft, &source, surroundings));
        Ok((draft.into_config(), warnings))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sources: 262_144,
            grants: 65_536,
            sessions: 262_144,
        }
    }
}

impl Attach {
    const WORDS: [(&'static str, Self); 3] = [
        ("auto", Self::Auto),
        ("native", Self::Native),
        ("generic", Self::Generic),
    ];
}

impl Mode {
    const WORDS: [(&'static str, Self); 2] =
        [("enforce", Self::Enforce), ("monitor", Self::Monitor)];
}

impl Established {
    const WORDS: [(&'static str, Self); 2] = [("keep", Self::Keep), ("cut", Self::Cut)];
}

impl GrantTo {
    const WORDS: [(&'static str, Self); 2] = [("address", Self::Address), ("prefix", Self::Prefix)];
}

impl Deny {
    const WORDS: [(&'static str, Self); 2] = [("drop", Self::Drop), ("reject", Self::Reject)];
}

impl Gate {
    const DEFAULT_OPEN_FOR: Duration = Duration::from_secs(30);
    /// An idle connection is kept alive by TCP after two hours, at the latest 11 minutes and 15 seconds later
    /// (`tcp_keepalive_time`, `_probes` and `_intvl`).
    const DEFAULT_SESSION_IDLE: Duration = Duration::from_hours(3);
}

impl Knock {
    const DEFAULT_WITHIN: Duration = Duration::from_secs(10);
}

/// The text of a file and, for a regular one, its mode.
fn read(path: &Path) -> io::Result<(String, Option<u32>)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut text = String::new();
    file.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok((
        text,
        metadata.is_file().then(|| metadata.permissions().mode()),
    ))
}

fn unreadable(name: &str, error: &io::Error) -> Invalid {
    let message = match error.kind() {
        io::ErrorKind::NotFound if name == DEFAULT_PATH => {
            "there is no configuration file; `knockgate init` writes one to start from".to_owned()
        }
        io::ErrorKind::NotFound => format!(
            "there is no configuration file; `knockgate init --config {name}` writes one to start from"
        ),
        io::ErrorKind::PermissionDenied => {
            "not permitted to read this file; run as its owner or as root (CAP_DAC_READ_SEARCH)"
                .to_owned()
        }
        io::ErrorKind::InvalidData => "this file is not UTF-8 text; save it as UTF-8".to_owned(),
        io::ErrorKind::IsADirectory => "this is a directory; name the file in it".to_owned(),
        io::ErrorKind::FileTooLarge => {
            format!(
                "this file is larger than {} MiB, the most that is read",
                LARGEST_FILE >> 20
            )
        }
        _ if error.raw_os_error() == Some(libc::EMFILE) => {
            "this file can't be read, since this process may open no more files; raise its limit with \
             `ulimit -n 1024`"
                .to_owned()
        }
        _ => format!("this file can't be read: {error}"),
    };
    Invalid::unreadable(
        name,
        message,
        error.kind() == io::ErrorKind::PermissionDenied,
    )
}

fn in_order(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| (finding.line, finding.column));
    findings
}
