//! The local socket over which `events` and `status` read from `run`.
//!
//! A reader sends one line: `latest` or `follow`, and gets events as JSON, one a line; or `fleet`, and gets a [`FleetLink`] as
//! JSON, if there is a fleet.

use std::{
    cell::Cell,
    fs,
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
    sync::broadcast::{Receiver, error::RecvError},
    time::sleep,
};

use super::{
    fleet::{Counts, Isolated},
    names::EVENTS_LOST,
    own_file::OwnFile,
    record::Record,
};
use crate::{
    datapath::{NotPermitted, PinRoot},
    sys::unix_socket,
};

/// Directory of what services have while they live: a socket and a lock for each pin root.
pub(super) const DIRECTORY: &str = "/run/knockgate";
const SOCKET: &str = "sock";
const LATEST: &str = "latest";
const FOLLOW: &str = "follow";
const FLEET: &str = "fleet";
/// How long the service may take to say how it stands with the fleet: it may be stopped, or far behind.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a reader that sends nothing more may have gone unnoticed.
const REST: Duration = Duration::from_secs(1);

/// How long the service waits after it could not accept a reader.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether this host is one of its fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetLink {
    /// Since when it is not, ms ago.
    pub isolated_for_ms: Option<u64>,
    /// What keeps it from etcd.
    pub why: Option<String>,
}

impl FleetLink {
    fn of(isolated: Option<Isolated>) -> Self {
        let (isolated_for_ms, why) = match isolated {
            None => (None, None),
            Some(Isolated { lasts, why }) => (u64::try_from(lasts.as_millis()).ok(), Some(why)),
        };
        Self {
            isolated_for_ms,
            why,
        }
    }
}

/// Asks the service of `root` how it stands with the fleet; `None`: there is no service, it has no fleet, or this user may not
/// ask.
pub fn fleet_link(root: &PinRoot) -> Option<FleetLink> {
    let mut stream = unix_socket::connect(&path_of(root, SOCKET)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(format!("{FLEET}\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(&answer).ok()
}

/// The events that a reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// The latest ones.
    Latest,
    /// The latest ones, and then those to come.
    Follow,
}

/// A reader that has connected.
pub type Connection = UnixStream;

/// The service's end of the socket.
pub struct Listener {
    listener: UnixListener,
    _file: OwnFile,
    /// The last reader could not be accepted.
    has_failed: Cell<bool>,
}

/// Returns whether a service serves `root`, also where it is stopped; `None`: this user may not know.
pub fn is_served(root: &PinRoot) -> Option<bool> {
    unix_socket::is_listened_at(&path_of(root, SOCKET))
}

impl Listener {
    /// Listens for readers, as the service that has claimed `root`.
    pub fn bind(root: &PinRoot) -> Result<Self> {
        let path = path_of(root, SOCKET);
        // Left behind by a service that was killed.
        let _ = fs::remove_file(&path);
        let cannot_listen = || format!("cannot listen on {}", path.display());
        let listener = UnixListener::bind(&path).with_context(cannot_listen)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .with_context(cannot_listen)?;
        Ok(Self {
            listener,
            _file: OwnFile::at(&path).with_context(cannot_listen)?,
            has_failed: Cell::default(),
        })
    }

    /// Waits for the next reader. Where one cannot be accepted, as for want of descriptors, it goes on waiting, and says so once.
    pub async fn accept(&self) -> Connection {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    self.has_failed.set(false);
                    return stream;
                }
                Err(error) => {
                    if !self.has_failed.replace(true) {
                        tracing::warn!("cannot accept a reader of events: {error}; trying again");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Sends one reader what it asks for, until it has that or disconnects.
pub async fn serve(
    connection: Connection,
    latest: Vec<Record>,
    mut coming: Receiver<Record>,
    fleet: Counts,
) {
    let (input, mut output) = connection.into_split();
    let mut input = BufReader::new(input);
    let mut wanted = String::new();
    if input.read_line(&mut wanted).await.is_err() {
        return;
    }
    if wanted.trim() == FLEET {
        if let Some(counted) = fleet.read() {
            let link = FleetLink::of(counted.isolated);
            let answer = serde_json::to_vec(&link).unwrap_or_default();
            // A reader that has gone needs none.
            let _ = output.write_all(&answer).await;
        }
        return;
    }
    for record in latest {
        if output.write_all(&line(&record)).await.is_err() {
            return;
        }
    }
    if wanted.trim() != FOLLOW {
        return;
    }
    loop {
        let next = tokio::select! {
            next = coming.recv() => next,
            // Where nothing happens, writing would not tell.
            () = ends(&mut input) => return,
        };
        let record = match next {
            Ok(record) => record,
            Err(RecvError::Lagged(missed)) => Record {
                lost: Some(missed),
                ..Record::now(EVENTS_LOST)
            },
            Err(RecvError::Closed) => return,
        };
        if output.write_all(&line(&record)).await.is_err() {
            return;
        }
    }
}

/// Waits until a reader has gone. One that only sends nothing more still reads.
async fn ends(input: &mut BufReader<OwnedReadHalf>) {
    let mut said = [0; 64];
    loop {
        match input.read(&mut said).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return,
        }
    }
    let stream: &UnixStream = input.get_ref().as_ref();
    while !unix_socket::has_hung_up(stream.as_fd()) {
        sleep(REST).await;
    }
}

/// Asks the service of `root` for events and calls `each` with every one, until the service has sent all or ends. Returns
/// `false` where there is no service; fails where this user may not know.
pub async fn read_events(
    root: &PinRoot,
    history: History,
    mut each: impl FnMut(Record) -> Result<()>,
) -> Result<bool> {
    let path = path_of(root, SOCKET);
    let mut stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        // There may be a service, which alone reads the ring then.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(NotPermitted {
                what: format!("to connect to the service ({})", path.display()),
                needs: "CAP_DAC_OVERRIDE",
            }
            .into());
        }
        // It alone reads the ring, and accepts nobody.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("the service accepts no more readers: it is stopped, or far behind");
        }
        Err(_) => return Ok(false),
    };
    let wanted = match history {
        History::Latest => LATEST,
        History::Follow => FOLLOW,
    };
    if stream
        .write_all(format!("{wanted}\n").as_bytes())
        .await
        .is_err()
    {
        return Ok(false);
    }
    let mut lines = BufReader::new(stream).lines();
    // A service that is killed resets the connection.
    while let Ok(Some(line)) = lines.next_line().await {
        each(serde_json::from_str(&line).context("the service sent something that is no event")?)?;
    }
    Ok(true)
}

fn line(record: &Record) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Returns the path of a file of the service of a pin root.
pub(super) fn path_of(root: &PinRoot, extension: &str) -> PathBuf {
    Path::new(DIRECTORY).join(file_name(root, extension))
}

/// Returns the name of a file of a pin root: the path of the root with its slashes replaced.
pub(super) fn file_name(root: &PinRoot, extension: &str) -> String {
    let name = root
        .path()
        .to_string_lossy()
        .replace('%', "%%")
        .replace('/', "%");
    format!("{name}.{extension}")
}
