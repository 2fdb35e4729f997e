//! The thread: what the engine says goes into the tables, and what opens in the tables goes to the engine.

mod given;
mod held;
mod in_force;
mod kept;
mod locked;
mod newest;
mod said;

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
use knock_common::knock::authenticated::key::NO_KEY;
use tokio::{
    select,
    sync::mpsc,
    time::{Instant, sleep_until},
};

use self::{
    held::{Knocks, Ring},
    kept::Kept,
    locked::{Behind, next_until},
    newest::Newest,
};
use super::{Counts, Opened, Said, done_here::DoneHere, rules::Rules};
use crate::{
    config::Fleet,
    datapath::{
        Datapath, GrantRow, PinRoot, Scope,
        origin::{Holder, Origins},
    },
    fleet::{
        configuration_hash,
        engine::{Engine, Message},
        etcd::Etcd,
        keys::Keyring,
        record::{Codec, Mark, Revocation},
        state::{About, Act, Answer, Local, Moment, Place, Policy as _, State},
    },
    service::{complaint::Complaint, memory::boot, packets::Packets, serving::Stopped},
    sys::clock::{monotonic_now, steady_now},
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
    pub fn begin(self, stopped: Stopped) -> Result<Worker<Etcd>> {
        let keyring = Keyring::load(&self.fleet.keys)?;
        let engine = Etcd::start(self.fleet.clone());
        self.with(engine, keyring, stopped)
    }

    fn with<E: Engine>(self, engine: E, keyring: Keyring, stopped: Stopped) -> Result<Worker<E>> {
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
            boot: boot(),
        };
        let kept = Kept::of(&root, &fleet.name);
        let codec = Codec::new(&fleet.name, keyring);
        let state = State::new(codec, name, about, kept.memory().clone(), moment());
        let (most, origins) = (most(&datapath), Origins::load(&root));
        let done_here = DoneHere::of(&root);
        let held = Knocks::after(done_here.last());
        let (ring, left) = Ring::of(&datapath)?;
        let worker = Worker {
            done_here,
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
            stopped,
            live: 0,
            most,
            newest: Newest::default(),
            unnumbered: Complaint::default(),
            ring,
            held,
            link: Link::Beginning(Instant::now()),
            why: "no etcd member has answered yet".to_owned(),
            next_kept: Instant::now(),
            next_look: Instant::now(),
            last_look: Instant::now(),
            next_left: Instant::now(),
            reported: (0, 0),
            has_other_rules: false,
            behind: None,
        };
        worker.refuse_left(left);
        Ok(worker)
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
    done_here: DoneHere,
    origins: Origins,
    counts: Counts,
    look: Arc<AtomicBool>,
    packets: Packets,
    sender: mpsc::Sender<Said>,
    stopped: Stopped,
    /// Live grants, as far as is known, and how many there may be with those of other hosts.
    live: u32,
    most: u32,
    newest: Newest,
    /// Why a host has no number of its own.
    unnumbered: Complaint,
    /// Knocks that wait for the engine's word.
    ring: Ring,
    held: Knocks,
    link: Link,
    /// What keeps this host from etcd, as far as is known.
    why: String,
    next_kept: Instant,
    next_look: Instant,
    last_look: Instant,
    /// When the ring of knocks that wait is read, though nothing is known to be in it: then it is known which came before a
    /// revocation.
    next_left: Instant,
    /// A second, and how many refusals were reported in it.
    reported: (u64, u32),
    /// The rules are others than those by which the engine's records were heard.
    has_other_rules: bool,
    /// What has come while a command kept the tables locked is still to be heard.
    behind: Option<Behind>,
}

impl<E: Engine> Worker<E> {
    /// Serves until it is stopped.
    pub async fn serve(&mut self, opened: &mut mpsc::Receiver<Opened>) -> Result<()> {
        let served = self.go_on(opened).await;
        if served.is_ok() {
            // Else some of what it was told may not be in the tables.
            self.keep();
        }
        self.refuse_waiting();
        for packet in self.state.take_untold() {
            self.packets.here.put(packet);
        }
        served
    }

    async fn go_on(&mut self, opened: &mut mpsc::Receiver<Opened>) -> Result<()> {
        let mut stopped = self.stopped.clone();
        loop {
            if self.next_look <= Instant::now() {
                self.look()?;
            }
            if self.next_left <= Instant::now() {
                self.hold_left()?;
                self.next_left = Instant::now() + LOOK;
            }
            if std::mem::take(&mut self.has_other_rules) {
                self.hear_by_other_rules().await?;
            }
            self.write();
            let wake = self.wake();
            let quiet = self.behind.map(|behind| behind.quiet);
            select! {
                () = stopped.wait() => return Ok(()),
                message = next_until(&mut self.engine, quiet) => self.hear_next(message).await?,
                Some(first) = opened.recv() => {
                    self.opened(first)?;
                    while let Ok(next) = opened.try_recv() {
                        self.opened(next)?;
                    }
                }
                knocks = self.ring.next() => {
                    for knock in knocks? {
                        self.hold(knock)?;
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

    async fn hear(&mut self, message: Message) -> Result<()> {
        let acts = self.state.hear(message, moment(), &self.rules);
        self.act(acts).await
    }

    /// Returns when there is something to do, if nothing happens before.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let due = self.state.next_due().map(|due| {
            let until_then = due.saturating_sub(monotonic_now());
            // Not at once again and again: what the engine had no room for is due.
            now + Duration::from_nanos(until_then).max(Duration::from_millis(2))
        });
        let next = self.next_look.min(self.next_left);
        due.map_or(next, |due| due.min(next))
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
            let time = self.datapath.accepted_in(opened.key)?;
            self.note_time(opened.key, time);
        }
        Ok(())
    }

    /// Looks at all grants: events may be lost, and grants end.
    fn look(&mut self) -> Result<()> {
        let started = Instant::now();
        self.read_rules()?;
        self.live = 0;
        let (live, state, now) = (&mut self.live, &mut self.state, moment());
        self.datapath.each_grant(|row| {
            *live += 1;
            if let Some(local) = local(&row) {
                state.learn(local, now);
            }
        })?;
        self.state.forget_ended(moment());
        // Not from when each counts: a key that begins does so at a time that no host may have accepted a packet of.
        let accepted = self.datapath.accepted_by_slot()?;
        self.note_accepted(accepted);
        self.raise_reached()?;
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

    async fn act(&mut self, acts: Vec<Act>) -> Result<()> {
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
            Some(self.lock().await?)
        } else {
            None
        };
        let settles =
            |act: &Act| matches!(act, Act::Answered { .. } | Act::Revoke(_) | Act::RevokeAll);
        if acts.iter().any(settles) {
            // What closes comes before what the engine has agreed to by now, and what was asked for before what is revoked.
            self.hold_left()?;
        }
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
                    self.drop_revoked(None);
                    revoked.extend(everyone().map(|network| Scope::of(network, None)));
                    continue;
                }
                _ => {}
            }
            // In their order, and as many at once as follow each other: each takes a look at all grants.
            self.revoke(&mut revoked)?;
            match act {
                Act::Revoke(_) | Act::RevokeAll => {}
                Act::Give(give) => self.give(give)?,
                Act::Newest { key, time } => self.raise_newest(&key.to_string(), time)?,
                Act::Packet(packet) => self.packets.elsewhere.put(packet),
                Act::Answered { ask, answer } => self.answered(ask, answer)?,
                Act::Refused(refused) => self.refuse(refused),
                Act::Heard { after } => self.counts.lag(Duration::from_nanos(after)),
                Act::Joined => self.joined(),
                Act::Isolated { why } => self.isolated(&why),
                Act::BeginAnew { why } => self.engine.begin_anew(why),
                Act::CannotWrite { why } => tracing::warn!(
                    "etcd takes no writes: {why}; the other hosts of the fleet {} do not hear of what opens here",
                    self.fleet
                ),
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
        self.kept.set(self.state.memory(moment()));
        self.next_kept = Instant::now() + KEEP;
    }

    /// Notes what is to be ended in the tables.
    fn note(&mut self, revocation: &Revocation, revoked: &mut Vec<Scope>) {
        tracing::info!(
            "{} has revoked {} at {} in the whole fleet",
            revocation.host,
            revocation
                .network
                .map_or_else(|| "all sources".to_owned(), |network| network.to_string()),
            revocation.gate.as_deref().unwrap_or("all gates"),
        );
        let spares_own = self.done_here.has(revocation.nonce);
        if !spares_own {
            self.drop_revoked(Some(revocation));
        }
        let gate = revocation.gate.as_deref().map(|name| self.rules.gate(name));
        // It may be a gate of other hosts.
        let Some(gate) = gate.map_or(Some(None), |known| known.map(Some)) else {
            return;
        };
        let networks = match revocation.network {
            Some(network) => vec![network],
            None => everyone().to_vec(),
        };
        revoked.extend(networks.into_iter().map(|network| Scope {
            spares_own,
            ..Scope::of(network, gate)
        }));
    }

    fn revoke(&mut self, revoked: &mut Vec<Scope>) -> Result<()> {
        if !revoked.is_empty() {
            self.datapath.revoke(revoked)?;
            revoked.clear();
        }
        Ok(())
    }
}

/// See [`super::applied`].
pub fn applied(root: &PinRoot, fleet: &str) -> Option<Mark> {
    Kept::of(root, fleet).memory().applied
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

/// Returns the time by all clocks.
pub fn moment() -> Moment {
    let wall = Timestamp::now().as_microsecond();
    Moment {
        monotonic: monotonic_now(),
        steady: steady_now(),
        wall: u64::try_from(wall).unwrap_or(0),
    }
}
