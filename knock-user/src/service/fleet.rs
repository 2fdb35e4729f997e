//! This host as one of a fleet: a thread that publishes what opens here, and puts into the tables what opens at the others.
//!
//! Gates open and close without it. It reads and writes the tables as a command does, and the service only tells it that
//! something has opened.

mod counts;
#[cfg(feature = "fleet")]
pub mod done_here;
#[cfg(feature = "fleet")]
mod rules;
#[cfg(feature = "fleet")]
mod worker;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use knock_common::event::{Event, Kind};
use tokio::sync::mpsc;

#[cfg(feature = "fleet")]
use super::{names::FLEET_ISOLATED, record::Record};
use super::{
    packets::Packets,
    serving::{Said, Serving},
};
#[cfg(feature = "fleet")]
use crate::fleet::record::{Mark, Refusal};
use crate::{
    config::{Config, Fleet},
    datapath::{PinRoot, padded_address},
};
pub use counts::{BUCKETS, Counted, Counts, Isolated};

/// Events that wait for the service, and openings that wait for the thread; more than these are left out. Openings that are
/// are found in the tables.
const BACKLOG: usize = 4096;

/// Between two attempts to begin.
const PAUSE: Duration = Duration::from_secs(10);

/// A gate that has opened, as the kernel has reported it.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    pub gate: u16,
    pub source: IpAddr,
    /// The slot of the key, or [`NO_KEY`](knock_common::knock::authenticated::key::NO_KEY).
    pub key: u16,
}

/// Tells the thread that gates have opened. Never waits.
#[derive(Clone)]
pub struct Openings {
    sender: mpsc::Sender<Opened>,
    /// The tables are to be looked at.
    look: Arc<AtomicBool>,
}

impl Openings {
    /// Takes an event of the kernel's.
    pub fn note(&self, event: &Event) {
        if event.kind != Kind::Opened as u8 {
            return;
        }
        let opened = Opened {
            gate: event.gate,
            source: padded_address(event.source, event.family == 4),
            key: event.key,
        };
        if self.sender.try_send(opened).is_err() {
            self.look();
        }
    }

    /// Has the tables looked at soon.
    pub fn look(&self) {
        self.look.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// The thread, if the configuration has a fleet.
#[cfg_attr(
    not(feature = "fleet"),
    expect(
        dead_code,
        reason = "a build without fleets has no thread to hand these to"
    )
)]
pub struct Member {
    root: PinRoot,
    counts: Counts,
    /// What it serves.
    fleet: Option<Fleet>,
    openings: Openings,
    /// Goes to the thread and comes back.
    opened: Arc<tokio::sync::Mutex<mpsc::Receiver<Opened>>>,
    packets: Packets,
    serving: Option<Serving>,
    /// A thread that has ended is started again, and not before this.
    next_try: Instant,
    events: mpsc::Receiver<Said>,
    sender: mpsc::Sender<Said>,
}

impl Member {
    /// `packets`: to and from the thread that lets in clients of fwknop's.
    pub fn new(root: &PinRoot, packets: &Packets) -> Self {
        let (sender, events) = mpsc::channel(BACKLOG);
        let (openings, opened) = mpsc::channel(BACKLOG);
        Self {
            root: root.clone(),
            counts: Counts::default(),
            fleet: None,
            openings: Openings {
                sender: openings,
                look: Arc::default(),
            },
            opened: Arc::new(opened.into()),
            packets: packets.clone(),
            serving: None,
            next_try: Instant::now(),
            events,
            sender,
        }
    }

    /// Returns what is counted, which goes on.
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Returns what tells the thread of gates that have opened.
    pub fn openings(&self) -> Openings {
        self.openings.clone()
    }

    /// Becomes one of the fleet of this configuration, which is in force. A thread that serves it already goes on: it sees
    /// by itself what else has changed.
    pub fn apply(&mut self, config: &Config) {
        let goes_on = self.serving.as_ref().is_some_and(Serving::goes_on);
        let waits = goes_on || Instant::now() < self.next_try;
        if self.fleet == config.fleet && (waits || self.fleet.is_none()) {
            return;
        }
        self.next_try = Instant::now() + PAUSE;
        self.serving = None;
        self.fleet.clone_from(&config.fleet);
        #[cfg(feature = "fleet")]
        if let Some(fleet) = &self.fleet {
            // Also where it cannot even begin.
            self.counts
                .begin(Refusal::ALL.into_iter().map(Refusal::name));
            match self.start(fleet.clone()) {
                Ok(serving) => self.serving = Some(serving),
                Err(error) => ended(&error, &self.counts, &self.sender),
            }
            return;
        }
        self.counts.leave();
    }

    /// Ends the thread. What it has told last can be taken then.
    pub fn end(&mut self) {
        self.serving = None;
    }

    /// Waits for the next event.
    pub async fn event(&mut self) -> Said {
        match self.events.recv().await {
            Some(said) => said,
            // Never: this holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Returns the next event, if it has come.
    pub fn next_event(&mut self) -> Option<Said> {
        self.events.try_recv().ok()
    }

    #[cfg(feature = "fleet")]
    fn start(&self, fleet: Fleet) -> anyhow::Result<Serving> {
        let setup = worker::Setup {
            root: self.root.clone(),
            fleet,
            counts: self.counts.clone(),
            look: Arc::clone(&self.openings.look),
            packets: self.packets.clone(),
            sender: self.sender.clone(),
        };
        let opened = Arc::clone(&self.opened);
        Serving::start("fleet", |stopped| async move {
            let (counts, sender) = (setup.counts.clone(), setup.sender.clone());
            let served = async {
                let mut opened = opened.lock().await;
                setup.begin(stopped.clone())?.serve(&mut opened).await
            };
            if let Err(error) = Box::pin(served).await
                && !stopped.has_come()
            {
                ended(&error, &counts, &sender);
            }
        })
    }
}

/// Returns the last revocation of a fleet that is in this host's tables, read with the lock of the root; `None`: this host has
/// never been one of it.
#[cfg(feature = "fleet")]
pub fn applied(root: &PinRoot, fleet: &str) -> Option<Mark> {
    worker::applied(root, fleet)
}

/// Says why this host is not one of its fleet, and that it is isolated.
#[cfg(feature = "fleet")]
fn ended(error: &anyhow::Error, counts: &Counts, sender: &mpsc::Sender<Said>) {
    let why = format!("{error:#}");
    let before = counts.read().and_then(|counted| counted.isolated);
    // It is tried again and again.
    if before.is_none_or(|before| before.why != why) {
        tracing::error!("{why}; this host is not one of its fleet until that is repaired");
    }
    if counts.report(&why) {
        // The service may be far behind, or about to end.
        let _ = sender.try_send((None, because(FLEET_ISOLATED, &why)));
    }
}

/// Returns an event with a reason.
#[cfg(feature = "fleet")]
fn because(event: &str, reason: &str) -> Record {
    Record {
        reason: Some(reason.to_owned()),
        ..Record::now(event)
    }
}
