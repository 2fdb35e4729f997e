//! The configuration as written: every value checked by itself, together with its place in the file.
//!
//! What values say about each other is judged afterwards, by [`super::contradictions`] and
//! [`super::lint`].

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use toml::de::DeTable;

use super::{
    Attach, Config, Deny, Established, Gate, GrantTo, Knock, Limits, Mode, OpenPorts, Port,
    finding::{Finding, Source, Span},
    reader::{List, Located, Reader},
};

/// A file as written. Where an error was found, its value is missing or the default.
pub(super) struct Draft {
    pub(super) interfaces: Vec<Located<String>>,
    pub(super) attach: Attach,
    pub(super) mode: Mode,
    pub(super) allow: Vec<Located<IpNet>>,
    pub(super) addresses: Vec<Located<IpAddr>>,
    /// `None` stands for `auto`.
    pub(super) open_ports: Option<Vec<Located<Port>>>,
    pub(super) limits: Limits,
    pub(super) gates: Vec<DraftGate>,
}

pub(super) struct DraftGate {
    pub(super) header: Span,
    /// Empty where it could not be read.
    pub(super) name: Located<String>,
    pub(super) protect: Vec<Located<Port>>,
    pub(super) open_for: Located<Duration>,
    pub(super) session_idle: Duration,
    pub(super) established: Established,
    pub(super) connections: u32,
    pub(super) grant_to: GrantTo,
    pub(super) deny: Deny,
    pub(super) sources: Vec<IpNet>,
    pub(super) knocks: Vec<DraftKnock>,
}

pub(super) struct DraftKnock {
    /// Empty where it could not be read.
    pub(super) user: Located<String>,
    pub(super) sequence: List<Port>,
    pub(super) within: Located<Duration>,
}

impl Draft {
    /// Reads the whole document; the draft may become a [`Config`] only if nothing was found.
    pub(super) fn read(source: &Source<'_>, document: &DeTable<'_>) -> (Self, Vec<Finding>) {
        let mut reader = Reader::new(source);
        let draft = reader.draft(document);
        (draft, reader.findings)
    }

    pub(super) fn into_config(self) -> Config {
        let Self {
            interfaces,
            attach,
            mode,
            allow,
            addresses,
            open_ports,
            limits,
            gates,
        } = self;
        Config {
            interfaces: values(interfaces),
            attach,
            mode,
            allow: values(allow),
            addresses: values(addresses),
            open_ports: open_ports.map_or(OpenPorts::Auto, |ports| OpenPorts::List(values(ports))),
            limits,
            gates: gates.into_iter().map(DraftGate::into_gate).collect(),
        }
    }
}

impl DraftGate {
    fn into_gate(self) -> Gate {
        let Self {
            header: _,
            name,
            protect,
            open_for,
            session_idle,
            established,
            connections,
            grant_to,
            deny,
            sources,
            knocks,
        } = self;
        let knock = |DraftKnock {
                         user,
                         sequence,
                         within,
                     }| Knock {
            user: user.value,
            sequence: values(sequence.items),
            within: within.value,
        };
        Gate {
            name: name.value,
            protect: values(protect),
            open_for: open_for.value,
            session_idle,
            established,
            connections,
            grant_to,
            deny,
            sources,
            knocks: knocks.into_iter().map(knock).collect(),
        }
    }
}

pub(super) fn values<T>(items: Vec<Located<T>>) -> Vec<T> {
    items.into_iter().map(|item| item.value).collect()
}
