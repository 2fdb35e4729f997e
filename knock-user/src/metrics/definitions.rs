//! The metrics, one row each: name, kind, labels, help, and how its samples are read.
//!
//! To add one, add its row here and in docs/reference.md.

use std::{collections::BTreeMap, iter, time::Duration};

use knock_common::Reason;
use prometheus_client::metrics::MetricType::{self, Counter, Gauge, Histogram};

use super::reading::Reading;
use crate::{
    datapath::{Counters, Interface, LAPSED, Packets, Snapshot, Status, TableFill, verdict},
    service::fleet::{BUCKETS, Counted},
};

/// A metric.
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricType,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    pub(super) samples: fn(&Reading) -> Samples<'_>,
}

/// The samples of a metric, made one by one: with 4,096 gates there are 70,000.
pub type Samples<'r> = Box<dyn Iterator<Item = Sample<'r>> + 'r>;

/// The most labels of a metric.
pub const MOST_LABELS: usize = 3;

/// The values of the labels, in their order, and the value.
pub struct Sample<'r> {
    labels: [&'r str; MOST_LABELS],
    /// How many of these it has: as many as the metric, or none.
    labelled: usize,
    pub value: Value,
}

/// Whole numbers are kept as such: a counter of bytes soon exceeds what a float holds exactly.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Whole(u64),
    Seconds(f64),
    /// How long things took: the sum, and how many there were up to each limit, in s.
    Histogram(f64, Vec<(f64, u64)>),
}

/// Every metric, in the order in which they are written.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "knockgate_up",
        kind: Gauge,
        labels: &["interface", "mode"],
        help: "1: the interface is guarded; 0: it is not, or its trial has lapsed. 0 without labels: nothing is up",
        samples: |reading| match &reading.snapshot {
            Some(_) => Box::new(up(interfaces(reading))),
            None => one(Sample::of([], 0)),
        },
    },
    Metric {
        name: "knockgate_interface_info",
        kind: Gauge,
        labels: &["interface", "attach", "present_name"],
        help: "1 for each guarded interface: how the program is attached (native, generic or tcx), and the interface's present name",
        samples: |reading| Box::new(interfaces(reading).filter_map(attached)),
    },
    Metric {
        name: "knockgate_try_left_seconds",
        kind: Gauge,
        labels: &["interface"],
        help: "Time until the trial lapses; absent where none runs",
        samples: |reading| Box::new(trials(interfaces(reading))),
    },
    Metric {
        name: "knockgate_uptime_seconds",
        kind: Gauge,
        labels: &[],
        help: "Time since the instance came up, when its counters were 0",
        samples: |reading| Box::new(status(reading).map(uptime)),
    },
    Metric {
        name: "knockgate_service_running",
        kind: Gauge,
        labels: &[],
        help: "1: `knockgate run` serves the instance; 0: the kernel enforces without it; absent for users who may not know",
        samples: |reading| {
            let is_served = reading.is_served.into_iter();
            Box::new(is_served.map(|is_served| Sample::of([], is_served.into())))
        },
    },
    Metric {
        name: "knockgate_packets_total",
        kind: Counter,
        labels: &["verdict", "reason", "gate"],
        help: "Packets by verdict and reason; no gate: the packet concerns none",
        samples: |reading| packets(reading, |row| row.packets),
    },
    Metric {
        name: "knockgate_bytes_total",
        kind: Counter,
        labels: &["verdict", "reason", "gate"],
        help: "Bytes of these packets, of whole frames as the program sees them",
        samples: |reading| packets(reading, |row| row.bytes),
    },
    Metric {
        name: "knockgate_knocks_total",
        kind: Counter,
        labels: &["gate", "result"],
        help: "Knocks by gate and result",
        samples: |reading| {
            let knocks = counters(reading).flat_map(|counters| &counters.knocks);
            Box::new(knocks.map(|row| Sample::of([&row.gate, row.result], row.count)))
        },
    },
    Metric {
        name: "knockgate_authenticated_knocks_total",
        kind: Counter,
        labels: &["outcome"],
        help: "Datagrams to ports for authenticated knocks, by what became of them",
        samples: |reading| {
            let knocks = counters(reading).flat_map(|counters| &counters.authenticated);
            Box::new(knocks.map(|row| Sample::of([row.outcome], row.count)))
        },
    },
    Metric {
        name: "knockgate_fwknop_total",
        kind: Counter,
        labels: &["outcome"],
        help: "What looked like packets of fwknop's clients, by outcome; absent without keys for them",
        samples: |reading| {
            let packets = counters(reading).flat_map(|counters| &counters.fwknop);
            Box::new(packets.map(|row| Sample::of([row.outcome], row.count)))
        },
    },
    Metric {
        name: "knockgate_grants",
        kind: Gauge,
        labels: &["gate"],
        help: "Live grants",
        samples: |reading| {
            let gates = status(reading).flat_map(|status| &status.gates);
            Box::new(gates.map(|gate| Sample::of([&gate.name], gate.grants)))
        },
    },
    Metric {
        name: "knockgate_table_entries",
        kind: Gauge,
        labels: &["table"],
        help: "Entries in use of a kernel table",
        samples: |reading| tables(reading, |table| table.used),
    },
    Metric {
        name: "knockgate_table_capacity",
        kind: Gauge,
        labels: &["table"],
        help: "Entries that the table has room for",
        samples: |reading| tables(reading, |table| table.capacity.into()),
    },
    Metric {
        name: "knockgate_events_lost_total",
        kind: Counter,
        labels: &[],
        help: "Events that the kernel program left out: too many in a second, or no room in the ring",
        samples: |reading| {
            let snapshot = reading.snapshot.iter();
            let sample = |snapshot: &Snapshot| Sample::of([], snapshot.events_lost);
            Box::new(snapshot.map(sample))
        },
    },
    Metric {
        name: "knockgate_hooks_failed_total",
        kind: Counter,
        labels: &["reason"],
        help: "Runs of hooks that failed or found no room since the service started; on the service's page only",
        samples: |reading| {
            let failures = reading.hook_failures.iter();
            Box::new(failures.map(|(reason, count)| Sample::of([*reason], *count)))
        },
    },
    Metric {
        name: "knockgate_fleet_connected",
        kind: Gauge,
        labels: &[],
        help: "1: this host knows what the other hosts of its fleet know; 0: it is isolated. This and what follows: on the \
               service's page only, and absent without [fleet]",
        samples: |reading| {
            let sample = |fleet: &Counted| Sample::of([], fleet.isolated.is_none().into());
            Box::new(reading.fleet.iter().map(sample))
        },
    },
    Metric {
        name: "knockgate_fleet_isolated_seconds",
        kind: Gauge,
        labels: &[],
        help: "For how long this host has been isolated; 0: it is not",
        samples: |reading| {
            let lasts = |fleet: &Counted| fleet.isolated.as_ref().map(|isolated| isolated.lasts);
            let sample = move |fleet| Sample::lasting(lasts(fleet).unwrap_or_default());
            Box::new(reading.fleet.iter().map(sample))
        },
    },
    Metric {
        name: "knockgate_fleet_lag_seconds",
        kind: Histogram,
        labels: &[],
        help: "Time from handing a grant to etcd to hearing of it as every other host does",
        samples: |reading| Box::new(reading.fleet.iter().map(lags)),
    },
    Metric {
        name: "knockgate_fleet_published_total",
        kind: Counter,
        labels: &[],
        help: "Grants of this host that etcd has taken, renewals included",
        samples: |reading| fleet(reading, |fleet| fleet.published),
    },
    Metric {
        name: "knockgate_fleet_received_total",
        kind: Counter,
        labels: &[],
        help: "Grants of other hosts that are right here, renewals included",
        samples: |reading| fleet(reading, |fleet| fleet.received),
    },
    Metric {
        name: "knockgate_fleet_refused_total",
        kind: Counter,
        labels: &["reason"],
        help: "What other hosts have said and this host does not use",
        samples: |reading| {
            let refused = reading.fleet.iter().flat_map(|fleet| &fleet.refused);
            Box::new(refused.map(|(reason, count)| Sample::of([*reason], *count)))
        },
    },
    Metric {
        name: "knockgate_build_info",
        kind: Gauge,
        labels: &["version", "kernel_program"],
        help: "1: version of knockgate, and the tag that bpftool shows of the program in the kernel",
        samples: |reading| {
            let snapshot = reading.snapshot.as_ref();
            let tag = snapshot.and_then(|snapshot| snapshot.program_tag.as_deref());
            let labels = [env!("CARGO_PKG_VERSION"), tag.unwrap_or_default()];
            one(Sample::of(labels, 1))
        },
    },
];

/// Reasons for which packets to a protected port pass or are denied. Their counters are there from the start, at 0: the
/// first increase of a counter that only just appears is invisible to `rate()`.
const AT_GATES: [Reason; 5] = [
    Reason::Grant,
    Reason::Session,
    Reason::AllowList,
    Reason::NoGrant,
    Reason::UsedUp,
];

impl<'r> Sample<'r> {
    pub fn labels(&self) -> &[&'r str] {
        &self.labels[..self.labelled]
    }

    fn of<const N: usize>(labels: [&'r str; N], value: u64) -> Self {
        Self::with(labels, Value::Whole(value))
    }

    fn lasting(time: Duration) -> Self {
        Self::with([], Value::Seconds(time.as_secs_f64()))
    }

    fn with<const N: usize>(first: [&'r str; N], value: Value) -> Self {
        let mut labels = [""; MOST_LABELS];
        labels[..N].copy_from_slice(&first);
        Self {
            labels,
            labelled: N,
            value,
        }
    }
}

fn one(sample: Sample<'_>) -> Samples<'_> {
    Box::new(iter::once(sample))
}

fn status(reading: &Reading) -> impl Iterator<Item = &Status> {
    reading.snapshot.iter().map(|snapshot| &snapshot.status)
}

fn counters(reading: &Reading) -> impl Iterator<Item = &Counters> {
    reading.snapshot.iter().map(|snapshot| &snapshot.counters)
}

fn interfaces(reading: &Reading) -> impl Iterator<Item = &Interface> {
    status(reading).flat_map(|status| &status.interfaces)
}

/// Returns the name under which events know an interface, which stays the same when it is renamed.
fn configured(interface: &Interface) -> &str {
    interface.renamed_from.as_deref().unwrap_or(&interface.name)
}

/// Returns whether each configured interface is guarded. One that was renamed and one that has come to its name are both to be.
fn up<'r>(interfaces: impl Iterator<Item = &'r Interface>) -> impl Iterator<Item = Sample<'r>> {
    let mut up = BTreeMap::new();
    for interface in interfaces {
        let is_enforced = interface.guarded && interface.mode != LAPSED;
        *up.entry([configured(interface), interface.mode])
            .or_insert(true) &= is_enforced;
    }
    up.into_iter()
        .map(|(labels, is_up)| Sample::of(labels, is_up.into()))
}

fn attached(interface: &Interface) -> Option<Sample<'_>> {
    let labels = [configured(interface), interface.attach?, &interface.name];
    Some(Sample::of(labels, 1))
}

/// Returns how long the trial goes on, once for each configured interface.
fn trials<'r>(interfaces: impl Iterator<Item = &'r Interface>) -> impl Iterator<Item = Sample<'r>> {
    let of = |interface: &'r Interface| Some((configured(interface), interface.try_left_ms?));
    let left: BTreeMap<&str, u64> = interfaces.filter_map(of).collect();
    left.into_iter().map(|(name, left)| {
        let left = Duration::from_millis(left).as_secs_f64();
        Sample::with([name], Value::Seconds(left))
    })
}

fn fleet(reading: &Reading, value: fn(&Counted) -> u64) -> Samples<'_> {
    let sample = move |fleet| Sample::of([], value(fleet));
    Box::new(reading.fleet.iter().map(sample))
}

fn lags(fleet: &Counted) -> Sample<'_> {
    // Without a limit: the text calls it +Inf.
    let limits = BUCKETS.into_iter().chain([f64::INFINITY]);
    let counts = limits.zip(fleet.lags.iter().copied());
    let value = Value::Histogram(fleet.lag_sum.as_secs_f64(), counts.collect());
    Sample::with([], value)
}

fn uptime(status: &Status) -> Sample<'_> {
    Sample::lasting(status.up_for)
}

fn tables(reading: &Reading, value: fn(&TableFill) -> u64) -> Samples<'_> {
    let tables = status(reading).flat_map(|status| &status.tables);
    Box::new(tables.map(move |table| Sample::of([table.name], value(table))))
}

/// Returns a counter of the packets of each reason at each gate, with those that are 0.
fn packets(reading: &Reading, value: fn(&Packets) -> u64) -> Samples<'_> {
    let mut counted = BTreeMap::new();
    for row in counters(reading).flat_map(|counters| &counters.packets) {
        // Gates that are gone share one name, which is empty.
        let gate = row.gate.as_deref().unwrap_or_default();
        let (_, sum) = counted
            .entry((gate, row.reason))
            .or_insert((row.verdict, 0));
        *sum += value(row);
    }
    let mut other = counted.clone();
    for (gate, reason) in status(reading).flat_map(begun) {
        other.remove(&(gate, reason.name()));
    }
    let begun = status(reading).flat_map(begun).map(move |(gate, reason)| {
        let key = (gate, reason.name());
        let counted = counted.get(&key).copied();
        (key, counted.unwrap_or((verdict(reason), 0)))
    });
    Box::new(
        begun
            .chain(other)
            .map(|((gate, reason), (verdict, count))| Sample::of([verdict, reason, gate], count)),
    )
}

/// Returns the counters that are there from the start: by gate and reason.
fn begun(status: &Status) -> impl Iterator<Item = (&str, Reason)> {
    let is_at_none = |reason: &Reason| !AT_GATES.contains(reason);
    let at_none = Reason::ALL.into_iter().filter(is_at_none);
    let at_none = at_none.map(|reason| ("", reason));
    let gates = status.gates.iter();
    let at_gates = gates.flat_map(|gate| AT_GATES.map(|reason| (&*gate.name, reason)));
    at_none.chain(at_gates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, renamed_from: Option<&str>, guarded: bool) -> Interface {
        Interface {
            name: name.to_owned(),
            index: Some(2),
            attach: guarded.then_some("native"),
            mode: "enforce",
            try_left_ms: Some(1500),
            guarded,
            renamed_from: renamed_from.map(ToOwned::to_owned),
            into: None,
            next: None,
        }
    }

    /// The program stays on an interface that is renamed, and another one may get its name.
    #[test]
    fn an_interface_has_one_sample_and_is_not_up_where_one_of_its_name_is_open() {
        let rows = [
            interface("dmz0", Some("eth0"), true),
            interface("eth0", None, false),
            interface("eth1", None, true),
        ];
        let up: Vec<_> = up(rows.iter())
            .map(|sample| (sample.labels().to_vec(), sample.value))
            .collect();
        assert_eq!(
            up,
            [
                (vec!["eth0", "enforce"], Value::Whole(0)),
                (vec!["eth1", "enforce"], Value::Whole(1)),
            ]
        );
        let left: Vec<_> = trials(rows.iter())
            .map(|sample| (sample.labels().to_vec(), sample.value))
            .collect();
        let whole = Value::Seconds(1.5);
        assert_eq!(left, [(vec!["eth0"], whole.clone()), (vec!["eth1"], whole)]);
    }
}
