//! The thread: packets from the ring, grants into the tables.

use std::{
    cell::RefCell,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{MapData, RingBuf};
use bytemuck::pod_read_unaligned;
use jiff::Timestamp;
use knock_common::{
    event::Kind,
    knock::fwknop::{Head, Outcome},
    report::class,
};
use tokio::{io::unix::AsyncFd, sync::mpsc, time::sleep};

use super::{Earlier, Held, Said, handed::Handed};
use crate::{
    config::Config,
    datapath::{Datapath, GrantsFull, NothingUp, PinRoot, padded_address},
    fwknop::{
        ceiling::Ceiling,
        keyring::{Accepted, Keyring, Opening, Refused},
    },
    service::{
        packets::Packets,
        record::{Record, wall_clock},
        serving::Stopped,
    },
    sys::clock::monotonic_now,
    values::{Port, Protocol},
};

/// Packets taken from the ring at a time.
const AT_ONCE: usize = 1024;
/// Where there are more than these at a time, the next are waited for: a reader that keeps up with a flood has the kernel
/// wake it for each packet.
const FLOOD: usize = 64;
const PAUSE: Duration = Duration::from_millis(2);
/// Refusals that are reported a second for each outcome: of packets that anyone can send, and of those that only a key can
/// have made.
const UNKNOWN_PER_SECOND: u32 = 4;
const OF_KEYS_PER_SECOND: u32 = 64;

/// What the thread has.
pub struct Worker {
    root: PinRoot,
    file: PathBuf,
    earlier: Arc<Mutex<Earlier>>,
    datapath: Datapath,
    keys: Keyring,
    handed: Handed,
    packets: Packets,
    ceiling: Ceiling,
    counts: Counts,
    sender: mpsc::Sender<Said>,
    stopped: Stopped,
    /// By outcome: a second, and how many were reported in it.
    reported: [(u64, u32); Outcome::COUNT],
}

/// What became of the packets, and which of these numbers the kernel's table does not have yet.
struct Counts {
    values: [u64; Outcome::COUNT],
    changed: u32,
}

impl Worker {
    pub fn new(
        root: PinRoot,
        file: PathBuf,
        earlier: Arc<Mutex<Earlier>>,
        handed: Handed,
        packets: Packets,
        sender: mpsc::Sender<Said>,
        stopped: Stopped,
    ) -> Result<Self> {
        let datapath = Datapath::open_unlocked(&root)?;
        let counts = Counts {
            values: datapath.fwknop_counted()?,
            changed: 0,
        };
        let ceiling = Ceiling::new(datapath.config().fwknop.refusals);
        let mut worker = Self {
            root,
            file,
            earlier,
            datapath,
            keys: Keyring::default(),
            handed,
            packets,
            ceiling,
            counts,
            sender,
            stopped,
            reported: [(0, 0); Outcome::COUNT],
        };
        worker.read_keys();
        Ok(worker)
    }

    /// Serves until it is stopped.
    pub async fn serve(&mut self) -> Result<()> {
        let mut stopped = self.stopped.clone();
        let ring = self.datapath.fwknop_ring()?;
        // SAFETY: the ring owns its descriptor and keeps it until it is dropped; nothing replaces it.
        let mut ring = unsafe { AsyncFd::register(ring) }.context("cannot wait for packets")?;
        tracing::debug!("waiting for clients of fwknop");
        let elsewhere = self.packets.elsewhere.clone();
        loop {
            let mut taken = tokio::select! {
                // What other hosts have accepted comes first: it may be a copy that is read next.
                biased;
                () = stopped.wait() => return Ok(()),
                packet = elsewhere.next() => {
                    self.handed.seen.hear(packet, unix_time());
                    continue;
                }
                ready = ring.readable_mut() => {
                    let mut ready = ready?;
                    let taken = self.take(ready.get_inner_mut());
                    // The kernel wakes only a reader that had read everything.
                    if taken < AT_ONCE {
                        ready.clear_ready();
                    }
                    taken
                }
            };
            self.counts.write(&mut self.datapath)?;
            while taken > FLOOD {
                // One that has left some goes on at once: the ring fills faster than it rests.
                if taken < AT_ONCE {
                    sleep(PAUSE).await;
                }
                if stopped.has_come() {
                    return Ok(());
                }
                // Those that came meanwhile have woken nobody.
                taken = self.take(ring.get_mut());
                self.counts.write(&mut self.datapath)?;
            }
        }
    }

    /// Takes packets from the ring; returns how many.
    fn take(&mut self, ring: &mut RingBuf<MapData>) -> usize {
        while let Some(packet) = self.packets.elsewhere.take() {
            self.handed.seen.hear(packet, unix_time());
        }
        for taken in 0..AT_ONCE {
            let Some(item) = ring.next() else {
                return taken;
            };
            if let Some((head, payload)) = parts(&item) {
                self.process(head, payload);
            }
        }
        AT_ONCE
    }

    fn process(&mut self, head: Head, payload: &[u8]) {
        let source = padded_address(head.source, head.family == 4);
        match self.judge(head, payload, source) {
            Ok(()) => self.counts.add(Outcome::Opened),
            Err(refused) => {
                self.counts.add(refused.outcome);
                self.report(head, source, refused);
            }
        }
    }

    /// Gives the grants that a packet asks for, if it is right.
    fn judge(&mut self, head: Head, payload: &[u8], source: IpAddr) -> Result<(), Refused> {
        self.keys.filter(payload, source)?;
        let now = Duration::from_nanos(monotonic_now());
        if !self.ceiling.admits(source, now) {
            return Err(Refused::of(Outcome::Limit, None));
        }
        let seen = &mut self.handed.seen;
        let accepted = self.keys.judge(payload, source, unix_time(), seen)?;
        self.ceiling.give_back(source);
        if self.datapath.config().fleet.is_some()
            && let Some(packet) = self.handed.seen.fingerprint(payload)
        {
            self.packets.here.put(packet);
        }
        let user = accepted.user.clone();
        self.give(head, accepted, source).map_err(|error| {
            let outcome = match error {
                NotGiven::Refused(outcome) => outcome,
                NotGiven::Failed(error) if error.is::<GrantsFull>() => {
                    tracing::warn!("{error}");
                    Outcome::TableFull
                }
                NotGiven::Failed(error) => {
                    tracing::error!("cannot let in a client of fwknop's: {error:#}");
                    Outcome::Failed
                }
            };
            Refused::of(outcome, Some(user))
        })
    }

    /// Gives the grants that an accepted packet asks for, and reports each.
    fn give(&mut self, head: Head, mut accepted: Accepted, source: IpAddr) -> Result<(), NotGiven> {
        // First, so that what is decided by stays in force until the grants are given.
        let lock = self.root.lock_unless(|| self.stopped.has_come())?;
        if lock.is_none() || !self.datapath.is_pinned()? {
            return Err(anyhow!(NothingUp).into());
        }
        if let Some(reopened) = self.datapath.reopened()? {
            let before = std::mem::take(&mut self.keys);
            self.datapath = reopened;
            self.read_keys();
            // Its key may be gone, or open other gates now.
            let moved = self.keys.again(&before, accepted);
            accepted = moved.ok_or(NotGiven::Refused(Outcome::Forged))?;
        }
        let config = self.datapath.config();
        let openings = self
            .keys
            .openings(&accepted, source, config)
            .map_err(NotGiven::Refused)?;
        let timeout = accepted.request.timeout.map(u64::from);
        let timeout = timeout.map_or(Duration::MAX, Duration::from_secs);
        let mut has_opened = false;
        for opening in openings {
            // The grant may be used up at once, which is said after it.
            let time = Timestamp::now();
            let given = self.datapath.admit(
                opening.address,
                &opening.gate,
                &opening.user,
                timeout,
                monotonic_now(),
            );
            match given {
                Ok(until) => {
                    self.opened(time, head, &opening, until);
                    has_opened = true;
                }
                // Without room for all of them, it has opened some.
                Err(error) if has_opened && error.is::<GrantsFull>() => {
                    tracing::warn!("{error}");
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes the secrets of the keys in force from the file.
    fn read_keys(&mut self) {
        let file = match Config::load_quietly(&self.file) {
            Ok(config) => config.gates,
            Err(invalid) => {
                tracing::error!("cannot read the keys of fwknop's clients: {invalid}");
                Vec::new()
            }
        };
        let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        let of_file = file.iter().flat_map(|gate| {
            gate.fwknop.iter().map(|key| Held {
                gate: gate.name.clone(),
                key: key.clone(),
            })
        });
        let known: Vec<Held> = of_file.chain(earlier.all().cloned()).collect();
        let used = RefCell::new(Vec::new());
        let (keys, missing) = Keyring::new(self.datapath.config(), |gate, key| {
            let held = known.iter().find(|held| held.is(gate, key))?;
            used.borrow_mut().push(held.clone());
            Some(held.key.secrets.clone())
        });
        earlier.now(used.into_inner());
        self.keys = keys;
        for (gate, user) in missing {
            tracing::error!(
                "{} has no key of user {user} of gate {gate}, or has another one than is in force: this client of fwknop \
                 is not let in until `knockgate reload`",
                self.file.display()
            );
        }
    }

    fn opened(&self, time: Timestamp, head: Head, opening: &Opening, until: u64) {
        let record = Record {
            time,
            gate: Some(opening.gate.clone()),
            user: Some(opening.user.clone()),
            source: Some(opening.address.to_string()),
            port: Some(port(head)),
            until: Some(wall_clock(until)),
            ..Record::now(Kind::Opened.name())
        };
        self.say(class::OPENINGS, record);
    }

    /// Reports a packet that was refused, unless there were too many of its kind in this second.
    fn report(&mut self, head: Head, source: IpAddr, refused: Refused) {
        let Refused { outcome, user } = refused;
        // Only counted: there are too many of them.
        if outcome == Outcome::Limit {
            return;
        }
        let second = monotonic_now() / 1_000_000_000;
        let (of, reported) = &mut self.reported[outcome as usize];
        if *of != second {
            (*of, *reported) = (second, 0);
        }
        let most = if user.is_some() {
            OF_KEYS_PER_SECOND
        } else {
            UNKNOWN_PER_SECOND
        };
        if *reported >= most {
            return;
        }
        *reported += 1;
        let (class, event) = match outcome {
            Outcome::TableFull => (class::REFUSALS, Kind::Refused),
            _ => (class::FAILURES, Kind::Failed),
        };
        let record = Record {
            user,
            source: Some(source.to_string()),
            port: Some(port(head)),
            reason: Some(outcome.name().to_owned()),
            ..Record::now(event.name())
        };
        self.say(class, record);
    }

    fn say(&self, class: u32, record: Record) {
        // The service may be far behind, or about to end.
        let _ = self.sender.try_send((Some(class), record));
    }
}

/// Why no grant was given for a packet that is right.
enum NotGiven {
    Refused(Outcome),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for NotGiven {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl Counts {
    fn add(&mut self, outcome: Outcome) {
        self.values[outcome as usize] += 1;
        self.changed |= 1 << outcome as u32;
    }

    /// Writes what has changed to the kernel's table, from which commands read it.
    fn write(&mut self, datapath: &mut Datapath) -> Result<()> {
        for outcome in Outcome::ALL {
            if self.changed & 1 << outcome as u32 != 0 {
                datapath.set_fwknop_count(outcome, self.values[outcome as usize])?;
            }
        }
        self.changed = 0;
        Ok(())
    }
}

/// Takes a record apart; `None` where it is not of this build's form.
fn parts(item: &[u8]) -> Option<(Head, &[u8])> {
    let (head, payload) = item.split_at_checked(size_of::<Head>())?;
    let head: Head = pod_read_unaligned(head);
    Some((head, payload.get(..usize::from(head.length))?))
}

fn port(head: Head) -> Port {
    Port {
        number: head.destination_port,
        protocol: Protocol::Udp,
    }
}

pub fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
