//! `[fleet]`: the hosts that open their gates together, and the etcd members over which they do so.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{
    kinds::{ENDPOINT, FILE, NAME},
    reader::{Field, List, Reader},
    schema::put,
    section::{
        Presence::{Optional, Required},
        Row, Section,
    },
    source::{Findings, Located, Span, values},
};
use crate::values::parse_name;

/// What a host needs to be one of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// All hosts of the fleet have the same, and no other fleet on these members has it.
    pub name: String,
    /// The etcd members: `https://HOST:PORT`, at least one.
    pub endpoints: Vec<String>,
    /// What the other hosts call this one; `None`: by [the host's name](Fleet::host_name).
    pub host: Option<String>,
    /// The certificates of those who may sign for etcd members, PEM.
    pub ca: PathBuf,
    /// The certificate that this host shows them, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The fleet's keys, at least one: the first signs, all verify.
    pub keys: Vec<PathBuf>,
    pub replay: Replay,
}

/// When an authenticated knock opens a gate of a fleet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Replay {
    /// At once. The other hosts refuse the packet as soon as they have heard of it.
    #[default]
    Fast,
    /// After etcd has agreed that no other host has accepted the packet; never while it is unreachable.
    Strict,
}

impl Fleet {
    /// Returns what the other hosts call this one.
    pub fn host_name(&self) -> Result<String> {
        if let Some(host) = &self.host {
            return Ok(host.clone());
        }
        let path = "/proc/sys/kernel/hostname";
        let name = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        parse_name(name.trim_end()).map_err(|why| {
            anyhow!("the name of this host is no name in a fleet: {why}; set `host` in [fleet]")
        })
    }
}

/// `[fleet]` as written.
#[derive(Clone, Default)]
pub(super) struct DraftFleet {
    /// Where the section begins.
    pub(super) header: Span,
    pub(super) name: String,
    pub(super) endpoints: Vec<Located<String>>,
    pub(super) host: Option<String>,
    pub(super) ca: Located<PathBuf>,
    pub(super) cert: Located<PathBuf>,
    pub(super) key: Located<PathBuf>,
    pub(super) keys: Vec<Located<PathBuf>>,
    pub(super) replay: Replay,
}

pub(super) const FLEET: Section<DraftFleet> = Section {
    title: "[fleet]",
    place: "in [fleet]",
    about: "Hosts that open their gates together: a knock that one of them accepts opens the gate on all, over etcd. Only the
service (`knockgate run`) takes part. One host alone needs none of this.",
    rows: &[
        Row::new(
            "name",
            Required(r#""edge-fra""#),
            "The name of the fleet, the same on all its hosts.",
            |reader, field, fleet| {
                put(&mut fleet.name, reader.one(field, &NAME).map(|it| it.value));
            },
        ),
        Row::new(
            "endpoints",
            Required(r#"["https://etcd1:2379", "https://etcd2:2379", "https://etcd3:2379"]"#),
            "The etcd members. They and this host prove to each other who they are, so only https will do.",
            |reader, field, fleet| put(&mut fleet.endpoints, endpoints(reader, field)),
        ),
        Row::new(
            "host",
            Optional(r#""""#),
            r#"What the other hosts call this one; "": by the host's name."#,
            |reader, field, fleet| {
                if field.value.get_ref().as_str() != Some("") {
                    fleet.host = reader.one(field, &NAME).map(|it| it.value);
                }
            },
        ),
        Row::new(
            "ca",
            Optional(r#""/etc/knockgate/fleet/ca.pem""#),
            "The certificate of the authority that signs for the etcd members.",
            |reader, field, fleet| put(&mut fleet.ca, reader.one(field, &FILE)),
        ),
        Row::new(
            "cert",
            Optional(r#""/etc/knockgate/fleet/host.pem""#),
            "The certificate that this host shows to them.",
            |reader, field, fleet| put(&mut fleet.cert, reader.one(field, &FILE)),
        ),
        Row::new(
            "key",
            Optional(r#""/etc/knockgate/fleet/host.key""#),
            "The private key of that certificate. Only its owner may read it (mode 0600).",
            |reader, field, fleet| put(&mut fleet.key, reader.one(field, &FILE)),
        ),
        Row::new(
            "keys",
            Optional(r#"["/etc/knockgate/fleet/fleet.key"]"#),
            "The fleet's keys, which `knockgate fleet key new FILE` makes: the first signs what this host tells the others,
each of them verifies what they tell it. Only their owner may read them (mode 0600).",
            |reader, field, fleet| put(&mut fleet.keys, keys(reader, field)),
        ),
        Row::new(
            "replay",
            Optional(r#""fast""#),
            r#"When an authenticated knock opens a gate: "fast": at once, or "strict": after etcd has agreed that no other host
has accepted the packet, and so never while etcd is unreachable."#,
            |reader, field, fleet| put(&mut fleet.replay, reader.choice(field)),
        ),
    ],
};

fn endpoints(reader: &mut Reader<'_, '_>, field: Field<'_, '_>) -> Option<Vec<Located<String>>> {
    let list = reader.set(field, &ENDPOINT)?;
    not_empty(reader, field.key, &list, "https://etcd1:2379");
    Some(list.items)
}

fn keys(reader: &mut Reader<'_, '_>, field: Field<'_, '_>) -> Option<Vec<Located<PathBuf>>> {
    // A key itself in place of the list would be quoted.
    if field.value.get_ref().as_str().is_some() {
        let message = "`keys` must be a list of files: write brackets around it";
        let findings = &mut *reader.findings;
        findings.error("wrong-type", field.span(), message.to_owned());
        return None;
    }
    let list = reader.list(field, &FILE)?;
    not_empty(reader, field.key, &list, "/etc/knockgate/fleet/fleet.key");
    let findings = &mut *reader.findings;
    findings.duplicates(&list.items, "duplicate-entry", |path, line| {
        let path = path.display();
        format!("`keys`: {path} is listed already, on line {line}: leave one out")
    });
    Some(list.items)
}

fn not_empty<T>(reader: &mut Reader<'_, '_>, key: &str, list: &List<T>, example: &str) {
    if list.written == 0 {
        let message = format!("`{key}` is empty: list at least one, such as [\"{example}\"]");
        reader.findings.error("empty-list", list.span, message);
    }
}

/// Refuses the section where this build has nothing for it: a host that silently is none of its fleet would look like one.
pub(super) fn require_feature(findings: &mut Findings<'_>, header: Span) {
    if !cfg!(feature = "fleet") {
        let message = "this knockgate was built without the feature `fleet`: install a build that has it, or leave [fleet] \
                       out";
        findings.error("built-without-fleet", header, message.to_owned());
    }
}

impl DraftFleet {
    /// Returns the defaults of a section that begins at `header`: they stand nowhere else.
    pub(super) fn defaults(header: Span) -> Self {
        let mut fleet = FLEET.defaults();
        fleet.header = header;
        let files = [&mut fleet.ca, &mut fleet.cert, &mut fleet.key];
        for file in files.into_iter().chain(&mut fleet.keys) {
            file.span = header;
        }
        fleet
    }

    pub(super) fn into_fleet(self) -> Fleet {
        let Self {
            header: _,
            name,
            endpoints,
            host,
            ca,
            cert,
            key,
            keys,
            replay,
        } = self;
        Fleet {
            name,
            endpoints: values(endpoints),
            host,
            ca: ca.value,
            cert: cert.value,
            key: key.value,
            keys: values(keys),
            replay,
        }
    }
}
