//! Knocks that wait for the engine's word (`replay = "strict"`).

use std::{collections::HashMap, net::IpAddr};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use bytemuck::pod_read_unaligned;
use ipnet::IpNet;
use knock_common::{
    event::{Cause, Kind},
    grant::give::Terms,
    knock::authenticated::{
        held::Held,
        message::{action, flag},
    },
    report::class,
};
use tokio::io::unix::AsyncFd;

use super::{Rules, Worker, given::is_full, local, moment};
use crate::{
    datapath::{Datapath, keys::user_of, padded_address},
    fleet::{
        engine::Engine,
        record::{By, Revocation},
        state::{Answer, Policy as _},
    },
    service::record::{Record, wall_clock},
    sys::clock::monotonic_now,
    values::{Port, Protocol},
};

/// Knocks taken from the ring at a time.
const AT_ONCE: usize = 256;

/// Why a knock does not open although it is valid.
mod reason {
    /// The engine cannot be asked.
    pub const ISOLATED: &str = "isolated";
    /// Its grant was revoked before it was given.
    pub const REVOKED: &str = "revoked";
    /// Its user has closed the gate since.
    pub const ASKED: &str = "asked";
}

/// The ring that the program writes them to.
pub struct Ring(Option<AsyncFd<RingBuf<MapData>>>);

impl Ring {
    /// Opens it if this configuration has any. Also returns what came while nobody could ask.
    pub fn of(datapath: &Datapath) -> Result<(Self, Vec<Held>)> {
        if !datapath.config().holds_knocks() {
            return Ok((Self(None), Vec::new()));
        }
        let mut ring = datapath.held_ring()?;
        let mut left = Vec::new();
        while let Some(item) = ring.next() {
            left.extend(held(&item));
        }
        // SAFETY: the ring owns its descriptor and keeps it until it is dropped; nothing replaces it.
        let ring = unsafe { AsyncFd::register(ring) }.context("cannot wait for knocks")?;
        Ok((Self(Some(ring)), left))
    }

    /// Returns what has not been taken yet.
    pub fn left(&mut self) -> Vec<Held> {
        let mut left = Vec::new();
        if let Some(ring) = &mut self.0 {
            while let Some(item) = ring.get_mut().next() {
                left.extend(held(&item));
            }
        }
        left
    }

    /// Waits for knocks.
    pub async fn next(&mut self) -> Result<Vec<Held>> {
        let Some(ring) = &mut self.0 else {
            return std::future::pending().await;
        };
        let mut ready = ring.readable_mut().await?;
        let mut knocks = Vec::new();
        while knocks.len() < AT_ONCE {
            let Some(item) = ready.get_inner_mut().next() else {
                // The kernel wakes only a reader that had read everything.
                ready.clear_ready();
                break;
            };
            knocks.extend(held(&item));
        }
        Ok(knocks)
    }
}

fn held(item: &[u8]) -> Option<Held> {
    (item.len() == size_of::<Held>()).then(|| pod_read_unaligned(item))
}

/// A knock, with the names of what it is for: numbers may mean something else once the engine has answered.
#[derive(Debug, Clone)]
struct Waiting {
    held: Held,
    key: String,
    /// See [`By::print`].
    print: Option<u64>,
    gate: String,
    /// See [`Knocks::revoked`].
    revoked: Option<u64>,
}

/// Those that the engine has been asked about, by number.
#[derive(Debug)]
pub struct Knocks {
    waiting: HashMap<u64, Waiting>,
    last: u64,
    /// The last revocation that a command had carried out here before the ring was last seen to be empty. What is taken from the
    /// ring may have come before any later one, however late it is taken.
    revoked: Option<u64>,
}

impl Knocks {
    /// `revoked`: the last revocation that a command has carried out here.
    pub fn after(revoked: Option<u64>) -> Self {
        Self {
            waiting: HashMap::new(),
            last: 0,
            revoked,
        }
    }

    /// Takes those out for which this is so.
    fn take(&mut self, is_wanted: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let taken = self.waiting.extract_if(|_, waiting| is_wanted(waiting));
        taken.map(|(_, waiting)| waiting).collect()
    }
}

/// Returns whether a knock closes what this one opens.
fn closes(rules: &Rules, close: &Held, held: &Held) -> bool {
    let networks = |held: &Held| -> Vec<IpNet> {
        let addresses = addresses(held).into_iter();
        let granted = addresses.filter_map(|address| rules.granted(held.gate, address));
        granted.collect()
    };
    let closed = networks(close);
    (held.slot, held.gate) == (close.slot, close.gate)
        && held.time < close.time
        && networks(held)
            .iter()
            .any(|network| closed.contains(network))
}

/// Returns the addresses that a knock is for.
fn addresses(held: &Held) -> Vec<IpAddr> {
    let v4 = (held.families & flag::IPV4 != 0).then(|| held.v4.into());
    let v6 = (held.families & flag::IPV6 != 0).then(|| held.v6.into());
    v4.into_iter().chain(v6).collect()
}

impl<E: Engine> Worker<E> {
    /// Returns a knock with its names; `None`: its key or gate was removed at this very moment.
    fn waiting(&self, held: Held) -> Option<Waiting> {
        Some(Waiting {
            held,
            key: self.rules.key_in(held.slot)?.to_owned(),
            print: self.rules.print_of(held.slot),
            gate: self.rules.gate_name(held.gate)?.to_owned(),
            revoked: self.held.revoked,
        })
    }

    /// Refuses knocks about which nobody could ask.
    pub(super) fn refuse_left(&self, left: Vec<Held>) {
        let left = left.into_iter().filter(|held| held.action == action::OPEN);
        for waiting in left.filter_map(|held| self.waiting(held)) {
            self.refuse_knock(&waiting, Kind::Refused, class::REFUSALS, reason::ISOLATED);
        }
    }

    /// Refuses knocks about which nobody is left to hear the answer.
    pub(super) fn refuse_waiting(&mut self) {
        let dropped = self.held.take(|_| true);
        self.refuse_all(dropped, reason::ISOLATED);
    }

    /// Takes what the program has written meanwhile.
    pub(super) fn hold_left(&mut self) -> Result<()> {
        if self.ring.0.is_none() {
            return Ok(());
        }
        let revoked = self.done_here.last();
        for knock in self.ring.left() {
            self.hold(knock)?;
        }
        self.held.revoked = revoked;
        Ok(())
    }

    /// Asks about a knock, or drops those that wait and that it closes.
    pub(super) fn hold(&mut self, held: Held) -> Result<()> {
        if held.action != action::OPEN {
            self.close(&held);
            return Ok(());
        }
        let mut waiting = self.waiting(held);
        if waiting.is_none() {
            // Its key or gate may be newer than what was read last.
            self.read_rules()?;
            waiting = self.waiting(held);
        }
        let Some(waiting) = waiting else {
            return Ok(());
        };
        self.held.last += 1;
        let number = self.held.last;
        if self.state.ask(&waiting.key, held.time, number) {
            self.held.waiting.insert(number, waiting);
        } else {
            self.refuse_knock(&waiting, Kind::Refused, class::REFUSALS, reason::ISOLATED);
        }
        Ok(())
    }

    /// Drops the knocks of the same key that wait for what this one has closed: by then, the program has found nothing to close.
    fn close(&mut self, close: &Held) {
        let rules = &self.rules;
        let dropped = self
            .held
            .take(|waiting| closes(rules, close, &waiting.held));
        self.refuse_all(dropped, reason::ASKED);
    }

    /// Takes what the program has written meanwhile, and returns whether it has closed what this knock has just opened.
    fn has_been_closed(&mut self, held: &Held) -> Result<bool> {
        let mut is_closed = false;
        for knock in self.ring.left() {
            is_closed |= knock.action != action::OPEN && closes(&self.rules, &knock, held);
            self.hold(knock)?;
        }
        Ok(is_closed)
    }

    /// Drops the knocks that wait for what a revocation of another host ends; `None`: it ends everything.
    pub(super) fn drop_revoked(&mut self, revocation: Option<&Revocation>) {
        let is_revoked = |waiting: &Waiting| {
            let Some(revocation) = revocation else {
                return true;
            };
            let addresses = addresses(&waiting.held).into_iter();
            let mut granted =
                addresses.filter_map(|address| self.rules.granted(waiting.held.gate, address));
            granted.any(|network| revocation.covers(&waiting.gate, &network))
        };
        let dropped = self.held.take(is_revoked);
        self.refuse_all(dropped, reason::REVOKED);
    }

    fn refuse_all(&self, dropped: Vec<Waiting>, reason: &str) {
        for waiting in dropped {
            self.refuse_knock(&waiting, Kind::Refused, class::REFUSALS, reason);
        }
    }

    /// Opens, or says why not.
    pub(super) fn answered(&mut self, ask: u64, answer: Answer) -> Result<()> {
        let Some(waiting) = self.held.waiting.remove(&ask) else {
            return Ok(());
        };
        match answer {
            Answer::Agreed => self.open(&waiting),
            Answer::Taken => {
                let replay = Cause::Replay.name();
                self.refuse_knock(&waiting, Kind::Captured, class::CAPTURES, replay);
                Ok(())
            }
            // As where a client tries again, and its second packet has come to another host sooner.
            Answer::Older => {
                let replay = Cause::Replay.name();
                self.refuse_knock(&waiting, Kind::Refused, class::REFUSALS, replay);
                Ok(())
            }
            Answer::Nothing => {
                self.refuse_knock(&waiting, Kind::Refused, class::REFUSALS, reason::ISOLATED);
                Ok(())
            }
        }
    }

    /// Gives the grants that a knock asks for, as far as its key and the gate still allow it.
    fn open(&mut self, waiting: &Waiting) -> Result<()> {
        let Waiting {
            held,
            key,
            print,
            gate,
            revoked,
        } = waiting;
        // Which of them, and for what, is not known. Its user can knock again.
        if self.done_here.last() != *revoked {
            self.refuse_knock(waiting, Kind::Refused, class::REFUSALS, reason::REVOKED);
            return Ok(());
        }
        let addresses = addresses(held);
        let Some(gate) = self.rules.gate(gate) else {
            return Ok(());
        };
        let mut users = Vec::new();
        for address in &addresses {
            // Both, before either is granted.
            let by = By {
                user: Some(user_of(key)),
                key: Some(key),
                print: *print,
            };
            match self
                .rules
                .admits(gate, &IpNet::from(*address), by, moment())
            {
                Ok(number) => users.push(number),
                Err(refusal) => {
                    let class = class::FAILURES;
                    self.refuse_knock(waiting, Kind::Failed, class, refusal.name());
                    return Ok(());
                }
            }
        }
        let now = monotonic_now();
        // Before they are in the tables: their end comes after that.
        let opened = record(waiting, Kind::Opened);
        let mut until = None;
        let mut is_refused = false;
        for (address, user) in addresses.iter().copied().zip(users.iter().copied()) {
            let terms = Terms {
                open_for: held.open_for,
                user,
                gate,
                port: held.port,
            };
            match self.datapath.admit_on(address, &terms, now) {
                Ok(given) => until = Some(given),
                Err(error) if is_full(&error) => {
                    is_refused = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        // What closes hands itself over before it looks for grants, and may have found none of these yet.
        let is_closed = self.has_been_closed(held)?;
        for (address, user) in addresses.into_iter().zip(users) {
            let Some(source) = self.rules.granted(gate, address) else {
                continue;
            };
            if is_closed {
                self.datapath.end_grant_of(source, gate, user)?;
            } else if let Some(row) = self.datapath.grant_of(source, gate)?
                && let Some(local) = local(&row)
            {
                self.state.learn(local, moment());
            }
        }
        if is_closed {
            self.refuse_knock(waiting, Kind::Refused, class::REFUSALS, reason::ASKED);
            return Ok(());
        }
        // It may be open for one family and have no room for the other.
        if let Some(until) = until {
            let record = Record {
                until: Some(wall_clock(until)),
                ..opened
            };
            self.say(Some(class::OPENINGS), record);
        }
        if is_refused {
            let full = Cause::TableFull.name();
            self.refuse_knock(waiting, Kind::Refused, class::REFUSALS, full);
        }
        Ok(())
    }

    fn refuse_knock(&self, waiting: &Waiting, kind: Kind, class: u32, reason: &str) {
        let record = Record {
            reason: Some(reason.to_owned()),
            ..record(waiting, kind)
        };
        self.say(Some(class), record);
    }
}

/// Returns what is said of a knock in any case.
fn record(waiting: &Waiting, kind: Kind) -> Record {
    let Waiting {
        held,
        key,
        print: _,
        gate,
        revoked: _,
    } = waiting;
    Record {
        gate: Some(gate.clone()),
        user: Some(user_of(key).to_owned()),
        key: Some(key.clone()),
        source: Some(padded_address(held.source, held.family == 4).to_string()),
        port: Some(Port {
            number: held.destination_port,
            protocol: Protocol::Udp,
        }),
        ..Record::now(kind.name())
    }
}
