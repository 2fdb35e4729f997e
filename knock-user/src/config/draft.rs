//! The configuration as written: every value is checked by itself, and the values that findings point to have
//! their places.
//!
//! [`super::contradictions`] and [`super::lint`] then compare the values with each other and with the host.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::{
    Addresses, Authenticated, Config, Gate, Hook, Knock, Listen, Metrics, OpenPorts, Trigger,
    fleet::DraftFleet,
    fwknop::written::{DraftFwknop, DraftKey},
    reader::List,
    source::{Located, Span, values},
};
use crate::keys::KeyName;
use crate::values::Port;

/// A file as written. Where an error was found, the value is the default.
#[derive(Default)]
pub(super) struct Draft {
    /// Of the list and of `sections`.
    pub(super) interfaces: Vec<Located<String>>,
    pub(super) sections: Vec<DraftInterface>,
    pub(super) allow: Vec<Located<IpNet>>,
    pub(super) addresses: DraftAddresses,
    /// `None` stands for `auto`.
    pub(super) open_ports: Option<Vec<Located<Port>>>,
    pub(super) metrics: DraftMetrics,
    pub(super) knock: DraftAuthenticated,
    pub(super) fleet: Option<DraftFleet>,
    pub(super) fwknop: DraftFwknop,
    pub(super) gates: Vec<DraftGate>,
    /// The keys that no finding points to; the others are blank here.
    pub(super) rest: Config,
}

/// An `[[interface]]` as written.
#[derive(Clone, Default)]
pub(super) struct DraftInterface {
    /// Empty where it could not be read.
    pub(super) name: Located<String>,
    /// `None` stands for `none`.
    pub(super) next: Option<Located<PathBuf>>,
}

/// `addresses` as written.
pub(super) enum DraftAddresses {
    /// This host's own.
    Host,
    Listed(Vec<Located<IpAddr>>),
}

impl Default for DraftAddresses {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl DraftAddresses {
    /// Returns the addresses that the file lists.
    pub(super) fn listed(&self) -> &[Located<IpAddr>] {
        match self {
            Self::Host => &[],
            Self::Listed(listed) => listed,
        }
    }
}

/// `[metrics]` as written.
#[derive(Default)]
pub(super) struct DraftMetrics {
    /// `None` stands for `off`.
    pub(super) listen: Option<Located<Listen>>,
}

/// `[knock]` as written.
#[derive(Default)]
pub(super) struct DraftAuthenticated {
    pub(super) ports: Vec<Located<Port>>,
    /// The keys that no finding points to; the others are blank here.
    pub(super) rest: Authenticated,
}

/// A `[[gate]]` as written.
#[derive(Clone, Default)]
pub(super) struct DraftGate {
    /// Where the section begins.
    pub(super) header: Span,
    /// Empty where it could not be read.
    pub(super) name: Located<String>,
    pub(super) protect: Vec<Located<Port>>,
    pub(super) protect_at: Vec<Located<IpNet>>,
    pub(super) open_for: Located<Duration>,
    pub(super) knocks: Vec<DraftKnock>,
    pub(super) hooks: Vec<DraftHook>,
    pub(super) fwknop: Vec<DraftKey>,
    /// The keys that no finding points to; the others are blank here.
    pub(super) rest: Gate,
}

/// A `[[gate.knock]]` as written.
#[derive(Clone, Default)]
pub(super) struct DraftKnock {
    /// Empty where it could not be read.
    pub(super) user: Located<String>,
    /// Then there is no sequence.
    pub(super) key: Option<Located<KeyName>>,
    pub(super) sequence: List<Port>,
    pub(super) within: Located<Duration>,
}

/// A `[[gate.hook]]` as written.
#[derive(Clone, Default)]
pub(super) struct DraftHook {
    pub(super) on: Trigger,
    /// The program and its arguments.
    pub(super) run: List<String>,
}

impl Draft {
    /// Turns a draft in which no error was found into the configuration.
    pub(super) fn into_config(self) -> Config {
        let Self {
            interfaces,
            sections,
            allow,
            addresses,
            open_ports,
            metrics: DraftMetrics { listen },
            knock,
            fleet,
            fwknop,
            gates,
            rest,
        } = self;
        let next = sections
            .into_iter()
            .filter_map(|section| Some((section.name.value, section.next?.value)));
        Config {
            interfaces: values(interfaces),
            next: next.collect(),
            allow: values(allow),
            addresses: match addresses {
                DraftAddresses::Host => Addresses::Host,
                DraftAddresses::Listed(listed) => values(listed).into(),
            },
            open_ports: open_ports.map_or(OpenPorts::Auto, |ports| OpenPorts::List(values(ports))),
            metrics: Metrics {
                listen: listen.map(|listen| listen.value),
            },
            knock: Authenticated {
                ports: values(knock.ports),
                ..knock.rest
            },
            fleet: fleet.map(DraftFleet::into_fleet),
            fwknop: fwknop.into_fwknop(),
            gates: gates.into_iter().map(DraftGate::into_gate).collect(),
            ..rest
        }
    }
}

impl DraftGate {
    /// Returns the knocks that are sequences.
    pub(super) fn sequences(&self) -> impl Iterator<Item = &DraftKnock> {
        self.knocks.iter().filter(|knock| knock.key.is_none())
    }

    /// Returns the keys that its knocks name.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Located<KeyName>> {
        self.knocks.iter().filter_map(|knock| knock.key.as_ref())
    }

    /// Returns whether it protects its ports at this address of the host. `addresses`: as the file has them.
    pub(super) fn guards_own(&self, own: IpAddr, addresses: &DraftAddresses) -> bool {
        if self.protect_at.is_empty() {
            let listed = addresses.listed();
            listed.is_empty() || listed.iter().any(|address| address.value == own)
        } else {
            let mut networks = self.protect_at.iter();
            networks.any(|network| network.value.contains(&own))
        }
    }

    /// Returns what messages call this gate.
    pub(super) fn label(&self) -> impl fmt::Display {
        match self.name.value.as_str() {
            "" => "a gate without a name".to_owned(),
            name => format!("gate {name:?}"),
        }
    }

    fn into_gate(self) -> Gate {
        let Self {
            header: _,
            name,
            protect,
            protect_at,
            open_for,
            knocks,
            hooks,
            fwknop,
            rest,
        } = self;
        let (keys, sequences): (Vec<_>, Vec<_>) =
            knocks.into_iter().partition(|knock| knock.key.is_some());
        Gate {
            name: name.value,
            protect: values(protect),
            protect_at: values(protect_at),
            open_for: open_for.value,
            knocks: sequences.into_iter().map(DraftKnock::into_knock).collect(),
            keys: values(keys.into_iter().filter_map(|knock| knock.key).collect()),
            hooks: hooks.into_iter().map(DraftHook::into_hook).collect(),
            fwknop: fwknop.into_iter().map(DraftKey::into_key).collect(),
            ..rest
        }
    }
}

impl DraftKnock {
    /// Returns what messages call the user of this sequence.
    pub(super) fn label(&self) -> impl fmt::Display {
        match self.user.value.as_str() {
            "" => "a user without a name".to_owned(),
            user => format!("user {user:?}"),
        }
    }

    fn into_knock(self) -> Knock {
        let Self {
            user,
            key: _,
            sequence,
            within,
        } = self;
        Knock {
            user: user.value,
            sequence: values(sequence.items),
            within: within.value,
        }
    }
}

impl DraftHook {
    fn into_hook(self) -> Hook {
        let Self { on, run } = self;
        Hook {
            on,
            run: values(run.items),
        }
    }
}
