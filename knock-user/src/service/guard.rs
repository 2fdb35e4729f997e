//! Keeps the program attached to its interfaces.
//!
//! The interfaces are checked when the kernel reports a change of one or of an address, and every few seconds besides, since
//! the kernel reports nothing when a program is detached, and may lose a report.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};

use super::{
    complaint::Complaint,
    log::Log,
    names::{INTERFACE_GUARDED, INTERFACE_LOST},
    record::Record,
};
use crate::{
    datapath::{
        self, Attachment, Before, Busy, Datapath, Lack, PinRoot, Renewed, Repair, TRIAL_LAPSED,
        TrialState, Up,
    },
    sys::{
        link_events::LinkEvents,
        routes::{self, LocalRoute},
    },
};

/// How long a change that is not reported may go unnoticed.
const PAUSE: Duration = Duration::from_secs(2);
/// Least time between two checks, so that an interface that goes up and down all the time costs no more.
const REST: Duration = Duration::from_millis(100);

/// The interfaces as they were last seen.
pub struct Guard {
    root: PinRoot,
    link_events: AsyncFd<LinkEvents>,
    /// Why each configured interface is not guarded; `None` where it is.
    known: BTreeMap<String, Option<Lack>>,
    /// Present names of interfaces that have been renamed, by index.
    renamed: BTreeMap<u32, String>,
    /// The last error of each interface that refuses the program.
    refused: BTreeMap<String, Complaint>,
    next_look: Instant,
    last_look: Instant,
    /// The state of the interfaces in a line, for the service manager.
    pub summary: String,
    /// The program is in its place for every configured interface that exists, but for those that were taken down.
    pub is_in_place: bool,
    /// A trial has ended, and has been said to have.
    has_lapsed: bool,
    routes: Routes,
    /// The last error of what is to follow on each interface.
    unfit: BTreeMap<String, Complaint>,
    /// Why packets may not come to the program in its slot, as of the last look. `None`: before the first one, as what has brought it up
    /// has said it.
    in_the_way: Option<BTreeSet<String>>,
}

/// Whether the datapath is still up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Up,
    Down,
    /// Another one has been brought up in its place.
    Another,
}

impl Guard {
    pub fn new(root: &PinRoot, datapath: &mut Datapath, up: &Up, log: &mut Log) -> Result<Self> {
        let link_events = LinkEvents::open().context("cannot watch the interfaces")?;
        // SAFETY: the socket is owned by this value until it is dropped; nothing replaces its descriptor.
        let link_events = unsafe { AsyncFd::register(link_events) };
        let now = Instant::now();
        let mut guard = Self {
            root: root.clone(),
            link_events: link_events.context("cannot watch the interfaces")?,
            known: BTreeMap::new(),
            renamed: BTreeMap::new(),
            refused: BTreeMap::new(),
            next_look: now,
            last_look: now,
            summary: String::new(),
            is_in_place: false,
            has_lapsed: false,
            routes: Routes {
                local: Vec::new(),
                next_look: now,
            },
            unfit: BTreeMap::new(),
            in_the_way: None,
        };
        for (name, error) in &up.failed {
            guard.refuse(name, error);
        }
        for guarded in up.guarded.iter().filter(|_| up.before == Before::Same) {
            log.say(event(INTERFACE_GUARDED, &guarded.interface, None));
        }
        guard.compare(&up.attachments, &datapath.config().interfaces, log);
        // Said by what has taken it over. The service is ready all the same: nobody would start it otherwise.
        guard.see_whether_lapsed(datapath)?;
        guard.update_host_state(datapath, &up.attachments)?;
        Ok(guard)
    }

    /// Waits until the next check is due.
    pub async fn is_due(&mut self) -> Result<()> {
        tokio::select! {
            () = sleep_until(self.next_look) => {}
            ready = self.link_events.readable() => {
                let mut ready = ready?;
                // First: what comes meanwhile makes it ready again, and an error does not leave it so.
                ready.clear_ready();
                ready.get_inner().discard().context("cannot watch the interfaces")?;
                self.next_look = self.next_look.min(self.last_look + REST);
                sleep_until(self.next_look).await;
            }
        }
        Ok(())
    }

    /// Has the next check come at once.
    pub fn look_now(&mut self) {
        self.next_look = Instant::now();
    }

    /// Puts the next check off after one that failed, and has the service manager told so.
    pub fn could_not_look(&mut self, error: &anyhow::Error) {
        self.next_look = Instant::now() + PAUSE;
        self.summary = format!("cannot check whether the interfaces are guarded: {error:#}");
    }

    /// Checks every interface, and attaches the program again where it is missing. `is_held`: the command that has the lock may
    /// never let go of it.
    pub fn look(&mut self, datapath: &mut Datapath, log: &mut Log, is_held: bool) -> Result<Seen> {
        self.last_look = Instant::now();
        self.next_look = self.last_look + PAUSE;
        let _lock = match self.root.try_lock() {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(Seen::Down),
            Err(error) if error.is::<Busy>() => {
                if is_held {
                    self.only_look(datapath, log);
                } else {
                    // Another command is changing the pins, so what is seen now may be half of its change.
                    self.next_look = self.last_look + REST;
                }
                return Ok(Seen::Up);
            }
            Err(error) => return Err(error),
        };
        if !datapath.is_pinned()? {
            return Ok(if datapath.is_replaced()? {
                Seen::Another
            } else {
                Seen::Down
            });
        }
        let mut attachments = datapath.attachments()?;
        self.compare(&attachments, &datapath.config().interfaces, log);
        if attachments.iter().any(Attachment::needs_repair) {
            let Repair { guarded, failed } = datapath::repair(datapath, &self.root)?;
            for (name, error) in &failed {
                self.refuse(name, error);
            }
            if !guarded.is_empty() {
                attachments = datapath.attachments()?;
                self.compare(&attachments, &datapath.config().interfaces, log);
            }
        }
        self.say_whether_lapsed(datapath)?;
        self.renew_next(datapath, &attachments);
        self.look_before(datapath)?;
        self.update_host_state(datapath, &attachments)?;
        Ok(Seen::Up)
    }

    /// Checks every interface where none can be repaired. An error ends nothing: the command that has the lock may have left the
    /// pins half changed, and no new service would find them otherwise.
    fn only_look(&mut self, datapath: &Datapath, log: &mut Log) {
        let seen = datapath.attachments().and_then(|attachments| {
            self.compare(&attachments, &datapath.config().interfaces, log);
            self.say_whether_lapsed(datapath)
        });
        if let Err(error) = seen {
            self.could_not_look(&error);
        }
        self.summary += "; another knockgate command goes on for too long: until it ends, no interface is repaired";
    }

    /// Reports what has changed.
    fn compare(&mut self, attachments: &[Attachment], configured: &[String], log: &mut Log) {
        let mut words = Vec::new();
        self.is_in_place = true;
        for row in attachments {
            let name = &row.name;
            match &row.state {
                Ok(attached) => {
                    words.push(format!("{name} is guarded ({})", attached.name()));
                    self.follow(row);
                }
                Err(lack) => {
                    words.push(format!("{name} is NOT GUARDED: {lack}"));
                    self.is_in_place &=
                        row.index.is_none() || !row.needs_repair() || *lack == Lack::Down;
                }
            }
        }
        self.summary = words.join("; ");
        for name in configured {
            let missing = attachments
                .iter()
                .find(|row| row.configured == *name && row.state.is_err());
            let now = missing.and_then(|row| row.state.as_ref().err()).cloned();
            let before = self.known.insert(name.clone(), now.clone());
            match (before, now) {
                // It was guarded, or this is the first check.
                (Some(None) | None, Some(lack)) => {
                    tracing::warn!("{name} is NOT GUARDED: {lack}");
                    log.say(event(INTERFACE_LOST, name, Some(lack.word())));
                }
                (Some(Some(_)), None) => {
                    self.refused.remove(name);
                    log.say(event(INTERFACE_GUARDED, name, None));
                }
                (Some(Some(before)), Some(lack)) if before != lack => {
                    tracing::warn!("{name} is NOT GUARDED: {lack}");
                }
                _ => {}
            }
        }
    }

    /// Says that a trial has ended: then no interface is guarded, though each carries the program.
    fn say_whether_lapsed(&mut self, datapath: &Datapath) -> Result<()> {
        let was_lapsed = self.has_lapsed;
        self.see_whether_lapsed(datapath)?;
        if self.has_lapsed {
            self.is_in_place = false;
            if !was_lapsed {
                tracing::warn!("{}", self.summary);
            }
        }
        Ok(())
    }

    fn see_whether_lapsed(&mut self, datapath: &Datapath) -> Result<()> {
        self.has_lapsed = datapath.trial()? == TrialState::Lapsed;
        if self.has_lapsed {
            TRIAL_LAPSED.clone_into(&mut self.summary);
        }
        Ok(())
    }

    /// Has packets go on to what is pinned now, where that has changed.
    fn renew_next(&mut self, datapath: &Datapath, attachments: &[Attachment]) {
        let Renewed { renewed, unfit } = datapath.renew_next(attachments);
        for name in renewed {
            tracing::info!("what passes on {name} goes on to the program that is pinned now");
        }
        self.unfit
            .retain(|name, _| unfit.iter().any(|(other, _)| other == name));
        for (name, error) in unfit {
            if let Some(error) = self.unfit.entry(name).or_default().about(&error) {
                tracing::warn!("{error}");
            }
        }
    }

    /// Says why packets may not come to the program in its slot, where that is new.
    fn look_before(&mut self, datapath: &Datapath) -> Result<()> {
        let now: BTreeSet<_> = datapath.before_ours()?.into_iter().collect();
        if let Some(before) = &self.in_the_way {
            for why in now.difference(before) {
                tracing::warn!("{why}");
            }
        }
        self.in_the_way = Some(now);
        Ok(())
    }

    fn follow(&mut self, row: &Attachment) {
        let Some(index) = row.index else { return };
        let Some(before) = row.renamed_from() else {
            self.renamed.remove(&index);
            return;
        };
        let known = self.renamed.insert(index, row.name.clone());
        if known.as_deref() != Some(row.name.as_str()) {
            tracing::warn!(
                "{before} is called {} now; the program has stayed on it",
                row.name
            );
        }
    }

    /// Reports why an interface refuses the program, once for each reason.
    fn refuse(&mut self, name: &str, error: &anyhow::Error) {
        let complaint = self.refused.entry(name.to_owned()).or_default();
        if let Some(error) = complaint.about(error) {
            tracing::warn!("cannot guard {name}, and will try again: {error}");
        }
    }

    /// Tells the program the state of the host and of the interfaces that are guarded now. At each check, since other commands
    /// write the tables too, and may have read the state before it changed.
    fn update_host_state(
        &mut self,
        datapath: &mut Datapath,
        attachments: &[Attachment],
    ) -> Result<()> {
        let routes = self.routes.look()?;
        let now = datapath.read_host_state_with(attachments, routes)?;
        datapath.set_host_state(&now)
    }
}

/// The routes to this host, as they were last read.
///
/// Changes are not listened to: on a router they come many times a second, and hardly one concerns this host itself.
struct Routes {
    local: Vec<LocalRoute>,
    next_look: Instant,
}

impl Routes {
    /// Part of the time that reading them may take, since it takes long where there are many of other hosts.
    const SHARE: u32 = 50;

    /// Returns them as they are now, or as they were a short time ago where reading them takes long.
    fn look(&mut self) -> Result<&[LocalRoute]> {
        let begin = Instant::now();
        if begin >= self.next_look {
            self.local = routes::local().context("cannot read this host's routes")?;
            self.next_look = begin + begin.elapsed() * Self::SHARE;
        }
        Ok(&self.local)
    }
}

fn event(name: &str, interface: &str, reason: Option<&str>) -> Record {
    Record {
        interface: Some(interface.to_owned()),
        reason: reason.map(ToOwned::to_owned),
        ..Record::now(name)
    }
}
