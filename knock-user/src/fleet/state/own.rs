//! What a host tells: its own grants, the newest times of its keys, and itself.

use std::time::Duration;

use super::{
    AGAIN, AT_ONCE, Act, BEAT, Condition, Failures, Host, Local, Moment, Outcome, Place, Policy,
    Put, REFUSALS, REST, SECOND, State, Write, newest::Newest, unless_revoked,
};
use crate::{fleet::record::Grant, fwknop::seen::Fingerprint};

/// For how long a host that says nothing any more is listed.
const HOST_FOR: Duration = Duration::from_hours(24);

/// A grant of this host.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// When this host learned of its end, ns of its [steady](Moment::steady) clock.
    given: u64,
    /// When it ends, ns of `CLOCK_MONOTONIC`, as the tables said last ...
    until: u64,
    /// ... and as the engine has it; 0: it has not.
    pub(super) published: u64,
    /// When it was last handed to the engine; 0: never.
    pub(super) handed: u64,
    /// The time that this was given, µs; 0: what was written of it last says nothing any more.
    pub(super) serial: u64,
    /// Its entry in the list of what is due.
    due: Option<u64>,
    /// The engine has not answered yet. It is not written again before: where answers take longer than [`REST`], none would be that
    /// of the last write.
    is_in_flight: bool,
    user: u32,
    /// It was there when this host began, so when it was given is known by its end alone.
    is_found: bool,
}

/// What a write was about.
pub enum InFlight {
    Grants(Vec<Written>),
    /// A key, its newest time, and the revision of the record that it was to replace; `None`: it is refused only where a later one is
    /// there.
    Newest(String, u64, Option<i64>),
    /// A packet of this key, and the same.
    Question(String, Option<i64>),
    /// Packets of fwknop's clients.
    Packets(Vec<Fingerprint>),
    /// Revocations that the engine lacks.
    Restated,
    Other,
}

/// A grant that was handed to the engine.
pub struct Written {
    place: Place,
    /// See [`Own::until`].
    until: u64,
    /// See [`Own::serial`].
    serial: u64,
}

impl State {
    /// Learns of a grant in the tables that this host has given or renewed.
    pub fn learn(&mut self, local: Local, now: Moment) {
        let own = self.own.entry(local.place).or_insert(Own {
            given: now.steady,
            until: 0,
            published: 0,
            handed: 0,
            serial: 0,
            due: None,
            is_in_flight: false,
            user: local.user,
            is_found: !self.has_looked,
        });
        if local.until > own.until {
            own.given = now.steady;
            own.is_found &= own.until == 0;
        }
        if local.until > own.until || local.user != own.user {
            own.until = local.until;
            own.user = local.user;
            own.published = own.published.min(local.until - 1);
        }
        self.schedule(local.place, now.monotonic);
    }

    /// Forgets grants that have ended, also of others, and packets that are too old to be told of.
    pub fn forget_ended(&mut self, now: Moment) {
        self.forget_old_packets(now);
        self.forget_unfit(now);
        let due = &mut self.due;
        self.own.retain(|place, own| {
            let lives = own.until > now.monotonic;
            if !lives && let Some(at) = own.due {
                due.remove(&(at, *place));
            }
            lives
        });
        self.has_looked = true;
    }

    /// Returns when something is to be written, ns of `CLOCK_MONOTONIC`.
    pub fn next_due(&self) -> Option<u64> {
        self.told.is_current.then_some(())?;
        // What the engine lacks is written before any grant.
        let restated = self.order.next_restated();
        let grants = restated.or_else(|| self.due.first().map(|(at, _)| *at));
        let questions = self.has_questions().then_some(0);
        let due = grants.into_iter().chain(questions);
        let due = due.chain(self.next_untold());
        let due = due.chain(self.seen.values().filter_map(Newest::due));
        due.chain([self.next_beat]).min()
    }

    /// Returns what is to be written now, at most so many writes. `present` looks a grant up in the tables: only what is
    /// still there after all revocations that were handed out is published.
    pub fn writes(
        &mut self,
        now: Moment,
        most: usize,
        policy: &impl Policy,
        mut present: impl FnMut(Place) -> Option<Local>,
    ) -> Vec<Write> {
        let mut writes = Vec::new();
        if !self.told.is_current {
            return writes;
        }
        if self.next_beat <= now.monotonic {
            self.next_beat = now.monotonic + BEAT;
            writes.push(self.beat(now));
        }
        self.write_questions(now, most, policy, &mut writes);
        self.write_newest(now, policy, &mut writes);
        self.write_packets(now, most, &mut writes);
        if let Some(puts) = self.order.restated(&self.codec, now) {
            let id = self.take_id();
            self.in_flight.insert(id, InFlight::Restated);
            writes.push(unless_revoked(id, self.told.head, puts));
        }
        // Who has not heard of the last revocation would refuse what was given after it.
        if self.order.next_restated().is_some() {
            return writes;
        }
        while writes.len() < most {
            let mut puts = Vec::new();
            let mut written = Vec::new();
            while puts.len() < AT_ONCE {
                let Some(&(at, place)) = self.due.first().filter(|(at, _)| *at <= now.monotonic)
                else {
                    break;
                };
                self.due.remove(&(at, place));
                if let Some(own) = self.own.get_mut(&place) {
                    own.due = None;
                }
                let live = present(place).filter(|live| live.until > now.monotonic);
                let published = self.own.get(&place).map_or(0, |own| own.published);
                // The engine has it already: an earlier service has published it.
                if live.is_some_and(|live| live.until <= published) {
                    continue;
                }
                match live.and_then(|live| self.put(&live, now, policy)) {
                    Some((grant, put)) => {
                        written.push(grant);
                        puts.push(put);
                    }
                    None => {
                        self.own.remove(&place);
                    }
                }
            }
            if puts.is_empty() {
                break;
            }
            let id = self.take_id();
            self.in_flight.insert(id, InFlight::Grants(written));
            writes.push(unless_revoked(id, self.told.head, puts));
        }
        writes
    }

    /// Takes a write back that the engine had no room for.
    pub fn not_written(&mut self, id: u64, now: Moment) {
        if let Some(InFlight::Question(key, _)) = self.in_flight.get(&id) {
            let key = key.clone();
            self.in_flight.remove(&id);
            self.question_not_written(&key);
            return;
        }
        // It says nothing of the engine.
        let why = String::new();
        self.settled(id, &Outcome::Failed { why }, now, &mut Vec::new());
    }

    fn put(&mut self, live: &Local, now: Moment, policy: &impl Policy) -> Option<(Written, Put)> {
        let (gate, source) = live.place;
        let who = policy.who(live.user);
        let gate = policy.gate_name(gate)?;
        who.user.as_ref()?;
        let serial = self.tick(now);
        let left = (live.until - now.monotonic) / 1_000_000;
        let given = self.given(live, now, policy);
        let grant = Grant {
            user: who.user,
            key: who.key,
            print: policy.print(live.user),
            origin: self.name.clone(),
            serial,
            given: serial.saturating_sub((now.steady - given) / 1000),
            end: serial / 1000 + left,
            left,
            head: self.order.last(),
        };
        let own = self.own.get_mut(&live.place)?;
        own.given = given;
        own.until = live.until;
        own.user = live.user;
        own.handed = now.monotonic;
        own.serial = serial;
        own.is_in_flight = true;
        let (key, value) = self.codec.grant(gate, source, &grant);
        let written = Written {
            place: live.place,
            until: live.until,
            serial,
        };
        let put = Put {
            key,
            value,
            useful: Duration::from_millis(left),
        };
        Some((written, put))
    }

    /// Returns when a grant was given or last renewed, as far as is known, ns of the steady clock: a knock that this host learns
    /// of later was before that.
    fn given(&self, live: &Local, now: Moment, policy: &impl Policy) -> u64 {
        let learned = self.own.get(&live.place);
        let Some(own) = learned.filter(|own| own.until == live.until) else {
            return now.steady;
        };
        let given = own.given.min(now.steady);
        if own.is_found {
            let by_its_end = live.until.saturating_sub(policy.open_for(live.place.0));
            let age = now.monotonic.saturating_sub(by_its_end);
            given.min(now.steady.saturating_sub(age))
        } else {
            given
        }
    }

    fn beat(&mut self, now: Moment) -> Write {
        let host = Host {
            version: self.about.version.clone(),
            configuration: self.about.configuration.clone(),
            serial: self.tick(now),
            clock: now.wall / 1000,
            run: self.about.run,
            lag: self.lag.map(|lag| lag / 1_000_000),
        };
        let (key, value) = self.codec.host(&self.name, &host);
        let id = self.take_id();
        self.in_flight.insert(id, InFlight::Other);
        Write {
            id,
            condition: Condition::Always,
            puts: vec![Put {
                key,
                value,
                useful: HOST_FOR,
            }],
        }
    }

    pub(super) fn answered(
        &mut self,
        id: u64,
        outcome: &Outcome,
        now: Moment,
        acts: &mut Vec<Act>,
    ) {
        if let Outcome::Failed { why } = outcome {
            if self.failures.note(now) {
                acts.push(Act::CannotWrite { why: why.clone() });
            }
        } else {
            self.failures = Failures::default();
        }
        self.settled(id, outcome, now, acts);
    }

    /// Notes what became of a write.
    fn settled(&mut self, id: u64, outcome: &Outcome, now: Moment, acts: &mut Vec<Act>) {
        match self.in_flight.remove(&id) {
            Some(InFlight::Grants(written)) => {
                let is_done = *outcome == Outcome::Done;
                if is_done {
                    self.refused_in_a_row = 0;
                } else if *outcome == Outcome::Refused {
                    self.refused(1, acts);
                }
                for grant in written {
                    self.published += u64::from(is_done);
                    if let Some(own) = self.own.get_mut(&grant.place) {
                        own.is_in_flight = false;
                        // An answer that comes after a revocation, or after another host's grant, says nothing of what the engine
                        // has now.
                        let is_latest = own.serial == grant.serial;
                        if is_latest && is_done {
                            own.published = own.published.max(grant.until);
                        } else if is_latest {
                            own.handed = 0;
                        }
                    }
                    let pause = if is_done { 0 } else { self.failures.pause() };
                    let earliest = now.monotonic + pause;
                    self.schedule(grant.place, earliest);
                }
            }
            Some(InFlight::Newest(key, time, replaced)) => {
                self.told_of_newest(&key, time, replaced, outcome);
            }
            Some(InFlight::Question(key, replaced @ Some(_))) if *outcome == Outcome::Refused => {
                self.is_gone(&key, replaced);
                self.question_not_written(&key);
            }
            Some(InFlight::Question(key, _)) => self.question_answered(&key, outcome, acts),
            Some(InFlight::Packets(told)) => self.told_of_packets(&told, outcome, now),
            // Nothing else is published before it is done. By the time that it is tried again, as many grants are refused.
            Some(InFlight::Restated) if *outcome == Outcome::Refused => {
                self.refused(u32::try_from(REST / AGAIN).unwrap_or(1), acts);
            }
            Some(InFlight::Restated | InFlight::Other) | None => {}
        }
    }

    /// Notes that so many writes were refused since something else was revoked, as the engine says.
    fn refused(&mut self, writes: u32, acts: &mut Vec<Act>) {
        self.refused_in_a_row += writes;
        if self.refused_in_a_row >= REFUSALS {
            self.refused_in_a_row = 0;
            acts.push(Act::BeginAnew {
                why: "the fleet has revocations that this host was not told of",
            });
        }
    }

    /// Publishes a grant of this host again where another host has written one over it that ends sooner: who comes later is
    /// told of the last one alone.
    pub(super) fn contest(&mut self, place: Place, until: u64, now: Moment) {
        if let Some(own) = self.own.get_mut(&place)
            && own.until > until.saturating_add(SECOND / 2)
        {
            own.published = 0;
            own.serial = 0;
            self.schedule(place, now.monotonic);
        }
    }

    /// Lists everything that the engine does not have.
    pub(super) fn schedule_all(&mut self, now: Moment) {
        for newest in self.seen.values_mut() {
            newest.is_in_flight = false;
        }
        self.next_beat = now.monotonic;
        let places: Vec<Place> = self.own.keys().copied().collect();
        for place in places {
            self.schedule(place, now.monotonic);
        }
    }

    /// Forgets what the engine has.
    pub(super) fn unpublish(&mut self) {
        for own in self.own.values_mut() {
            own.published = 0;
            own.handed = 0;
            own.is_in_flight = false;
        }
        for newest in self.seen.values_mut() {
            newest.published = 0;
        }
    }

    /// Forgets that the engine has what may be ended by these acts: a grant that is given after them is another one.
    pub(super) fn unpublish_ended(&mut self, acts: &[Act], policy: &impl Policy) {
        for act in acts {
            let (network, gate) = match act {
                Act::RevokeAll => (None, None),
                Act::Revoke(revocation) => (revocation.network, revocation.gate.as_deref()),
                _ => continue,
            };
            let id = gate.and_then(|name| policy.gate(name));
            if gate.is_some() && id.is_none() {
                // It is a gate of other hosts.
                continue;
            }
            for ((at, source), own) in &mut self.own {
                if id.is_none_or(|id| id == *at)
                    && network.is_none_or(|network| network.contains(source))
                {
                    own.published = 0;
                    own.handed = 0;
                    own.serial = 0;
                }
            }
        }
    }

    /// Notes that the engine has a grant of this host that ends at `end`, ms of this host's time.
    pub(super) fn is_published(&mut self, place: Place, end: u64, now: Moment) {
        let time = self.tick(now) / 1000;
        if let Some(own) = self.own.get_mut(&place) {
            let own_end = time + own.until.saturating_sub(now.monotonic) / 1_000_000;
            if own_end.abs_diff(end) <= 1000 {
                own.published = own.until;
            }
        }
    }

    fn schedule(&mut self, place: Place, earliest: u64) {
        let Some(own) = self.own.get_mut(&place) else {
            return;
        };
        if own.due.is_some() || own.is_in_flight || own.published >= own.until {
            return;
        }
        // A grant that is renewed all the time is published once a second.
        let at = match own.handed {
            0 => earliest,
            handed => earliest.max(handed + REST),
        };
        own.due = Some(at);
        self.due.insert((at, place));
    }
}
