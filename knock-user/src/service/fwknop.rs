//! Lets clients of fwknop in: a thread reads what the kernel program has handed up, verifies it and gives the grants.
//!
//! The keys are not in the kernel, so the thread takes them from the configuration file, when it starts and each time that
//! another configuration is put into force. A key that the file has changed since then is not used.

mod handed;
mod worker;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::sync::mpsc;

use super::{
    memory::state_file,
    packets::Packets,
    serving::{Said, Serving},
};
use crate::{
    config::{Config, Gate, fwknop::Key},
    datapath::PinRoot,
};
use handed::{Handed, Remembered};
use worker::{Worker, unix_time};

/// Events that wait for the service; more than these are left out.
const BACKLOG: usize = 1024;

/// The least time between two starts of the thread, where it has ended by itself.
const PAUSE: Duration = Duration::from_secs(10);

/// The thread, if the configuration has keys.
pub struct Gatekeeper {
    root: PinRoot,
    file: PathBuf,
    /// Keys that were in use: a trial may return to them.
    earlier: Arc<Mutex<Earlier>>,
    /// What each thread has accepted goes on to the next: where it could not be written down, the file does not have it.
    remembered: Remembered,
    packets: Packets,
    /// The configuration has keys.
    is_wanted: bool,
    serving: Option<Serving>,
    next_try: Instant,
    events: mpsc::Receiver<Said>,
    sender: mpsc::Sender<Said>,
}

/// A key with its secrets, and its gate.
#[derive(Clone)]
struct Held {
    gate: String,
    key: Key,
}

impl Held {
    /// Whether it belongs to this key in force.
    fn is(&self, gate: &Gate, key: &Key) -> bool {
        let own = (&self.gate, &self.key.user, self.key.tag);
        own == (&gate.name, &key.user, key.tag)
    }
}

/// The keys in use, and those that were in use before them.
#[derive(Default)]
struct Earlier {
    present: Vec<Held>,
    before: Vec<Held>,
}

impl Earlier {
    fn all(&self) -> impl Iterator<Item = &Held> {
        self.present.iter().chain(&self.before)
    }

    /// Notes which keys are in use now.
    fn now(&mut self, used: Vec<Held>) {
        let names = |held: &[Held]| -> Vec<(String, String, u16)> {
            let names = held
                .iter()
                .map(|held| (held.gate.clone(), held.key.user.clone(), held.key.tag));
            names.collect()
        };
        if names(&used) != names(&self.present) {
            self.before = std::mem::replace(&mut self.present, used);
        }
    }
}

impl Gatekeeper {
    /// `file`: the configuration. `packets`: to and from the fleet.
    pub fn new(root: &PinRoot, file: &Path, packets: &Packets) -> Self {
        let (sender, events) = mpsc::channel(BACKLOG);
        Self {
            root: root.clone(),
            file: file.to_owned(),
            earlier: Arc::default(),
            remembered: Remembered::default(),
            packets: packets.clone(),
            is_wanted: false,
            serving: None,
            next_try: Instant::now(),
            events,
            sender,
        }
    }

    /// Starts the thread for this configuration, which is in force, in place of one that there was.
    pub fn apply(&mut self, config: &Config) {
        self.is_wanted = config.has_fwknop();
        self.begin();
    }

    /// Starts the thread again where it has ended by itself.
    pub fn retry(&mut self) {
        let goes_on = self.serving.as_ref().is_some_and(Serving::goes_on);
        if self.is_wanted && !goes_on && self.next_try <= Instant::now() {
            self.begin();
        }
    }

    /// Ends the thread that there is, and starts another one if it is wanted.
    fn begin(&mut self) {
        // It has what it counted written down before the next one reads that.
        self.serving = None;
        if !self.is_wanted {
            return;
        }
        self.next_try = Instant::now() + PAUSE;
        match self.start() {
            Ok(serving) => self.serving = Some(serving),
            Err(error) => tracing::error!("{error:#}; clients of fwknop are not let in for now"),
        }
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

    fn start(&self) -> Result<Serving> {
        let (root, file) = (self.root.clone(), self.file.clone());
        let (earlier, sender) = (Arc::clone(&self.earlier), self.sender.clone());
        let (packets, remembered) = (self.packets.clone(), Arc::clone(&self.remembered));
        Serving::start("fwknop", |stopped| async move {
            let served = async {
                let path = state_file(&root, "fwknop");
                let seen = Handed::take(remembered, path, unix_time(), &packets.here);
                Worker::new(root, file, earlier, seen, packets, sender, stopped.clone())?
                    .serve()
                    .await
            };
            if let Err(error) = Box::pin(served).await
                && !stopped.has_come()
            {
                tracing::error!("{error:#}; clients of fwknop are not let in for now");
            }
        })
    }
}
