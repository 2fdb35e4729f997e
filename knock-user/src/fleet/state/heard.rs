//! What a host is told: revocations, grants of others, newest times.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{
    Act, Clock, Give, Moment, Policy, Refusal, Refused, State, newest::is_far, order::Head,
};
use crate::fleet::{
    engine::Entry,
    record::{Grant, Host, Record, head_key, revocation_number, seen_key},
};

/// The clocks of two hosts may differ by this much, µs: twice the time between two beats.
const DOUBT: u64 = 10_000_000;
/// The same record, read twice, differs by less than this, ns.
const ALIKE: u64 = 250_000_000;
/// So many grants are remembered that this host's rules do not allow.
const UNFIT: usize = 4096;

/// A grant that ends later than this host has made of it, perhaps: it is heard again once the time of its host is known.
#[derive(Debug)]
pub struct Doubted {
    gate: String,
    source: IpNet,
    grant: Grant,
    /// See [`Give::renews_only`].
    renews_only: bool,
}

/// A grant that this host's rules did not allow.
#[derive(Debug)]
pub struct Unfit {
    grant: Grant,
    /// When it has ended, at the latest, ns of the [steady](Moment::steady) clock.
    ended: u64,
}

impl State {
    /// Hears every record but the grants: revocations before any grant.
    pub(super) fn hear_state(
        &mut self,
        entries: &[Entry],
        now: Moment,
        policy: &impl Policy,
        acts: &mut Vec<Act>,
    ) {
        self.unpublish();
        self.doubted.clear();
        self.unfit.clear();
        self.unreached.clear();
        self.told.head = 0;
        let mut head = Head::Missing;
        let mut revocations = BTreeMap::new();
        let mut refused = Vec::new();
        for entry in entries {
            let read = self.codec.read(&entry.key, &entry.value);
            if entry.key == head_key() && read == Err(Refusal::Version) {
                head = Head::Other;
            }
            match read {
                Ok(Record::Revocation(number, revocation)) => {
                    revocations.insert(number, revocation);
                }
                Ok(Record::Head(last)) => {
                    self.told.head = entry.revision;
                    head = Head::Read {
                        last,
                        by_own_key: self.codec.is_by_own_key(&entry.value),
                    };
                }
                Err(_) if revocation_number(&entry.key).is_some() => refused.push(entry),
                _ => self.hear_entry(entry, now, policy, false, acts),
            }
        }
        self.order.begin(revocations, head, now, acts);
        // One that was signed with a key of the past, up to a year ago: the head says that it was there, which is enough.
        let last = self.order.last().number;
        refused.retain(|entry| revocation_number(&entry.key).is_none_or(|number| number > last));
        for entry in refused {
            self.hear_entry(entry, now, policy, false, acts);
        }
    }

    /// Hears one record. `is_live`: it has just been written.
    pub(super) fn hear_entry(
        &mut self,
        entry: &Entry,
        now: Moment,
        policy: &impl Policy,
        is_live: bool,
        acts: &mut Vec<Act>,
    ) {
        // Whatever it says: nothing is published over it.
        if entry.key == head_key() {
            self.told.head = entry.revision;
        }
        match self.codec.read(&entry.key, &entry.value) {
            Ok(Record::Grant {
                gate,
                source,
                grant,
            }) => {
                if is_live {
                    self.hear_doubted(&grant.origin, grant.serial, now, policy, acts);
                }
                if grant.origin == self.name {
                    self.hear_own(&gate, source, &grant, now, policy, is_live, acts);
                } else {
                    match self.hear_grant(&gate, source, &grant, now, policy, is_live) {
                        Ok(give) => acts.extend(give.map(Act::Give)),
                        Err(reason) => {
                            acts.push(refused(reason, &gate, source, &grant, entry.key.clone()));
                            self.note_unfit(reason, (gate, source), grant, now);
                        }
                    }
                }
            }
            Ok(Record::Revocation(number, revocation)) => {
                let before = acts.len();
                self.order.hear(number, &revocation, acts);
                self.unpublish_ended(&acts[before..], policy);
            }
            Ok(Record::Head(head)) => {
                self.refused_in_a_row = 0;
                let before = acts.len();
                self.order.hear_head(head, now, acts);
                self.unpublish_ended(&acts[before..], policy);
            }
            Ok(Record::Seen(key, seen)) => {
                let name = key.to_string();
                if is_far(seen.time, policy.latest(now)) {
                    self.note_unreached(name, seen.time, entry.revision);
                } else {
                    self.unreached.remove(&name);
                    let newest = self.seen.entry(name).or_default();
                    newest.time = newest.time.max(seen.time);
                    newest.published = newest.published.max(seen.time);
                }
                acts.push(Act::Newest {
                    key,
                    time: seen.time,
                });
            }
            Ok(Record::Packet(packet, told)) => {
                self.packet_is_told(&packet);
                if told.host != self.name {
                    acts.push(Act::Packet(packet));
                }
            }
            Ok(Record::Host(name, host)) => {
                if is_live {
                    self.hear_doubted(&name, host.serial, now, policy, acts);
                }
                self.hear_host(name, &host, now, is_live, entry, acts);
            }
            Err(reason) => {
                if let Some(key) = seen_key(&entry.key)
                    && reason != Refusal::Version
                {
                    self.note_unreached(key.to_owned(), u64::MAX, entry.revision);
                }
                acts.push(Act::Refused(Refused {
                    reason,
                    origin: None,
                    gate: None,
                    user: None,
                    source: None,
                    key: entry.key.clone(),
                }));
            }
        }
    }

    /// Hears again what a host has said before this one came, now that its time is known.
    fn hear_doubted(
        &mut self,
        origin: &str,
        serial: u64,
        now: Moment,
        policy: &impl Policy,
        acts: &mut Vec<Act>,
    ) {
        let Some(doubted) = self.doubted.remove(origin) else {
            return;
        };
        self.follow_clock(origin, serial, now, true);
        for doubted in doubted {
            let Doubted {
                gate,
                source,
                grant,
                renews_only,
            } = doubted;
            match self.hear_grant(&gate, source, &grant, now, policy, false) {
                Ok(give) => acts.extend(give.map(|give| {
                    Act::Give(Give {
                        renews_only,
                        ..give
                    })
                })),
                Err(reason) => {
                    acts.push(refused(reason, &gate, source, &grant, String::new()));
                    if !renews_only {
                        self.note_unfit(reason, (gate, source), grant, now);
                    }
                }
            }
        }
    }

    /// Takes a grant whose end is [in doubt](Give::doubt), and that was not given for that: there is one. It is heard again once
    /// the time of its host is known. Where that is known, it is the same grant.
    pub fn doubt(&mut self, give: Give) {
        if give.doubt > ALIKE {
            self.doubted_of(&give.grant.origin).push(Doubted {
                gate: give.gate,
                source: give.source,
                grant: give.grant,
                renews_only: true,
            });
        }
    }

    fn doubted_of(&mut self, origin: &str) -> &mut Vec<Doubted> {
        self.doubted.entry(origin.to_owned()).or_default()
    }

    /// Takes a grant that was refused when it was to be given.
    pub fn not_given(&mut self, give: Give, reason: Refusal, now: Moment) {
        if !give.renews_only {
            self.note_unfit(reason, (give.gate, give.source), give.grant, now);
        }
    }

    fn note_unfit(&mut self, reason: Refusal, place: (String, IpNet), grant: Grant, now: Moment) {
        if !matches!(reason, Refusal::Gate | Refusal::User | Refusal::Source) {
            return;
        }
        let ended = now.steady.saturating_add(grant.left * 1_000_000);
        self.unfit.insert(place, Unfit { grant, ended });
        if self.unfit.len() > UNFIT {
            let first = self.unfit.iter().min_by_key(|(_, unfit)| unfit.ended);
            if let Some(first) = first.map(|(place, _)| place.clone()) {
                self.unfit.remove(&first);
            }
        }
    }

    pub(super) fn forget_unfit(&mut self, now: Moment) {
        self.unfit.retain(|_, unfit| unfit.ended > now.steady);
    }

    /// Hears again what this host's rules did not allow, now that they are others.
    pub fn hear_unfit(&mut self, now: Moment, policy: &impl Policy) -> Vec<Act> {
        let mut acts = Vec::new();
        for (place, unfit) in std::mem::take(&mut self.unfit) {
            match self.hear_grant(&place.0, place.1, &unfit.grant, now, policy, false) {
                Ok(give) => acts.extend(give.map(Act::Give)),
                // It has been reported.
                Err(_) => {
                    self.unfit.insert(place, unfit);
                }
            }
        }
        acts
    }

    /// Hears of a grant of another host, and returns what of it is to be put into the tables.
    fn hear_grant(
        &mut self,
        gate: &str,
        source: IpNet,
        grant: &Grant,
        now: Moment,
        policy: &impl Policy,
        is_live: bool,
    ) -> Result<Option<Give>, Refusal> {
        let clock = self.follow_clock(&grant.origin, grant.serial, now, is_live);
        if grant.head.number > self.order.last().number {
            return Err(Refusal::Ahead);
        }
        let id = policy.gate(gate);
        // Counted from when it was given, however often that is said. By that host's time, as its end is.
        let open_for = id.map_or(u64::MAX, |id| policy.open_for(id));
        let end = grant.given.saturating_add(open_for / 1000);
        let end = end.min(grant.end.saturating_mul(1000));
        let written = if is_live {
            clock.earliest(now.steady)
        } else {
            clock.now(now.steady)
        };
        let mut left = end.saturating_sub(written).min(grant.left * 1000);
        // What the record says, whatever this host makes of it: hosts with other limits would contest it without end.
        let said = grant.end.saturating_mul(1000).saturating_sub(written);
        let said = said.min(grant.left * 1000);
        // Its record stands in the place of this host's own, also where it opens nothing here.
        if let Some(id) = id {
            let until = now.monotonic.saturating_add(said.saturating_mul(1000));
            self.contest((id, source), until, now);
        }
        let mut is_doubted = false;
        if !clock.is_live {
            // How long ago its host said so is known by this host's clock alone, and one of both may be wrong.
            let by_own_clock = end.saturating_sub(clock.ahead).saturating_sub(now.wall);
            is_doubted = left > by_own_clock.saturating_add(DOUBT);
            left = left.min(by_own_clock);
            if is_doubted && left < DOUBT {
                // It would end before its host's next word, which says how long it really lasts.
                left = 0;
            }
        }
        let doubted = |renews_only| Doubted {
            gate: gate.to_owned(),
            source,
            grant: grant.clone(),
            renews_only,
        };
        if left == 0 {
            if is_doubted {
                self.doubted_of(&grant.origin).push(doubted(false));
            }
            // Of what there is when this host comes, much has ended.
            return if is_live {
                Err(Refusal::Stale)
            } else {
                Ok(None)
            };
        }
        if !self.order.spares(grant.head, gate, &source) {
            return Ok(None);
        }
        let id = id.ok_or(Refusal::Gate)?;
        policy.admits(id, &source, grant.by(), now)?;
        let lasts = left.saturating_mul(1000).min(open_for);
        if is_doubted {
            self.doubted_of(&grant.origin).push(doubted(true));
        }
        self.received += 1;
        Ok(Some(Give {
            gate: gate.to_owned(),
            source,
            until: now.monotonic.saturating_add(lasts),
            grant: grant.clone(),
            doubt: if clock.is_live { ALIKE } else { DOUBT * 1000 },
            renews_only: false,
        }))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a record, and what it is held against"
    )]
    fn hear_own(
        &mut self,
        gate: &str,
        source: IpNet,
        grant: &Grant,
        now: Moment,
        policy: &impl Policy,
        is_live: bool,
        acts: &mut Vec<Act>,
    ) {
        self.follow_serial(grant.serial, now);
        let Some(gate) = policy.gate(gate) else {
            return;
        };
        if is_live {
            if let Some(own) = self.own.get(&(gate, source))
                && own.serial == grant.serial
                // It has failed, as far as was known.
                && own.handed != 0
            {
                let after = now.monotonic.saturating_sub(own.handed);
                self.lag = Some(after);
                acts.push(Act::Heard { after });
            }
        } else if Some(grant.head) == self.order.applied() {
            self.is_published((gate, source), grant.end, now);
        }
    }

    fn hear_host(
        &mut self,
        name: String,
        host: &Host,
        now: Moment,
        is_live: bool,
        entry: &Entry,
        acts: &mut Vec<Act>,
    ) {
        if name != self.name {
            self.follow_clock(&name, host.serial, now, is_live);
            if let Some(known) = self.hosts.get_mut(&name) {
                known.ahead = host.serial.saturating_sub(host.clock.saturating_mul(1000));
            }
            return;
        }
        self.follow_serial(host.serial, now);
        // What an earlier service of this host has written comes with all that there is.
        if is_live && host.run != self.about.run {
            acts.push(Act::Refused(Refused {
                reason: Refusal::Name,
                origin: Some(name),
                gate: None,
                user: None,
                source: None,
                key: entry.key.clone(),
            }));
        }
    }

    /// Notes that a host has given this time, and returns what is known of its time now.
    fn follow_clock(&mut self, name: &str, serial: u64, now: Moment, is_live: bool) -> Clock {
        let new = Clock {
            serial,
            at: now.steady,
            is_live,
            ahead: 0,
        };
        let Some(known) = self.hosts.get_mut(name) else {
            self.hosts.insert(name.to_owned(), new);
            return new;
        };
        known.is_live |= is_live;
        // The one that took the least time to come here is the best.
        if serial > known.earliest(now.steady) {
            known.serial = serial;
            known.at = now.steady;
        }
        *known
    }
}

fn refused(reason: Refusal, gate: &str, source: IpNet, grant: &Grant, key: String) -> Act {
    Act::Refused(Refused {
        reason,
        origin: Some(grant.origin.clone()),
        gate: Some(gate.to_owned()),
        user: grant.user.clone(),
        source: Some(source),
        key,
    })
}
