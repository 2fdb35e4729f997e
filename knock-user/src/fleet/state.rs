//! What a host makes of what it is told, and what it tells: a value that is given the time, the host's own grants and the
//! messages of the engine, and returns what is to be done.
//!
//! Times of other hosts are compared with other times of the same host alone. Each host's time only grows (`Clock`), so a
//! record is never younger than the newest that was heard of its host, plus what has gone by here since.

mod asked;
mod failures;
mod heard;
mod newest;
mod order;
mod own;
mod packets;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    engine::{Condition, Message, Outcome, Put, Write},
    record::{By, Codec, Grant, Host, Mark, Refusal, Revocation, Seen, unless_revoked},
};
use crate::{datapath::Who, fwknop::seen::Fingerprint, keys::KeyName};
use asked::Asked;
use failures::Failures;
use heard::{Doubted, Unfit};
use order::Order;
use own::{InFlight, Own};
use packets::Untold;

pub use asked::Answer;

/// ns.
const SECOND: u64 = 1_000_000_000;
/// Grants of one write. etcd takes 128 changes in a transaction, unless it is told otherwise.
const AT_ONCE: usize = 100;
/// Between two writes of the same grant or the same newest time.
const REST: u64 = SECOND;
/// Before a write that was not done is tried again; more where none is done.
const AGAIN: u64 = SECOND / 20;
/// After this many refusals in a row without news, there is something that this host was not told.
const REFUSALS: u32 = 40;
/// Between two records of this host itself.
const BEAT: u64 = 5 * SECOND;
/// µs.
const HOUR: u64 = 3600 * 1_000_000;
const DAY: u64 = 24 * HOUR;
/// A wall clock that gains as much between two looks was set, µs.
const STEP: u64 = 1_000_000;

/// A gate, by its id, and a source.
pub type Place = (u16, IpNet);

/// Now, by the clocks of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// ns of `CLOCK_MONOTONIC`.
    pub monotonic: u64,
    /// ns of the steady clock (`sys::clock::steady_now`), by which the time that passes is measured: it goes on while this
    /// machine is suspended, and is not slewed as its others are.
    pub steady: u64,
    /// µs since 1970.
    pub wall: u64,
}

/// A grant in this host's tables that was not given for another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    pub place: Place,
    /// ns of `CLOCK_MONOTONIC`.
    pub until: u64,
    /// Who knocked, as the tables number them.
    pub user: u32,
}

/// What this host's configuration says.
pub trait Policy {
    fn gate(&self, name: &str) -> Option<u16>;

    fn gate_name(&self, gate: u16) -> Option<&str>;

    /// ns.
    fn open_for(&self, gate: u16) -> u64;

    /// Returns the latest time that a packet may carry now, Unix ns.
    fn latest(&self, now: Moment) -> u64;

    /// Returns the number of who may pass here now, or why nobody may.
    fn admits(&self, gate: u16, source: &IpNet, by: By<'_>, now: Moment) -> Result<u32, Refusal>;

    /// Returns who has this number.
    fn who(&self, user: u32) -> Who;

    /// Returns [`By::print`] of the key that has this number, unless it is revoked.
    fn print(&self, user: u32) -> Option<u64>;
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// End every grant that is there now and that it covers.
    Revoke(Revocation),
    /// End every grant that is there now: it cannot be known which of them were revoked.
    RevokeAll,
    /// Put a grant into the tables, unless there is one that lasts as long.
    Give(Give),
    /// Refuse packets of this key that are as old as this, Unix ns, or older.
    Newest { key: KeyName, time: u64 },
    /// Refuse copies of this packet of a client of fwknop's.
    Packet(Fingerprint),
    /// Go on with what was [asked](State::ask) under this number.
    Answered { ask: u64, answer: Answer },
    /// Say that a record was refused.
    Refused(Refused),
    /// Count how long a record took from this host to the engine and back, ns.
    Heard { after: u64 },
    /// From now on this host knows what the others know.
    Joined,
    /// From now on this host misses what the others say.
    Isolated { why: String },
    /// Have the engine tell everything anew.
    BeginAnew { why: &'static str },
    /// Say that the engine takes no writes, although it can be reached.
    CannotWrite { why: String },
}

/// A grant of another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Give {
    /// A name, since the configuration may be another one by the time this is done.
    pub gate: String,
    pub source: IpNet,
    /// ns of `CLOCK_MONOTONIC`.
    pub until: u64,
    pub grant: Grant,
    /// By how much `until` may be too late, ns. A grant that would be renewed by less is left alone: one that is used up would
    /// admit connections again.
    pub doubt: u64,
    /// Only where there is a grant still: one that was there may have been ended here since.
    pub renews_only: bool,
}

/// A record that was refused, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub reason: Refusal,
    /// The host that has signed it.
    pub origin: Option<String>,
    pub gate: Option<String>,
    pub user: Option<String>,
    pub source: Option<IpNet>,
    pub key: String,
}

/// The time of a host of the fleet, µs since 1970. It never goes back: not with the host's clock, nor when its service is
/// started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clock {
    serial: u64,
    /// When that was heard, ns by the [steady](Moment::steady) clock of this host.
    at: u64,
    /// It came as it was written, not with all that there was.
    is_live: bool,
    /// How far it is ahead of its clock, as that host has said last, µs.
    ahead: u64,
}

impl Clock {
    /// Returns its time at `steady`, ns: as far as both clocks run alike ...
    fn now(&self, steady: u64) -> u64 {
        self.serial + steady.saturating_sub(self.at) / 1000
    }

    /// ... and if its clock is as much slower than this host's as clocks may be, a thousandth.
    fn earliest(&self, steady: u64) -> u64 {
        self.serial + steady.saturating_sub(self.at) / 1001
    }
}

/// Where the engine's order of revocations stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Told {
    /// Everything has been told.
    is_current: bool,
    /// The revision of the record that counts revocations.
    head: i64,
}

/// What a host knows of its fleet.
pub struct State {
    codec: Codec,
    name: String,
    about: About,
    order: Order,
    told: Told,
    hosts: HashMap<String, Clock>,
    /// Grants of hosts whose time is not known, by host.
    doubted: HashMap<String, Vec<Doubted>>,
    /// Grants that this host's rules did not allow, by gate and source.
    unfit: BTreeMap<(String, IpNet), Unfit>,
    own: HashMap<Place, Own>,
    /// All grants that there were at the beginning are known.
    has_looked: bool,
    /// When to publish.
    due: BTreeSet<(u64, Place)>,
    seen: BTreeMap<String, newest::Newest>,
    /// Of keys of which the engine has a time that no packet can have [for long](newest::FAR), or none that can be read: that time,
    /// Unix ns, and the revision of the record.
    unreached: BTreeMap<String, (u64, i64)>,
    asked: Asked,
    untold: Untold,
    in_flight: HashMap<u64, InFlight>,
    next_write: u64,
    refused_in_a_row: u32,
    failures: Failures,
    /// How far this host's time is ahead of its [steady](Moment::steady) clock, µs.
    ahead: u64,
    /// How far this host's wall clock was ahead of its steady clock when both were last read, µs. Where this service began with a wall
    /// clock that had gone back: what a right one would have had, until that is reached.
    wall_ahead: u64,
    /// The wall clock has reached that.
    is_set_right: bool,
    /// The last time that was given away.
    serial: u64,
    next_beat: u64,
    /// The time that the last grant took to the engine and back, ns.
    lag: Option<u64>,
    /// Grants that were published.
    pub published: u64,
    /// Grants of others that were put into the tables.
    pub received: u64,
}

/// What a host says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    pub version: String,
    /// See [`Host::configuration`].
    pub configuration: String,
    /// See [`Host::run`].
    pub run: u64,
    /// The id of this boot of its machine; empty where the kernel does not tell.
    pub boot: String,
}

/// What a service leaves to the next one of the same host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// The last revocation that was put into the tables; `None`: this host has never been one of the fleet.
    pub applied: Option<Mark>,
    /// The newest of those that lead to it, without a gap, as far as they are known. Without them, an older copy of the engine
    /// would be taken for what there is.
    #[serde(default)]
    pub known: Vec<Revocation>,
    /// Where the engine stood when that host last revoked everything since it had another history.
    #[serde(default)]
    pub replaced: Option<Mark>,
    /// What the time of each host had come to, µs since 1970: nothing that it said before is new.
    pub hosts: BTreeMap<String, u64>,
    /// The same of this host.
    #[serde(default)]
    pub serial: u64,
    /// When that was.
    #[serde(default)]
    pub kept: When,
}

/// When a service has left something to the next one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct When {
    /// See [`About::boot`].
    pub boot: String,
    /// See [`Moment::steady`].
    pub steady: u64,
    /// See [`Moment::wall`].
    pub wall: u64,
}

impl When {
    /// Returns whether the steady clock has gone on since.
    fn is_of(&self, boot: &str) -> bool {
        !boot.is_empty() && self.boot == boot
    }
}

/// Returns what a host's time has come to, by its wall clock: that was at `before` when its time was `serial`, and is at `now`. All
/// in µs since 1970; `before` is 0 where it is not known.
///
/// What has gone by, and how far its time was ahead of its clock, count for no more than a day: a clock that was years back, and
/// has been set right since, would have it years ahead for ever. So a host whose time is further ahead than that, and that is
/// away for longer, is behind what the others count it to be; and so is one whose clock was set back meanwhile.
pub fn time_after(serial: u64, before: u64, now: u64) -> u64 {
    if before == 0 {
        return serial.max(now);
    }
    let gone = now.saturating_sub(before).min(DAY);
    let ahead = serial.saturating_sub(before).min(DAY);
    serial.saturating_add(gone).max(now.saturating_add(ahead))
}

impl State {
    /// `memory`: what an earlier service of this host has left.
    pub fn new(codec: Codec, name: String, about: About, memory: Memory, now: Moment) -> Self {
        let Memory { serial, kept, .. } = &memory;
        // The times of this host and of the others have gone on while it was away. Otherwise what it gives would seem old to the
        // others by as much, and what they gave before would seem young to it.
        let (by_memory, at, wall) = if kept.is_of(&about.boot) {
            let away = now.steady.saturating_sub(kept.steady) / 1000;
            (serial.saturating_add(away), kept.steady, now.wall)
        } else {
            // How long it was away is known by a clock that may be wrong. It must not refuse what is fresh.
            let by_wall = time_after(*serial, kept.wall, now.wall);
            let is_back = now.wall < kept.wall && serial.saturating_sub(kept.wall) < DAY;
            if is_back {
                // By this clock, no time has gone by. An hour too much does no harm, and as far as that, a step forward of the clock
                // sets it right.
                let by_hour = serial.saturating_add(HOUR);
                let wall = kept.wall.saturating_add(HOUR);
                (by_wall.max(by_hour), now.steady, wall)
            } else {
                (by_wall, now.steady, now.wall)
            }
        };
        let clock = |serial| Clock {
            serial,
            at,
            is_live: false,
            ahead: 0,
        };
        let hosts = memory.hosts.into_iter();
        let own = order::Own {
            host: name.clone(),
            run: about.run,
        };
        let mut state = Self {
            codec,
            name,
            about,
            order: Order::new(memory.applied, memory.known, memory.replaced, own),
            told: Told::default(),
            hosts: hosts.map(|(name, serial)| (name, clock(serial))).collect(),
            doubted: HashMap::new(),
            unfit: BTreeMap::new(),
            own: HashMap::new(),
            has_looked: false,
            due: BTreeSet::new(),
            seen: BTreeMap::new(),
            unreached: BTreeMap::new(),
            asked: Asked::default(),
            untold: Untold::new(),
            in_flight: HashMap::new(),
            next_write: 0,
            refused_in_a_row: 0,
            failures: Failures::default(),
            ahead: 0,
            wall_ahead: wall.saturating_sub(now.steady / 1000),
            is_set_right: wall == now.wall,
            serial: 0,
            next_beat: 0,
            lag: None,
            published: 0,
            received: 0,
        };
        state.follow_serial(by_memory.max(now.wall), now);
        state
    }

    /// Returns what the next service of this host is to begin with.
    pub fn memory(&self, now: Moment) -> Memory {
        let hosts = self.hosts.iter();
        Memory {
            applied: self.order.applied(),
            known: self
                .order
                .newest()
                .map(|(_, known)| known.clone())
                .collect(),
            replaced: self.order.replaced(),
            hosts: hosts
                .map(|(name, clock)| (name.clone(), clock.earliest(now.steady)))
                .collect(),
            serial: self.serial.max(now.steady / 1000 + self.ahead),
            kept: When {
                boot: self.about.boot.clone(),
                steady: now.steady,
                wall: now.wall,
            },
        }
    }

    /// Returns the last revocation that was handed out; `None`: this host has never been one of the fleet.
    pub fn applied(&self) -> Option<Mark> {
        self.order.applied()
    }

    /// Says from now on that this host goes by another configuration.
    pub fn describe(&mut self, configuration: String) {
        self.about.configuration = configuration;
    }

    pub fn is_current(&self) -> bool {
        self.told.is_current
    }

    /// Takes a message, and returns what is to be done.
    pub fn hear(&mut self, message: Message, now: Moment, policy: &impl Policy) -> Vec<Act> {
        let mut acts = Vec::new();
        match message {
            Message::State(entries) => self.hear_state(&entries, now, policy, &mut acts),
            Message::Grants(entries) => {
                for entry in &entries {
                    self.hear_entry(entry, now, policy, false, &mut acts);
                }
            }
            Message::Current => {
                self.told.is_current = true;
                self.refused_in_a_row = 0;
                self.schedule_all(now);
                acts.push(Act::Joined);
            }
            Message::Changed(entries) => {
                for entry in &entries {
                    self.hear_entry(entry, now, policy, true, &mut acts);
                }
            }
            Message::Lost { why } => {
                self.told = Told::default();
                self.in_flight.clear();
                self.failures = Failures::default();
                self.tell_packets_again();
                self.give_up_asking(&mut acts);
                acts.push(Act::Isolated { why });
            }
            Message::Answered { id, outcome } => self.answered(id, &outcome, now, &mut acts),
        }
        acts
    }

    /// Returns this host's time, µs since 1970: later than any that it has given before.
    fn tick(&mut self, now: Moment) -> u64 {
        let steady = now.steady / 1000;
        let wall_ahead = now.wall.saturating_sub(steady);
        let step = wall_ahead.saturating_sub(self.wall_ahead);
        if step >= STEP {
            // The steady clock has missed that, as where a virtual machine was paused, or the wall clock was behind at the start. This
            // host's time stays ahead of the wall clock by as much as before, and by no more than a day: see `time_after`.
            let most = wall_ahead.saturating_add(DAY);
            self.ahead = self.ahead.max(self.ahead.saturating_add(step).min(most));
        }
        self.is_set_right |= wall_ahead >= self.wall_ahead;
        if self.is_set_right {
            self.wall_ahead = wall_ahead;
        }
        self.ahead = self.ahead.max(wall_ahead);
        self.serial = (steady + self.ahead).max(self.serial + 1);
        self.serial
    }

    /// Makes this host's time later than one that it has given in an earlier life.
    fn follow_serial(&mut self, serial: u64, now: Moment) {
        self.serial = self.serial.max(serial);
        self.ahead = self.ahead.max(serial.saturating_sub(now.steady / 1000));
    }

    fn take_id(&mut self) -> u64 {
        self.next_write += 1;
        self.next_write
    }
}

#[cfg(test)]
mod tests;
