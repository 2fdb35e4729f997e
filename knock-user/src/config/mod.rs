//! The configuration: a TOML file becomes a checked [`Config`], the only form the rest takes.
//!
//! `schema` has one row for each key. By these rows a file is read value by value into a `draft`, which keeps
//! the places that messages point to. `contradictions` then refuses values that do not fit together, and `lint`
//! warns of weak ones. Each step collects everything that it finds, so one run shows all there is to repair.

mod addresses;
mod contradictions;
mod draft;
mod file;
mod finding;
mod fleet;
pub mod fwknop;
mod hook;
mod host;
mod kinds;
mod lint;
mod listen;
mod reader;
mod schema;
mod section;
mod source;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use ipnet::IpNet;
use knock_common::{
    Address as _,
    address::{V4, V6},
};
use serde::{Deserialize, Serialize};
use toml::de::DeTable;
use zeroize::Zeroizing;

pub use self::{
    addresses::Addresses,
    finding::{Finding, Invalid, Level},
    fleet::{Fleet, Replay},
    hook::{Alert, EVENT_KEYS, Hook, Per, Trigger},
    host::{HostFacts, SshSession, connections, ephemeral_ports, listening_ports},
    listen::Listen,
    schema::SECTIONS,
    section::{Describe, Key, Presence},
};
use self::{
    contradictions::contradictions,
    lint::lint,
    source::{Findings, Source},
};
pub(crate) use self::{
    finding::count,
    hook::{Piece, pieces},
    kinds::{mapped_fault, parse_interface, parse_pin, zone_fault},
    schema::LONGEST_GRANT,
};
use crate::{keys::KeyName, values::Port};

/// The path of the configuration without `--config`.
pub const DEFAULT_PATH: &str = "/etc/knockgate/knockgate.toml";

/// A whole configuration, checked: every value is in its bounds and none contradicts another.
///
/// [`Default`] makes a blank for the reader to fill, and no configuration: the defaults of the file are in
/// `schema`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Interfaces to guard; may be empty, since the command line can name them as well.
    pub interfaces: Vec<String>,
    /// Where the program is pinned that gets what passes, by interface. Absent from what earlier builds have pinned.
    #[serde(default)]
    pub next: BTreeMap<String, PathBuf>,
    pub attach: Attach,
    /// Absent from what earlier builds have pinned.
    #[serde(default)]
    pub order: Order,
    pub mode: Mode,
    /// Networks to which no gate is ever closed.
    pub allow: Vec<IpNet>,
    pub addresses: Addresses,
    pub open_ports: OpenPorts,
    pub limits: Limits,
    /// Absent from what earlier builds have pinned.
    #[serde(default)]
    pub alert: Alert,
    #[serde(default)]
    pub metrics: Metrics,
    #[serde(default)]
    pub knock: Authenticated,
    /// `None`: this host is alone. Absent from what earlier builds have pinned.
    #[serde(default)]
    pub fleet: Option<Fleet>,
    /// Absent from what earlier builds have pinned.
    #[serde(default)]
    pub fwknop: fwknop::Fwknop,
    /// In the order of the file; names are unique.
    pub gates: Vec<Gate>,
}

/// How the program is attached to an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// Native where the driver can, else TCX where the kernel has it, else generic; with a warning.
    #[default]
    Auto,
    Native,
    Generic,
    /// At TCX (since Linux 6.6).
    Tcx,
}

/// Where the program is among others at TCX.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// In front of all others.
    #[default]
    First,
    /// Behind those that are there when it is attached.
    Last,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Enforce,
    /// Count what would be denied, deny nothing.
    Monitor,
}

/// Ports on which packets are not probes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenPorts {
    /// The ports on which this host listens.
    #[default]
    Auto,
    List(Vec<Port>),
}

/// Sizes of the kernel tables, in entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub sources: u32,
    pub grants: u32,
    pub sessions: u32,
    /// Slots of keys. Absent from what earlier builds have pinned.
    #[serde(default)]
    pub keys: u32,
}

/// Authenticated knocks: where they are sent, how old they may be, and where their keys are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticated {
    /// UDP ports, none of which is in a sequence; empty: none are accepted.
    pub ports: Vec<Port>,
    /// How far the time of a packet may be behind the clock of this host.
    pub max_age: Duration,
    /// How far the time of a packet may be ahead of the clock of this host.
    pub max_ahead: Duration,
    /// The folder with the keys.
    pub keys: PathBuf,
}

/// How the service hands out its metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// `None`: not at all.
    pub listen: Option<Listen>,
}

/// One protected service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    pub name: String,
    /// At least one, and none that another gate guards.
    pub protect: Vec<Port>,
    /// The destinations at which it protects them, in place of [`Config::addresses`]; empty: those.
    #[serde(default)]
    pub protect_at: Vec<IpNet>,
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
    /// May be empty, as `keys` may: then only grants by hand open the gate. Users are unique within a gate.
    pub knocks: Vec<Knock>,
    /// The keys that may open it, beside those whose own files name it. Absent from what earlier builds have pinned.
    #[serde(default)]
    pub keys: Vec<KeyName>,
    /// Absent from what earlier builds have pinned.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// Clients of fwknop. Absent from what earlier builds have pinned.
    #[serde(default)]
    pub fwknop: Vec<fwknop::Key>,
}

/// What becomes of a flow when the grant ends under which it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Established {
    /// It goes on.
    #[default]
    Keep,
    /// It ends too.
    Cut,
}

/// Who may pass after a completed sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum GrantTo {
    /// The source address alone.
    #[default]
    Address,
    /// The source's /24 (IPv4) or /64 (IPv6).
    Prefix,
}

impl GrantTo {
    /// Returns the network that a knock from this address gets a grant for.
    pub fn network(self, address: IpAddr) -> IpNet {
        let length = match (self, address) {
            (Self::Address, IpAddr::V4(_)) => V4::BITS,
            (Self::Address, IpAddr::V6(_)) => V6::BITS,
            (Self::Prefix, IpAddr::V4(_)) => V4::PREFIX,
            (Self::Prefix, IpAddr::V6(_)) => V6::PREFIX,
        };
        IpNet::new(address, length).map_or_else(|_| address.into(), |network| network.trunc())
    }
}

/// What is done with a packet that may not pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Deny {
    /// It is dropped.
    #[default]
    Drop,
    /// It is answered as by a closed port of this host.
    Reject,
}

/// One user's sequence that opens a gate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock {
    pub user: String,
    /// 2 to 12 knocks; no sequence of the configuration ends with another.
    pub sequence: Vec<Port>,
    /// The longest time from the first knock to the last.
    pub within: Duration,
}

impl Gate {
    /// Returns whether it has destinations of its own.
    pub fn is_placed(&self) -> bool {
        !self.protect_at.is_empty()
    }

    /// Returns the names of all who may open it, once for each way to do so.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        let knocks = self.knocks.iter().map(|knock| knock.user.as_str());
        knocks.chain(self.fwknop.iter().map(|key| key.user.as_str()))
    }

    /// Returns one of [`Gate::users`] by its place among them.
    pub fn user(&self, place: usize) -> Option<&str> {
        let name = match place.checked_sub(self.knocks.len()) {
            None => &self.knocks.get(place)?.user,
            Some(place) => &self.fwknop.get(place)?.user,
        };
        Some(name)
    }
}

/// Which programs follow on the interfaces of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Following {
    None,
    /// The same one on every interface.
    Same,
    /// By interface.
    Various,
}

impl Config {
    /// Guards these interfaces in place of those that the file names.
    pub fn guard_only(&mut self, interfaces: &[String]) {
        self.interfaces = interfaces.to_vec();
        self.next.retain(|name, _| interfaces.contains(name));
    }

    /// Returns how many programs follow.
    pub fn following(&self) -> Following {
        let mut next = self.interfaces.iter().map(|name| self.next.get(name));
        let first = next.next().flatten();
        match first {
            _ if self.next.is_empty() => Following::None,
            Some(_) if next.all(|other| other == first) => Following::Same,
            _ => Following::Various,
        }
    }

    /// Returns whether a program follows on each interface.
    pub fn all_followed(&self) -> bool {
        self.interfaces
            .iter()
            .all(|name| self.next.contains_key(name))
    }

    /// Returns the slot of the program that follows on an interface, and where it is pinned.
    pub fn next_of(&self, interface: &str) -> Option<(u32, &Path)> {
        let pin = self.next.get(interface)?;
        let slot = match self.following() {
            Following::None => return None,
            Following::Same => 0,
            Following::Various => self.next.keys().position(|name| name == interface)?,
        };
        Some((u32::try_from(slot).ok()?, pin))
    }

    /// Returns whether a gate protects its ports at an address of this host.
    pub fn guards_own(&self, gate: &Gate, own: IpAddr) -> bool {
        if gate.is_placed() {
            gate.protect_at.iter().any(|network| network.contains(&own))
        } else {
            self.addresses.guard_own(own)
        }
    }

    /// Returns whether clients of fwknop may open a gate.
    pub fn has_fwknop(&self) -> bool {
        self.gates.iter().any(|gate| !gate.fwknop.is_empty())
    }

    /// Returns whether what an authenticated knock opens waits for the fleet.
    pub fn holds_knocks(&self) -> bool {
        let fleet = self.fleet.as_ref();
        fleet.is_some_and(|fleet| fleet.replay == Replay::Strict) && !self.knock.ports.is_empty()
    }

    /// Reads and checks the file at `path`, and warns of what is weak or risky on this host.
    ///
    /// The findings beside the configuration are warnings, in the order of the file, and errors about the keys in their folder:
    /// the file itself is valid, and `up` refuses the keys. A file that is
    /// missing or cannot be read is [`Invalid`] too, and one with sequences that others can read.
    pub fn load(path: &Path) -> Result<(Self, Vec<Finding>), Invalid> {
        Self::load_on(path, &HostFacts::of_this_host())
    }

    /// As [`Config::load`], for those who show no warnings: asks nothing of this host, and reads no keys.
    pub fn load_quietly(path: &Path) -> Result<Self, Invalid> {
        Self::load_on(path, &HostFacts::default()).map(|(config, _)| config)
    }

    fn load_on(path: &Path, host: &HostFacts) -> Result<(Self, Vec<Finding>), Invalid> {
        let name = path.display().to_string();
        let (text, access) = file::read(path).map_err(|error| file::unreadable(&name, &error))?;
        let text = Zeroizing::new(text);
        let (config, mut findings) = Self::parse_on(&text, &name, host)?;
        let is_secret = config.gates.iter().any(|gate| {
            !gate.knocks.is_empty() || !gate.hooks.is_empty() || !gate.fwknop.is_empty()
        });
        if let Some(finding) =
            access.and_then(|access| file::open_to_others(&name, access, is_secret))
        {
            if finding.level == Level::Error {
                return Err(Invalid::new(&name, vec![finding]));
            }
            findings.push(finding);
        }
        Ok((config, findings))
    }

    /// Checks `text`, which messages call `name`, and warns of what is weak on any host.
    pub fn parse(text: &str, name: &str) -> Result<(Self, Vec<Finding>), Invalid> {
        Self::parse_on(text, name, &HostFacts::default())
    }

    /// As [`Config::parse`], and warns of what is weak or risky on this `host`.
    pub fn parse_on(
        text: &str,
        name: &str,
        host: &HostFacts,
    ) -> Result<(Self, Vec<Finding>), Invalid> {
        let mut source = Source::new(name, text);
        let document = match DeTable::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let is_known = |name: &str| {
                    let mut keys = SECTIONS.iter().flat_map(|section| section.keys());
                    keys.any(|key| key.name == name)
                };
                source.hide_unread_secrets(is_known);
                let mut findings = Findings::new(&source);
                let span = error.span().unwrap_or_default().into();
                let message = format!("this is not valid TOML: {}", error.message());
                findings.error("syntax", span, message);
                return Err(Invalid::new(name, findings.in_order()));
            }
        };
        source.hide_secrets(document.get_ref());
        let mut findings = Findings::new(&source);
        let draft = schema::read(&mut findings, document.get_ref());
        contradictions(&mut findings, &draft);
        if !findings.is_empty() {
            return Err(Invalid::new(name, findings.in_order()));
        }
        lint(&mut findings, &draft, host);
        Ok((draft.into_config(), findings.in_order()))
    }
}
