//! What is shown.

use std::{cmp::Ordering, net::IpAddr, rc::Rc, time::Duration};

use ipnet::IpNet;

use super::{
    denied::{Denied, DeniedRow},
    list::{List, Row},
    rates::Rates,
};
use crate::datapath::TableFill;

/// Everything that is drawn, and everything that keys change.
#[derive(Debug, Default)]
pub struct State {
    /// `None`: nothing is up any more.
    pub instance: Option<Instance>,
    /// Why the tables could not be read the last time.
    pub fault: Option<String>,
    pub rates: Rates,
    pub tables: Vec<TableFill>,
    pub grants: List<GrantRow>,
    pub sources: List<SourceRow>,
    pub denied: Denied,
    pub denied_rows: List<DeniedRow>,
    /// How long ago the rows of grants and sources were read, where that is longer than the interval.
    pub stale: Option<Duration>,
    /// The moment that is shown, ns of `CLOCK_MONOTONIC`: it stands still while paused.
    pub now: u64,
    pub panel: Panel,
    pub filter: String,
    pub paused: bool,
    pub dialog: Option<Dialog>,
    pub message: Option<Message>,
}

/// The instance that is up.
#[derive(Debug, Clone, Default)]
pub struct Instance {
    pub interfaces: Vec<InterfaceRow>,
    pub gates: Vec<GateRow>,
    pub up_for: Duration,
    /// Whether `knockgate run` serves it.
    /// `None`: this user may not know.
    pub is_served: Option<bool>,
}

#[derive(Debug, Clone)]
pub struct InterfaceRow {
    pub name: String,
    /// How the program is attached, or why it is not.
    pub attach: Result<&'static str, String>,
    pub mode: &'static str,
    pub try_left: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct GateRow {
    pub name: String,
    pub protect: String,
    /// Live grants.
    pub grants: usize,
}

#[derive(Debug, Clone)]
pub struct GrantRow {
    pub gate_id: u16,
    pub gate: Rc<str>,
    /// `None`: given by hand.
    pub user: Option<Rc<str>>,
    pub source: IpNet,
    /// ns of `CLOCK_MONOTONIC`.
    pub until: u64,
    pub connections: u32,
}

#[derive(Debug, Clone)]
pub struct SourceRow {
    pub source: IpAddr,
    pub step: u8,
    pub of: u8,
    pub gates: Rc<str>,
    /// When its latest knock was, ns of `CLOCK_MONOTONIC`.
    pub latest: u64,
}

/// The list that keys go to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Panel {
    #[default]
    Grants,
    Sources,
    Denied,
}

/// What stands in front of everything and takes the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialog {
    Help,
    /// A filter is being typed; what it was before.
    Filter(String),
    Revoke {
        source: IpNet,
        gate: Rc<str>,
    },
}

/// A line about what was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub text: String,
    pub is_error: bool,
}

impl State {
    /// Sorts and filters every list again.
    pub fn arrange(&mut self) {
        self.grants.arrange(&self.filter);
        self.sources.arrange(&self.filter);
        self.denied_rows.arrange(&self.filter);
    }

    /// Returns the time left of the shortest trial.
    pub fn try_left(&self) -> Option<Duration> {
        let instance = self.instance.as_ref()?;
        let left = instance.interfaces.iter().filter_map(|row| row.try_left);
        left.min()
    }
}

impl Panel {
    pub const ALL: [Self; 3] = [Self::Grants, Self::Sources, Self::Denied];

    pub fn next(self) -> Self {
        match self {
            Self::Grants => Self::Sources,
            Self::Sources => Self::Denied,
            Self::Denied => Self::Grants,
        }
    }

    pub fn previous(self) -> Self {
        self.next().next()
    }
}

impl Row for GrantRow {
    const SORTS: &'static [&'static str] = &["ends first", "ends last", "source", "gate", "user"];

    fn key(&self) -> (IpAddr, u8, u16) {
        (self.source.addr(), self.source.prefix_len(), self.gate_id)
    }

    fn compare(&self, other: &Self, sort: usize) -> Ordering {
        match sort {
            0 => self.until.cmp(&other.until),
            1 => other.until.cmp(&self.until),
            2 => self.source.cmp(&other.source),
            3 => self.gate.cmp(&other.gate),
            _ => self.user.cmp(&other.user),
        }
    }

    fn matches(&self, filter: &str) -> bool {
        self.gate.contains(filter)
            || self.user.as_ref().is_some_and(|user| user.contains(filter))
            || self.source.to_string().contains(filter)
    }
}

impl Row for SourceRow {
    const SORTS: &'static [&'static str] = &["latest", "steps left", "source", "gate"];

    fn key(&self) -> (IpAddr, u8, u16) {
        (self.source, 0, 0)
    }

    fn compare(&self, other: &Self, sort: usize) -> Ordering {
        let left = |row: &Self| row.of.saturating_sub(row.step);
        match sort {
            0 => other.latest.cmp(&self.latest),
            1 => left(self).cmp(&left(other)),
            2 => self.source.cmp(&other.source),
            _ => self.gates.cmp(&other.gates),
        }
    }

    fn matches(&self, filter: &str) -> bool {
        self.gates.contains(filter) || self.source.to_string().contains(filter)
    }
}
