//! One event, as `events` prints it; docs/reference.md describes the fields.

use std::{fmt, time::Duration};

use ipnet::IpNet;
use jiff::Timestamp;
use knock_common::{
    event::{Cause, Event, Kind},
    knock::authenticated::key::NO_KEY,
    rules::NO_GATE,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::EVENT_KEYS,
    datapath::{Applied, Datapath, Who, keys::user_of, padded_address},
    sys::clock::monotonic_now,
    values::{Port, Protocol},
};

/// An event, with the fields that apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// RFC 3339, UTC.
    pub time: Timestamp,
    pub event: String,
    /// `interface.lost`, `interface.guarded`: as the configuration calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The key of an authenticated knock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the grant ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// `events.lost`: how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// `alert`: how many knocks have failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// `hook.failed`: the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// The host of the fleet that gave the grant, or that the event is about; absent: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

impl Record {
    /// The keys, in the order of [`Record::fields`].
    pub const KEYS: [&'static str; 16] = EVENT_KEYS;

    /// Returns the keys that apply, with their values as text.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let Self {
            time,
            event,
            interface,
            gate,
            user,
            key,
            source,
            port,
            step,
            of,
            reason,
            until,
            lost,
            failures,
            hook,
            origin,
        } = self;
        let values = [
            Some(shown(*time)),
            Some(event.clone()),
            interface.clone(),
            gate.clone(),
            user.clone(),
            key.clone(),
            source.clone(),
            port.map(|port| port.to_string()),
            step.map(|step| step.to_string()),
            of.map(|of| of.to_string()),
            reason.clone(),
            until.map(shown),
            lost.map(|lost| lost.to_string()),
            failures.map(|failures| failures.to_string()),
            hook.clone(),
            origin.clone(),
        ];
        let fields = Self::KEYS.into_iter().zip(values);
        fields
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }

    /// Makes an event of this moment, with nothing but its name.
    pub fn now(event: &str) -> Self {
        Self {
            time: Timestamp::now(),
            event: event.to_owned(),
            interface: None,
            gate: None,
            user: None,
            key: None,
            source: None,
            port: None,
            step: None,
            of: None,
            reason: None,
            until: None,
            lost: None,
            failures: None,
            hook: None,
            origin: None,
        }
    }

    /// Logs it: the keys as fields, and all but the time as the message, since a log has times of its own.
    pub fn log(&self) {
        let Self {
            time,
            event,
            interface,
            gate,
            user,
            key,
            source,
            port,
            step,
            of,
            reason,
            until,
            lost,
            failures,
            hook,
            origin,
        } = self;
        let line = self.to_string();
        let message = line.split_once(' ').map_or(&*line, |(_, rest)| rest);
        tracing::info!(
            time = time.to_string(),
            event = event,
            interface = interface,
            gate = gate,
            user = user,
            key = key,
            source = source,
            port = port.map(|port| port.to_string()),
            step = step,
            of = of,
            reason = reason,
            until = until.map(|until| until.to_string()),
            lost = lost,
            failures = failures,
            hook = hook,
            origin = origin,
            "{message}"
        );
    }

    /// Reads a report of the kernel's, which names addresses; `None` where this build does not know its kind.
    pub fn of_kernel(event: &Event, datapath: &Datapath) -> Option<Self> {
        let &Event {
            time,
            until,
            source,
            user,
            gate,
            port,
            kind,
            cause,
            family,
            protocol,
            step,
            of,
            key,
        } = event;
        let kind = Kind::from_number(kind)?;
        let key = (key != NO_KEY).then(|| datapath.key_name(key)).flatten();
        let Who {
            user,
            key: _,
            origin,
        } = datapath.who_at(user, time);
        let user = user.or_else(|| key.as_deref().map(user_of).map(ToOwned::to_owned));
        let reason = Cause::from_number(cause)
            .filter(|cause| *cause != Cause::None)
            .map(Cause::name);
        let protocol = if protocol == knock_common::frame::UDP {
            Protocol::Udp
        } else {
            Protocol::Tcp
        };
        Some(Self {
            time: wall_clock(time),
            gate: (gate != NO_GATE)
                .then(|| datapath.applied.gate_at(gate, time))
                .flatten()
                .map(|gate| gate.name.clone()),
            user,
            key,
            source: (family != 0).then(|| padded_address(source, family == 4).to_string()),
            port: (port != 0).then_some(Port {
                number: port,
                protocol,
            }),
            step: (of != 0).then_some(step),
            of: (of != 0).then_some(of),
            reason: reason.map(ToOwned::to_owned),
            until: (until != 0).then(|| wall_clock(until)),
            origin,
            ..Self::now(kind.name())
        })
    }

    /// Has it name the network that a knock opened the gate for, where it names the address that has knocked or was the last to
    /// connect: the end of a grant is told by its network, and a hook is to take back what another has done.
    #[must_use]
    pub fn of_whole_grant(mut self, applied: &Applied) -> Self {
        let tells_of_grant = [Kind::Opened, Kind::Closed]
            .map(Kind::name)
            .contains(&self.event.as_str());
        // By hand it is for what was asked for, and of another host for what that one says.
        let is_by_knock = self.user.is_some() && self.origin.is_none();
        let gate = self.gate.as_deref().and_then(|name| applied.ids.gate(name));
        if tells_of_grant
            && is_by_knock
            && let Some(gate) = gate.and_then(|id| applied.gate(id))
            && let Some(address) = self.source.as_ref().and_then(|text| text.parse().ok())
        {
            self.source = Some(network_text(gate.grant_to.network(address)));
        }
        self
    }
}

/// `time event key=value ...`
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in self.fields() {
            match key {
                "time" => write!(f, "{value}")?,
                "event" => write!(f, " {value}")?,
                _ => write!(f, " {key}={value}")?,
            }
        }
        Ok(())
    }
}

/// Writes a whole address without its prefix length, as in the kernel's events.
pub fn network_text(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// Writes a time to the millisecond.
fn shown(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Returns the wall-clock time at a time of `CLOCK_MONOTONIC`, ns, in the past or to come. Whole microseconds, since the
/// kernel's coarse clock is no finer.
pub fn wall_clock(monotonic: u64) -> Timestamp {
    let (now, wall) = (monotonic_now(), Timestamp::now());
    let moved = if monotonic >= now {
        wall.checked_add(Duration::from_nanos(monotonic - now))
    } else {
        wall.checked_sub(Duration::from_nanos(now - monotonic))
    };
    let time = moved.unwrap_or(wall);
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// Returns a wall-clock time by `CLOCK_MONOTONIC`, ns, in the past or to come.
pub fn monotonic(time: Timestamp) -> u64 {
    let from_now = time.duration_since(Timestamp::now()).as_nanos();
    let time = i128::from(monotonic_now()).saturating_add(from_now);
    u64::try_from(time.max(0)).unwrap_or(u64::MAX)
}
