//! etcd, the engine of a fleet.
//!
//! A member that is gone is never noticed by waiting, and its client goes on choosing it. So there is one connection, to one
//! member at a time; it counts as lost once the stream of changes gives no sign of life for a second and a half, and then the
//! next member is tried.

mod backoff;
mod connection;

use std::time::Duration;

use etcd_client::{Error, WatchOptions, WatchRequestSender, WatchResponse};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use self::backoff::Backoff;
pub use self::connection::Connection;
use super::engine::{Engine, Entry, Message, Outcome, Write};
use crate::config::Fleet;

/// Between two requests for a sign of life.
const PROBE: Duration = Duration::from_millis(500);
/// So many without an answer, and the stream counts as dead.
const MISSED: u32 = 3;
/// Writes on their way side by side.
const IN_FLIGHT: usize = 32;
/// Messages that wait: few, since a part of the grants has thousands.
const BACKLOG: usize = 8;
const WRITES: usize = 64;

/// The least time between two beginnings of the link, where it has ended by itself.
const PAUSE: Duration = Duration::from_secs(1);

/// The fleet's members. What it does ends with it.
pub struct Etcd {
    fleet: Fleet,
    begun: Instant,
    messages: mpsc::Receiver<Message>,
    writes: mpsc::Sender<Write>,
    anew: mpsc::Sender<String>,
    task: JoinSet<()>,
}

impl Etcd {
    /// Begins to connect, on this thread's event loop.
    pub fn start(fleet: Fleet) -> Self {
        let (out, messages) = mpsc::channel(BACKLOG);
        let (writes, to_write) = mpsc::channel(WRITES);
        let (anew, begin_anew) = mpsc::channel(1);
        let link = Link {
            fleet: fleet.clone(),
            out,
            to_write,
            begin_anew,
        };
        let mut task = JoinSet::new();
        task.spawn(link.run());
        Self {
            fleet,
            begun: Instant::now(),
            messages,
            writes,
            anew,
            task,
        }
    }
}

impl Engine for Etcd {
    async fn next(&mut self) -> Message {
        if let Some(message) = self.messages.recv().await {
            return message;
        }
        // It has panicked, which has been printed.
        self.task.abort_all();
        sleep_until(self.begun + PAUSE).await;
        *self = Self::start(self.fleet.clone());
        Message::Lost {
            why: "the link to etcd has ended".to_owned(),
        }
    }

    fn write(&mut self, write: Write) -> bool {
        self.writes.try_send(write).is_ok()
    }

    fn begin_anew(&mut self, why: &str) {
        // Where there is one already, one is enough.
        let _ = self.anew.try_send(why.to_owned());
    }
}

/// Nobody listens any more.
struct Closed;

/// Why a connection came to its end.
enum End {
    Closed,
    Lost(String),
}

impl From<Closed> for End {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Lost(connection::text(&error))
    }
}

impl From<anyhow::Error> for End {
    fn from(error: anyhow::Error) -> Self {
        Self::Lost(format!("{error:#}"))
    }
}

struct Link {
    fleet: Fleet,
    out: mpsc::Sender<Message>,
    to_write: mpsc::Receiver<Write>,
    begin_anew: mpsc::Receiver<String>,
}

impl Link {
    async fn run(mut self) {
        let members = self.fleet.endpoints.len();
        let mut backoff = Backoff::new(members);
        let mut member = backoff.first();
        loop {
            let begun = Instant::now();
            let endpoint = self.fleet.endpoints[member % members].clone();
            match Box::pin(self.follow(&endpoint)).await {
                Ok(()) | Err(End::Closed) => return,
                Err(End::Lost(why)) => {
                    let why = format!("{endpoint}: {why}");
                    if self.say(Message::Lost { why }).await.is_err() {
                        return;
                    }
                }
            }
            member += 1;
            sleep(backoff.pause(begun.elapsed())).await;
        }
    }

    /// Reads everything from a member and then follows its changes, until it is lost.
    async fn follow(&mut self, endpoint: &str) -> Result<(), End> {
        let mut connection = Connection::open(&self.fleet, endpoint).await?;
        let (revision, others) = connection.others().await?;
        self.say(Message::State(others)).await?;
        let mut from = None;
        loop {
            let (page, next) = connection.grants(revision, from).await?;
            self.say(Message::Grants(page)).await?;
            from = next;
            if from.is_none() {
                break;
            }
        }
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(revision + 1)
            .with_fragment();
        let prefix = connection.prefix().to_owned();
        let watch = connection.client().watch(prefix.as_str(), Some(options));
        let watch = timeout(connection::PATIENCE, watch).await;
        let watch = watch.map_err(|_| End::Lost("it does not answer".into()))??;
        // The half that asks is kept: without it, the stream ends.
        let (mut ask, mut changes) = watch.split();
        // What waits was to be written before this host knew what it knows now.
        while self.to_write.try_recv().is_ok() {}
        while self.begin_anew.try_recv().is_ok() {}
        self.say(Message::Current).await?;
        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missed = 0;
        let mut in_flight = JoinSet::new();
        loop {
            tokio::select! {
                change = changes.message() => {
                    missed = 0;
                    let change = change?.ok_or_else(|| End::Lost("the stream has ended".into()))?;
                    let entries = entries(&change, prefix.len())?;
                    if !entries.is_empty() {
                        self.say(Message::Changed(entries)).await?;
                    }
                }
                _ = probe.tick() => {
                    if missed == MISSED {
                        return Err(End::Lost("no sign of life for 1.5 s".into()));
                    }
                    missed += 1;
                    request(&mut ask).await?;
                }
                write = self.to_write.recv(), if in_flight.len() < IN_FLIGHT => {
                    let write = write.ok_or(Closed)?;
                    let connection = connection.clone();
                    in_flight.spawn(async move {
                        let outcome = connection.write(&write).await;
                        (write.id, outcome)
                    });
                }
                Some(written) = in_flight.join_next() => {
                    // A panic, which has been printed.
                    let given_up = |_| End::Lost("a write was given up".into());
                    let (id, outcome) = written.map_err(given_up)?;
                    let outcome = outcome.unwrap_or_else(|error| {
                        tracing::debug!("a write to etcd was not done: {error:#}");
                        Outcome::Failed { why: format!("{error:#}") }
                    });
                    self.say(Message::Answered { id, outcome }).await?;
                }
                why = self.begin_anew.recv() => return Err(End::Lost(why.ok_or(Closed)?)),
            }
        }
    }

    async fn say(&self, message: Message) -> Result<(), Closed> {
        self.out.send(message).await.map_err(|_| Closed)
    }
}

/// Asks for a sign of life. An answer is no position in the order of changes: it may come before changes that precede it
/// (etcd#15220).
async fn request(ask: &mut WatchRequestSender) -> Result<(), End> {
    let asked = timeout(PROBE, ask.request_progress()).await;
    Ok(asked.map_err(|_| End::Lost("it takes no requests".into()))??)
}

/// Returns the records that a message of the stream says were written.
fn entries(response: &WatchResponse, prefix: usize) -> Result<Vec<Entry>, End> {
    if response.canceled() {
        // The reason of a compaction is empty.
        let why = match (response.compact_revision(), response.cancel_reason()) {
            (0, "") => "the stream was ended by the member".to_owned(),
            (0, reason) => reason.to_owned(),
            _ => "changes have been compacted that this host has not been told of".to_owned(),
        };
        return Err(End::Lost(why));
    }
    let events = response.events().iter();
    let written = events.filter(|event| event.event_type() == etcd_client::EventType::Put);
    let entries = written.filter_map(|event| connection::entry(event.kv()?, prefix));
    Ok(entries.collect())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Replay;

    async fn lost(etcd: &mut Etcd) -> String {
        match etcd.next().await {
            Message::Lost { why } => why,
            _ => panic!("there is no member"),
        }
    }

    #[tokio::test]
    async fn a_link_that_ends_by_itself_begins_again() {
        let nowhere = PathBuf::from("/nonexistent");
        let mut etcd = Etcd::start(Fleet {
            name: "edge".into(),
            endpoints: vec!["https://192.0.2.1:2379".into()],
            host: None,
            ca: nowhere.clone(),
            cert: nowhere.clone(),
            key: nowhere.clone(),
            keys: vec![nowhere],
            replay: Replay::Fast,
        });
        let refused = lost(&mut etcd).await;
        assert!(refused.contains("/nonexistent"), "{refused}");
        etcd.task.abort_all();
        let mut why = refused.clone();
        while why == refused {
            why = lost(&mut etcd).await;
        }
        assert_eq!(why, "the link to etcd has ended");
        assert_eq!(lost(&mut etcd).await, refused);
    }
}
