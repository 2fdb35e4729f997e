//! The thread: what the engine says goes into the tables, and what opens in the tables goes to the engine.

mod held;
mod kept;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, anyhow};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use knock_common::{event::Kind, knock::authenticated::key::NO_KEY, report::class};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use self::{
    held::{Knocks, Ring},
    kept::Kept,
};
use super::{Counts, Opened, Said, rules::Rules};
use crate::{
    config::Fleet,
    datapath::{
        Datapath, GrantRow, GrantsFull, Lock, NothingUp, PinRoot,
        keys::user_of,
        origin::{Holder, Origins},
    },
    fleet::{
        configuration_hash,
        engine::Engine,
        etcd::Etcd,
        keys::Keyring,
        record::{Codec, Refusal, Revocation},
        state::{About, Act, Answer, Give, Local, Moment, Place, Policy as _, Refused, State},
    },
    service::{
        names::{FLEET_ISOLATED, FLEET_JOINED, FLEET_REFUSED},
        packets::Packets,
        record::{Record, network_text, wall_clock},
    },
    sys::clock::monotonic_now,
};

/// How long a grant may go unnoticed that the kernel has not reported: it reports a bounded number a second.
const LOOK: Duration = Duration::from_secs(1);
/// The same where it is known that there is one.
const LOOK_SOON: Duration = Duration::from_millis(50);
/// For so long after the beginning it is no news that this host is isolated.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Writes that are handed to the engine at a time.
const WRITES: usize = 16;
/// The share of the room for grants that those of other hosts leave to knocks at this one: an eighth.
const RESERVED: u32 = 8;
/// Between two times that the times of other hosts are written down.
const KEEP: Duration = Duration::from_mins(1);
/// Refusals that are reported a second; all are counted.
const REPORTED: u32 = 8;

/// What the thread begins with.
pub struct Setup {
    pub root: PinRoot,
    pub fleet: Fleet,
    pub counts: Counts,
    /// The tables are to be looked at.
    pub look: Arc<AtomicBool>,
    pub packets: Packets,
    pub sender: mpsc::Sender<Said>,
}

impl Setup {
    /// Opens the tables, reads the keys, and begins to connect.
    pub fn begin(self) -> Result<Worker<Etcd>> {
        let keyring = Keyring::load(&self.fleet.keys)?;
        let engine = Etcd::start(self.fleet.clone());
        self.with(engine, keyring)
    }

    fn with<E: Engine>(self, engine: E, keyring: Keyring) -> Result<Worker<E>> {
        let Self {
            root,
            fleet,
            counts,
            look,
            packets,
            sender,
        } = self;
        let datapath = Datapath::open_unlocked(&root)?;
        let rules = Rules::of(&datapath)?;
        let name = fleet.host_name()?;
        let about = About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            configuration: configuration_hash(datapath.config()),
            run: getrandom::u64()
                .map_err(|error| anyhow!("the system's random source failed: {error}"))?,
        };
        let kept = Kept::of(&root, &fleet.name);
        let codec = Codec::new(&fleet.name, keyring);
        let state = State::new(codec, name, about, kept.memory().clone(), moment());
        counts.begin(Refusal::ALL.into_iter().map(Refusal::name));
        let (most, origins) = (most(&datapath), Origins::load(&root));
        let ring = Ring::of(&datapath)?;
        Ok(Worker {
            root,
            fleet: fleet.name,
            datapath,
            rules,
            state,
            engine,
            kept,
            origins,
            counts,
            look,
            packets,
            sender,
            live: 0,
            most,
            newest: Vec::new(),
            ring,
            held: Knocks::default(),
            link: Link::Beginning(Instant::now()),
            why: "no etcd member has answered yet".to_owned(),
            next_kept: Instant::now(),
            next_look: Instant::now(),
            last_look: Instant::now(),
            reported: (0, 0),
        })
    }
}

/// Whether this host is one of its fleet, as it was last reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Beginning(Instant),
    Joined,
    Isolated,
}

pub struct Worker<E> {
    root: PinRoot,
    fleet: String,
    datapath: Datapath,
    rules: Rules,
    state: State,
    engine: E,
    kept: Kept,
    origins: Origins,
    counts: Counts,
    look: Arc<AtomicBool>,
    packets: Packets,
    sender: mpsc::Sender<Said>,
    /// Live grants, as far as is known, and how many there may be with those of other hosts.
    live: u32,
    most: u32,
    /// The newest time of the key in each slot, as it was last seen.
    newest: Vec<u64>,
    /// Knocks that wait for the engine's word.
    ring: Ring,
    held: Knocks,
    link: Link,
    /// What keeps this host from etcd, as far as is known.
    why: String,
    next_kept: Instant,
    next_look: Instant,
    last_look: Instant,
    /// A second, and how many refusals were reported in it.
    reported: (u64, u32),
}

impl<E: Engine> Worker<E> {
    /// Serves until `stopped`.
    pub async fn serve(
        &mut self,
        opened: &mut mpsc::Receiver<Opened>,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<()> {
        loop {
            if self.next_look <= Instant::now() {
                self.look()?;
            }
            self.write();
            let wake = self.wake();
            tokio::select! {
                _ = &mut stopped => {
                    self.keep();
                    return Ok(());
                }
                message = self.engine.next() => {
                    let acts = self.state.hear(message, moment(), &self.rules);
                    self.act(acts)?;
                }
                Some(first) = opened.recv() => {
                    self.opened(first)?;
                    while let Ok(next) = opened.try_recv() {
                        self.opened(next)?;
                    }
                }
                knocks = self.ring.next() => {
                    for knock in knocks? {
                        self.hold(knock);
                    }
                }
                packet = self.packets.here.next() => {
                    self.state.accepted_packet(packet);
                    while let Some(packet) = self.packets.here.take() {
                        self.state.accepted_packet(packet);
                    }
                }
                () = sleep_until(wake) => {}
            }
            if self.look.swap(false, Ordering::Relaxed) {
                self.next_look = self.next_look.min(self.last_look + LOOK_SOON);
            }
        }
    }

    /// Returns when there is something to do, if nothing happens before.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let due = self.state.next_due().map(|due| {
            let until_then = due.saturating_sub(monotonic_now());
            // Not at once again and again: what the engine had no room for is due.
            now + Duration::from_nanos(until_then).max(Duration::from_millis(2))
        });
        due.map_or(self.next_look, |due| due.min(self.next_look))
    }

    /// Learns of a gate that has opened here.
    fn opened(&mut self, opened: Opened) -> Result<()> {
        if let Some(source) = self.rules.granted(opened.gate, opened.source)
            && let Some(row) = self.datapath.grant_of(source, opened.gate)?
            && let Some(local) = local(&row)
        {
            self.state.learn(local, moment());
        }
        if opened.key != NO_KEY {
            // It may have opened for the other family too.
            self.next_look = self.next_look.min(self.last_look + LOOK_SOON);
            if let Some(time) = self.datapath.newest_of(opened.key)? {
                self.note_time(opened.key, time);
            }
        }
        Ok(())
    }

    /// Looks at all grants: events may be lost, and grants end.
    fn look(&mut self) -> Result<()> {
        let started = Instant::now();
        if let Some(reopened) = self.datapath.reopened_unlocked()? {
            self.take_over(reopened)?;
        } else {
            self.rules.read_keys(&self.datapath)?;
        }
        self.live = 0;
        let (live, state, now) = (&mut self.live, &mut self.state, moment());
        self.datapath.each_grant(|row| {
            *live += 1;
            if let Some(local) = local(&row) {
                state.learn(local, now);
            }
        })?;
        self.state.forget_ended(moment());
        let slots = self.datapath.newest_by_slot()?;
        self.note_newest(&slots);
        if let Link::Beginning(since) = self.link
            && since.elapsed() >= PATIENCE
        {
            let why = self.why.clone();
            self.isolated(&why);
        }
        if self.next_kept <= Instant::now() {
            self.keep();
        }
        self.counts.set(self.state.published, self.state.received);
        // A table so large that reading it takes long is read less often.
        self.last_look = started;
        self.next_look = started + LOOK.max(started.elapsed() * 20);
        Ok(())
    }

    /// Goes on with the tables of the configuration that is in force now.
    fn take_over(&mut self, reopened: Datapath) -> Result<()> {
        self.datapath = reopened;
        self.rules = Rules::of(&self.datapath)?;
        self.state
            .describe(configuration_hash(self.datapath.config()));
        self.most = most(&self.datapath);
        self.ring = Ring::of(&self.datapath)?;
        self.newest.clear();
        Ok(())
    }

    fn note_newest(&mut self, slots: &[u64]) {
        for (slot, time) in (0..).zip(slots) {
            let known = self.newest.get(usize::from(slot));
            if known.is_none_or(|known| known < time) {
                self.note_time(slot, *time);
            }
        }
        self.newest = slots.to_vec();
    }

    fn note_time(&mut self, slot: u16, time: u64) {
        // What waits for the engine's word is accepted only by it.
        if self.datapath.config().holds_knocks() {
            return;
        }
        // All ones: the key accepts nothing yet.
        if time != 0
            && time != u64::MAX
            && let Some(name) = self.rules.key_in(slot)
        {
            self.state.accepted(name, time);
        }
    }

    /// Hands to the engine what is due.
    fn write(&mut self) {
        let (now, datapath) = (moment(), &self.datapath);
        let present = |(gate, source): Place| {
            let row = datapath.grant_of(source, gate).ok()??;
            local(&row)
        };
        let writes = self.state.writes(now, WRITES, &self.rules, present);
        for write in writes {
            let id = write.id;
            if !self.engine.write(write) {
                self.state.not_written(id, now);
            }
        }
    }

    fn act(&mut self, acts: Vec<Act>) -> Result<()> {
        let changes = |act: &Act| {
            matches!(
                act,
                Act::Give(_)
                    | Act::Revoke(_)
                    | Act::RevokeAll
                    | Act::Answered {
                        answer: Answer::Agreed,
                        ..
                    }
            )
        };
        let _lock = if acts.iter().any(changes) {
            self.lock()?
        } else {
            None
        };
        let mut revoked = Vec::new();
        for act in acts {
            match &act {
                Act::Revoke(revocation) => {
                    self.note(revocation, &mut revoked);
                    continue;
                }
                Act::RevokeAll => {
                    tracing::info!(
                        "this host has missed what was revoked in the fleet {}: all of its grants end",
                        self.fleet
                    );
                    revoked.extend(everyone().map(|network| (network, None)));
                    continue;
                }
                _ => {}
            }
            // In their order, and as many at once as follow each other: each takes a look at all grants.
            self.revoke(&mut revoked)?;
            match act {
                Act::Revoke(_) | Act::RevokeAll => {}
                Act::Give(give) => self.give(&give)?,
                Act::Newest { key, time } => self.raise_newest(&key.to_string(), time)?,
                Act::Packet(packet) => self.packets.elsewhere.put(packet),
                Act::Answered { ask, answer } => self.answered(ask, answer)?,
                Act::Refused(refused) => self.refuse(refused),
                Act::Heard { after } => self.counts.lag(Duration::from_nanos(after)),
                Act::Joined => self.joined(),
                Act::Isolated { why } => self.isolated(&why),
                Act::BeginAnew { why } => self.engine.begin_anew(why),
            }
        }
        self.revoke(&mut revoked)?;
        // What is in the tables is not put there again by the next service: what was given since would be revoked.
        if self.state.applied() != self.kept.memory().applied {
            self.keep();
        }
        self.counts.set(self.state.published, self.state.received);
        Ok(())
    }

    /// Writes down what the next service of this host is to begin with.
    fn keep(&mut self) {
        self.kept.set(self.state.memory());
        self.next_kept = Instant::now() + KEEP;
    }

    /// Has what is decided by stay in force while the tables are changed.
    fn lock(&mut self) -> Result<Option<Lock>> {
        let lock = self.root.lock_existing()?;
        if lock.is_none() || !self.datapath.is_pinned()? {
            return Err(anyhow!(NothingUp));
        }
        if let Some(reopened) = self.datapath.reopened()? {
            self.take_over(reopened)?;
        }
        Ok(lock)
    }

    /// Notes what is to be ended in the tables.
    fn note(&self, revocation: &Revocation, revoked: &mut Vec<(IpNet, Option<u16>)>) {
        tracing::info!(
            "{} has revoked {} at {} in the whole fleet",
            revocation.host,
            revocation
                .network
                .map_or_else(|| "all sources".to_owned(), |network| network.to_string()),
            revocation.gate.as_deref().unwrap_or("all gates"),
        );
        let gate = revocation.gate.as_deref().map(|name| self.rules.gate(name));
        // It may be a gate of other hosts.
        let Some(gate) = gate.map_or(Some(None), |known| known.map(Some)) else {
            return;
        };
        match revocation.network {
            Some(network) => revoked.push((network, gate)),
            None => revoked.extend(everyone().map(|network| (network, gate))),
        }
    }

    fn revoke(&mut self, revoked: &mut Vec<(IpNet, Option<u16>)>) -> Result<()> {
        if !revoked.is_empty() {
            self.datapath.revoke(revoked)?;
            revoked.clear();
        }
        Ok(())
    }

    fn give(&mut self, give: &Give) -> Result<()> {
        let (gate, source) = give.place;
        let holder = Holder {
            user: give.user,
            host: self.origins.number(&give.origin)?,
        };
        let given = if self.live >= self.most {
            Ok(None)
        } else {
            let (until, now) = (give.until, monotonic_now());
            self.datapath
                .admit_remote(source, gate, holder.number(), until, now)
                .map(Some)
        };
        match given {
            Ok(Some(true)) => {
                self.live += 1;
                self.say_opened(give);
            }
            Ok(Some(false)) => {}
            Ok(None) => self.refuse_full(give),
            Err(error) if error.is::<GrantsFull>() => self.refuse_full(give),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn refuse_full(&mut self, give: &Give) {
        let who = self.rules.who(give.user);
        let (gate, source) = give.place;
        self.refuse(Refused {
            reason: Refusal::TableFull,
            origin: Some(give.origin.clone()),
            gate: self.rules.gate_name(gate).map(ToOwned::to_owned),
            user: who.user,
            source: Some(source),
            key: String::new(),
        });
    }

    fn say_opened(&mut self, give: &Give) {
        let (gate, source) = give.place;
        let who = self.rules.who(give.user);
        let record = Record {
            gate: self.rules.gate_name(gate).map(ToOwned::to_owned),
            user: who.user,
            key: who.key,
            source: Some(network_text(source)),
            until: Some(wall_clock(give.until)),
            origin: Some(give.origin.clone()),
            ..Record::now(Kind::Opened.name())
        };
        self.say(Some(class::OPENINGS), record);
    }

    /// Refuses packets of a key that another host has accepted. A time that no packet can have yet would lock its user out.
    fn raise_newest(&mut self, key: &str, time: u64) -> Result<()> {
        let now = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
        let ahead = self.datapath.config().knock.max_ahead.as_nanos();
        let latest = now.saturating_add(u64::try_from(ahead).unwrap_or(u64::MAX));
        let slots = self.rules.slots_of(key).to_vec();
        if slots.is_empty() {
            return Ok(());
        }
        if time > latest {
            self.refuse(Refused {
                reason: Refusal::TooLong,
                origin: None,
                gate: None,
                user: Some(user_of(key).to_owned()),
                source: None,
                key: key.to_owned(),
            });
            return Ok(());
        }
        for slot in slots {
            self.datapath.raise_newest(slot, time)?;
        }
        Ok(())
    }

    fn joined(&mut self) {
        self.counts.join();
        if self.link != Link::Joined {
            self.link = Link::Joined;
            self.say(None, Record::now(FLEET_JOINED));
        }
    }

    fn isolated(&mut self, why: &str) {
        self.counts.isolate(why);
        let is_news = match self.link {
            // The first member may be the one that is away.
            Link::Beginning(since) => since.elapsed() >= PATIENCE,
            Link::Joined => true,
            Link::Isolated => false,
        };
        if is_news {
            self.link = Link::Isolated;
            self.say(None, because(FLEET_ISOLATED, why));
        } else {
            tracing::debug!("not one of the fleet {}: {why}", self.fleet);
            why.clone_into(&mut self.why);
        }
    }

    /// Counts a record that is not used, and reports it unless there were too many in this second.
    fn refuse(&mut self, refused: Refused) {
        let Refused {
            reason,
            origin,
            gate,
            user,
            source,
            key,
        } = refused;
        self.counts.refuse(reason.name());
        tracing::debug!("a record of the fleet is not used: {reason} ({key})");
        let second = monotonic_now() / 1_000_000_000;
        if self.reported.0 != second {
            self.reported = (second, 0);
        }
        if self.reported.1 >= REPORTED {
            return;
        }
        self.reported.1 += 1;
        let record = Record {
            gate,
            user,
            source: source.map(network_text),
            origin,
            ..because(FLEET_REFUSED, reason.name())
        };
        self.say(None, record);
    }

    fn say(&self, class: Option<u32>, record: Record) {
        // The service may be far behind, or about to end.
        let _ = self.sender.try_send((class, record));
    }
}

fn everyone() -> [IpNet; 2] {
    [Ipv4Net::default().into(), Ipv6Net::default().into()]
}

/// Returns how many grants there may be with those of other hosts.
fn most(datapath: &Datapath) -> u32 {
    let capacity = datapath.grants_capacity();
    capacity - capacity / RESERVED
}

/// Returns a grant that a knock at this host has earned; `None`: it is another's, or it is limited to a port, which means
/// nothing at another host: there its user's packets come from another one.
fn local(row: &GrantRow) -> Option<Local> {
    if row.port != 0 {
        return None;
    }
    let user = row.user.filter(|number| Holder::is_local_knock(*number))?;
    Some(Local {
        place: (row.gate, row.source),
        until: row.until,
        user,
    })
}

fn because(event: &str, reason: &str) -> Record {
    Record {
        reason: Some(reason.to_owned()),
        ..Record::now(event)
    }
}

/// Returns the time by both clocks.
pub fn moment() -> Moment {
    let wall = Timestamp::now().as_microsecond();
    Moment {
        monotonic: monotonic_now(),
        wall: u64::try_from(wall).unwrap_or(0),
    }
}
