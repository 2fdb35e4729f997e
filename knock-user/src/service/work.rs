//! The work of the service, which comes up again and again.
//!
//! A part of it that fails for a while ends nothing, since the machine may be out of memory or of descriptors; see
//! [`Patience`].

use std::{
    collections::{BTreeSet, VecDeque},
    iter,
    path::Path,
    time::Duration,
};

use anyhow::{Result, bail};
use aya::maps::{MapData, RingBuf};
use jiff::Timestamp;
use knock_common::event::Kind;
use tokio::time::Instant;

use super::{
    complaint::Complaint,
    fleet::Member,
    fwknop::Gatekeeper,
    guard::{Guard, Seen},
    keys::Keys,
    log::{Log, Taken},
    manager::Readiness,
    memory::Memory,
    metrics::Endpoint,
    names,
    packets::Packets,
    patience::Patience,
    record::Record,
    reload::{self, Load},
    serving::Said,
    watch::Watch,
};
use crate::{
    config::OpenPorts,
    datapath::{self, Before, Busy, Datapath, Lock, PinRoot, Up, open_ports},
    sys::{capability, process},
    values::Port,
};

/// Which configuration the service works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Followed {
    /// The one in force, as before.
    Current,
    /// The one that is in force now, in place of another.
    Next,
    /// That cannot be told now: a command is at work, or nothing is up.
    NotNow,
}

/// How soon the grants are looked at again where that was not possible.
const REST: Duration = Duration::from_millis(100);

/// Events of threads taken at a time: more than may wait, and not so many that a flood keeps all else waiting.
const SAID_AT_ONCE: usize = 8192;

/// A command that has the lock for longer than this may be stopped.
const HELD: Duration = Duration::from_secs(10);

/// What the service works on, and what it has seen.
pub struct Work<'r> {
    root: &'r PinRoot,
    pub datapath: Datapath,
    pub log: Log,
    pub guard: Guard,
    pub gatekeeper: Gatekeeper,
    pub member: Member,
    /// Events of threads that were not added yet: the first may wait for the names of another configuration.
    waiting: VecDeque<Said>,
    /// The threads have ended, and are not started again.
    is_ending: bool,
    /// When the grants are looked at next.
    pub next_look_at_grants: Instant,
    watch: Watch,
    endpoint: Endpoint,
    /// The open ports that the tables have; `None`: those of an earlier service, or of another configuration.
    open: Option<BTreeSet<Port>>,
    keys: Keys,
    readiness: Readiness,
    grants: Patience,
    chores: Patience,
    interfaces: Patience,
    trial: Complaint,
    /// What was said of what a killed command has left.
    unsettled: Complaint,
    /// Since when a command has been at work, as far as this has met with it.
    busy: Option<Instant>,
    /// What was said of a command that goes on for too long.
    held: Complaint,
}

impl<'r> Work<'r> {
    /// Says what has come `up`, and takes up what an earlier service has left. `file`: the configuration.
    pub fn new(
        root: &'r PinRoot,
        mut datapath: Datapath,
        up: &Up,
        file: &Path,
        read: impl FnOnce(&mut Log, &Datapath, &Watch),
    ) -> Result<Self> {
        let packets = Packets::default();
        let member = Member::new(root, &packets);
        let mut log = Log::new(datapath.config(), &member);
        // What the earlier service has left is older than what the kernel has reported since.
        let watch = Watch::new(&datapath, Memory::of(root), &mut log)?;
        // Before grants are looked at: an end is said after the beginning.
        read(&mut log, &datapath, &watch);
        match up.before {
            Before::Nothing => log.say_of_gates(names::GATE_UP, &datapath),
            Before::Another => log.say(Record::now(names::CONFIG_APPLIED)),
            Before::Same => {}
        }
        let guard = Guard::new(root, &mut datapath, up, &mut log)?;
        let endpoint = Endpoint::new(root, log.hook_failures(), member.counts());
        Ok(Self {
            root,
            gatekeeper: Gatekeeper::new(root, file, &packets),
            datapath,
            log,
            guard,
            member,
            waiting: VecDeque::new(),
            is_ending: false,
            next_look_at_grants: Instant::now(),
            watch,
            endpoint,
            open: None,
            keys: Keys::new(up.unused_keys.as_ref()),
            readiness: Readiness::default(),
            grants: Patience::default(),
            chores: Patience::default(),
            interfaces: Patience::default(),
            trial: Complaint::default(),
            unsettled: Complaint::default(),
            busy: None,
            held: Complaint::default(),
        })
    }

    /// Starts the threads, and gives up the privileges that nothing needs from now on.
    pub fn begin(&mut self) -> Result<()> {
        self.refresh_open_ports()?;
        self.endpoint.listen(self.datapath.config());
        self.readiness.tell(&self.guard);
        // Interfaces, sockets and tables are open; what is done with them from now on needs no more. Threads have what the one has
        // that starts them.
        capability::give_up_others()?;
        self.endpoint.retry();
        self.gatekeeper.apply(self.datapath.config());
        self.member.apply(self.datapath.config());
        Ok(())
    }

    /// Applies the configuration file again.
    pub fn reload(&mut self, load: Load<'_>) {
        reload::reload(load, self.root, &mut self.log, self.readiness.is_ready);
    }

    /// Takes the events that threads and the kernel have reported. Returns whether to wait until there are more of the kernel's.
    pub fn take(&mut self, ring: &mut RingBuf<MapData>) -> bool {
        self.gather();
        while let Some(said) = self.waiting.pop_front() {
            if !self.add(said, ring) {
                // What was reported since waits with it.
                return true;
            }
        }
        self.take_reported(ring, None) != Taken::Some
    }

    /// Takes an event of a thread's, and what else was reported.
    pub fn hear(&mut self, said: Said, ring: &mut RingBuf<MapData>) {
        self.waiting.push_back(said);
        self.take(ring);
    }

    /// Returns whether events of threads wait for the names of another configuration.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Adds an event of a thread's, after what the kernel has reported before it: of a grant that a thread has given, the kernel
    /// reports the end, and a thread may give one where that has ended. Returns `false` where it waits for the names of another
    /// configuration, with all that threads have told since.
    fn add(&mut self, said: Said, ring: &mut RingBuf<MapData>) -> bool {
        let (_, record) = &said;
        let time = record.time;
        let taken = loop {
            match self.take_reported(ring, Some(time)) {
                Taken::Some => {}
                taken => break taken,
            }
        };
        if taken == Taken::UpToUnknown {
            self.waiting.push_front(said);
            return false;
        }
        let gate = record.gate.as_deref();
        let is_known = gate.is_none_or(|gate| self.datapath.applied.ids.gate(gate).is_some());
        // The thread may have seen that there is another configuration, whose hooks are to run. Others name gates of other hosts.
        if record.event == Kind::Opened.name() && !is_known {
            // Of the configuration before, as far as it has the names.
            while self.take_from(ring, false, None) == Taken::Some {}
            if self.follow_for_event().is_none() {
                self.waiting.push_front(said);
                return false;
            }
        }
        self.log.hear(said, &self.datapath.applied);
        self.note_many();
        true
    }

    /// Has what threads have told wait in its order.
    fn gather(&mut self) {
        let next = || {
            let next = self.gatekeeper.next_event();
            next.or_else(|| self.member.next_event())
        };
        let room = SAID_AT_ONCE.saturating_sub(self.waiting.len());
        self.waiting.extend(iter::from_fn(next).take(room));
        let waiting = self.waiting.make_contiguous();
        waiting.sort_by_key(|(_, record)| record.time);
    }

    /// Takes the events that the kernel has reported, as [`Log::take`] does. Those of a gate or a user that is not known wait for the
    /// configuration in force.
    fn take_reported(&mut self, ring: &mut RingBuf<MapData>, before: Option<Timestamp>) -> Taken {
        let mut is_current = false;
        loop {
            let taken = self.take_from(ring, is_current, before);
            if taken != Taken::UpToUnknown {
                return taken;
            }
            match self.follow_for_event() {
                Some(Followed::Next) => {}
                Some(Followed::Current | Followed::NotNow) => is_current = true,
                None => return taken,
            }
        }
    }

    /// As [`Log::take`].
    fn take_from(
        &mut self,
        ring: &mut RingBuf<MapData>,
        is_current: bool,
        before: Option<Timestamp>,
    ) -> Taken {
        let taken = self
            .log
            .take(ring, &self.datapath, &self.watch, is_current, before);
        self.note_many();
        taken
    }

    /// Notes what was told of grants, where the next look would find too much of it.
    fn note_many(&mut self) {
        if self.log.has_many_changes() {
            self.watch.note_all(&mut self.log, &self.datapath.applied);
        }
    }

    /// Follows the configuration for an event of a gate or a user that is not known, which may be new: names and hooks are those of
    /// the configuration in force. `None`: it is to wait until that can be read.
    fn follow_for_event(&mut self) -> Option<Followed> {
        match self.follow_configuration() {
            Ok(Followed::NotNow) if !self.is_held() => None,
            Ok(followed) => Some(followed),
            Err(_) => {
                // The look at the interfaces comes upon the same error, and reports it.
                self.guard.look_now();
                None
            }
        }
    }

    /// Ends the threads, and takes what is left, also events that have waited for the names of another configuration.
    pub fn take_last(&mut self, ring: &mut RingBuf<MapData>) {
        self.is_ending = true;
        self.gatekeeper.end();
        self.member.end();
        self.take(ring);
        loop {
            self.gather();
            if self.waiting.is_empty() {
                break;
            }
            while let Some(said) = self.waiting.pop_front() {
                while self.take_from(ring, true, Some(said.1.time)) == Taken::Some {}
                self.log.hear(said, &self.datapath.applied);
                self.note_many();
            }
        }
        while self.take_from(ring, true, None) == Taken::Some {}
    }

    pub fn look_at_grants(&mut self) -> Result<()> {
        let started = Instant::now();
        let looked = self.watch_grants();
        if let Ok(false) = looked {
            self.next_look_at_grants = started + REST;
            return Ok(());
        }
        // A table so large that reading it takes long is read less often.
        self.next_look_at_grants = started + self.watch.pause().max(started.elapsed() * 20);
        self.grants.bear(looked, Instant::now())?;
        Ok(())
    }

    /// Returns `false` where the tables cannot be told from those of another configuration: a command is at work, or has replaced
    /// this one.
    fn watch_grants(&mut self) -> Result<bool> {
        let Some(_lock) = self.lock()? else {
            return Ok(false);
        };
        if self.datapath.is_superseded()? {
            self.guard.look_now();
            return Ok(false);
        }
        self.watch.look(&self.datapath, &mut self.log)?;
        Ok(true)
    }

    /// Keeps commands from replacing the configuration; `None` where one is at work, for which the service does not wait, or where
    /// nothing is up.
    fn lock(&mut self) -> Result<Option<Lock>> {
        match self.root.try_lock() {
            Err(error) if error.is::<Busy>() => {
                self.busy.get_or_insert_with(Instant::now);
                if self.is_held()
                    && let Some(error) = self.held.about(&error)
                {
                    tracing::warn!(
                        "{error}: until then, no end of a grant is reported, no interface is repaired, and no newest times of \
                         keys are kept"
                    );
                }
                Ok(None)
            }
            lock => {
                self.busy = None;
                self.held.settle();
                lock
            }
        }
    }

    /// Returns whether a command has been at work for longer than any takes: it may be stopped.
    fn is_held(&self) -> bool {
        self.busy.is_some_and(|since| since.elapsed() > HELD)
    }

    pub fn do_chores(&mut self) -> Result<()> {
        let counted = self.datapath.lost().map(|lost| self.log.report_lost(lost));
        let done = counted.and_then(|()| self.refresh_open_ports());
        let done = done.and_then(|()| self.keys.retry(&mut self.datapath));
        self.keep_keys();
        process::reap_killed();
        self.endpoint.retry();
        self.gatekeeper.retry();
        self.member.apply(self.datapath.config());
        self.chores.bear(done, Instant::now())?;
        Ok(())
    }

    /// Follows what other processes have changed, and keeps the interfaces guarded. `due`: why now.
    pub fn look_at_interfaces(&mut self, due: Result<()>) -> Result<Seen> {
        let looked = due.and_then(|()| self.follow());
        if let Err(error) = &looked {
            self.guard.could_not_look(error);
        }
        let seen = self.interfaces.bear(looked, Instant::now())?;
        match seen {
            Some(Seen::Another) => bail!(
                "knockgate was brought up anew: it had been taken down, or pins of it had been removed; start the service again \
                 to serve what is up now"
            ),
            Some(Seen::Down) => return Ok(Seen::Down),
            Some(Seen::Up) | None => {}
        }
        self.readiness.tell(&self.guard);
        Ok(Seen::Up)
    }

    fn follow(&mut self) -> Result<Seen> {
        match datapath::settle_killed(self.root) {
            Err(error) => {
                if let Some(error) = self.unsettled.about(&error) {
                    tracing::warn!("{error}");
                }
            }
            Ok(is_settled) => {
                self.unsettled.settle();
                if is_settled {
                    self.keys.may_be_others();
                }
            }
        }
        self.follow_configuration()?;
        if reload::return_from_trial(&self.datapath, &mut self.trial) {
            self.follow_configuration()?;
        }
        if self.open.is_none() {
            self.refresh_open_ports()?;
        }
        let is_held = self.is_held();
        self.guard.look(&mut self.datapath, &mut self.log, is_held)
    }

    /// Goes on with the configuration that is in force now, where it is another one.
    fn follow_configuration(&mut self) -> Result<Followed> {
        let Some(lock) = self.lock()? else {
            return Ok(Followed::NotNow);
        };
        let Some(next) = self.datapath.reopened()? else {
            return Ok(Followed::Current);
        };
        // Ends are for the hooks of the gates that have ended, what has begun for those that there are now.
        let found = self.watch.follow(&self.datapath, &next, &mut self.log)?;
        self.datapath = next;
        self.keys.may_be_others();
        self.open = None;
        self.log.say(Record::now(names::CONFIG_APPLIED));
        self.log.configure(self.datapath.config());
        let settled = self.watch.settle(found, &self.datapath, &mut self.log);
        // Threads that are to end may wait for it.
        drop(lock);
        self.endpoint.apply(self.datapath.config());
        // What they would give at the end, nobody would say.
        if !self.is_ending {
            self.gatekeeper.apply(self.datapath.config());
            self.member.apply(self.datapath.config());
        }
        settled.map(|()| Followed::Next)
    }

    /// Reads again which ports the host listens on, where that decides what is open, and where the tables may have others.
    fn refresh_open_ports(&mut self) -> Result<()> {
        if self.open.is_some() && self.datapath.config().open_ports != OpenPorts::Auto {
            return Ok(());
        }
        let now = open_ports(self.datapath.config())?;
        if self.open.as_ref() != Some(&now) {
            self.datapath.set_open_ports(&now)?;
            self.open = Some(now);
        }
        Ok(())
    }

    /// Keeps the newest times of keys.
    pub fn keep_keys(&mut self) {
        self.keys.keep(&mut self.datapath);
    }

    /// Says that every gate is down, and that its grants have ended. `ring`: may tell of some that were given last.
    pub fn say_down(&mut self, ring: &mut RingBuf<MapData>) {
        self.take_last(ring);
        self.watch.end_all(&self.datapath, &mut self.log);
        self.log.say_of_gates(names::GATE_DOWN, &self.datapath);
    }

    /// Lets hooks and readers come to their end, and leaves to the next service what they do not finish.
    pub async fn finish(&mut self) {
        self.log.finish().await;
        self.watch.finish(&self.datapath, &mut self.log);
    }
}
