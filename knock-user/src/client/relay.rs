//! An opened connection joined to standard input and output, as ssh's `ProxyCommand` wants it.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::pin::pin;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::linux::unacknowledged;

const CHUNK: usize = 64 * 1024;
const CHUNKS_AHEAD: usize = 4;
/// How often it is looked whether the peer has acknowledged the rest.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Copies `input` to the peer and what the peer sends to `output`, until both directions have ended.
///
/// The end of `input` closes the sending direction, the end of the peer's stream closes `output`, and the
/// other direction goes on. A peer that closed does not say whether it still reads: so once it has, an
/// `input` that stays open and brings nothing for `grace` ends the relay too. An `output` that nobody reads
/// any more ends it at once, without an error.
///
/// # Errors
/// [`BrokenOff`] for a connection that was reset or lost; others for an `input` that cannot be read and an
/// `output` that cannot be written.
pub async fn relay(
    mut stream: TcpStream,
    input: impl Read + Send + 'static,
    output: impl AsyncWrite + Unpin,
    grace: Duration,
) -> anyhow::Result<()> {
    // Keystrokes go out as they are typed. A connection that is already lost says so when it is read.
    let _ = stream.set_nodelay(true);
    let input = chunks_of(input).context("cannot start a thread to read standard input")?;
    let (mut received, mut sent) = (false, None);
    {
        let (from_peer, to_peer) = stream.split();
        let idle_since = Cell::new(None);
        let mut receiving = pin!(receive(from_peer, output));
        let mut sending = pin!(send(input, to_peer, &idle_since));
        while !received || sent.is_none() {
            tokio::select! {
                ended = &mut receiving, if !received => match ended? {
                    Received::All => received = true,
                    Received::Unwanted => return Ok(()),
                },
                ended = &mut sending, if sent.is_none() => sent = Some(ended?),
                () = silence(&idle_since, grace), if received && sent.is_none() => return Ok(()),
            }
        }
    }
    match sent {
        // The error of a lost connection is told once. Where writing was told, reading sees an end.
        Some(Sent::Refused(error)) => Err(BrokenOff::new(&error).into()),
        Some(Sent::All) | None => delivered(&stream).await,
    }
}

/// The connection was reset or lost before it had been closed in order.
///
/// A plain text, and no source: a broken pipe further down an error's chain would be taken for a closed
/// standard output.
#[derive(Debug)]
pub struct BrokenOff(String);

impl BrokenOff {
    fn new(error: &io::Error) -> Self {
        Self(match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected => {
                "the peer closed it before it had taken all of standard input".to_owned()
            }
            _ => error.to_string(),
        })
    }

    /// The peer took the connection and reset it before anything was sent.
    pub fn at_once() -> Self {
        Self("the peer reset it as soon as it was open".to_owned())
    }
}

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the connection broke off: {}; the port had opened, so look at the service behind it and at \
             firewalls on the way",
            self.0
        )
    }
}

impl std::error::Error for BrokenOff {}

/// How the sending direction ended.
enum Sent {
    All,
    /// The peer takes no more.
    Refused(io::Error),
}

/// How the receiving direction ended.
enum Received {
    All,
    /// Nobody reads the output any more.
    Unwanted,
}

/// Notes in `idle_since` since when there has been nothing to send.
async fn send(
    mut input: mpsc::Receiver<io::Result<Vec<u8>>>,
    mut peer: impl AsyncWrite + Unpin,
    idle_since: &Cell<Option<Instant>>,
) -> anyhow::Result<Sent> {
    loop {
        idle_since.set(Some(Instant::now()));
        let Some(chunk) = input.recv().await else {
            break;
        };
        idle_since.set(None);
        let chunk = chunk.context("cannot read standard input")?;
        if let Err(error) = peer.write_all(&chunk).await {
            // What the peer sent before is still to be received.
            return Ok(Sent::Refused(error));
        }
    }
    match peer.shutdown().await {
        Ok(()) => Ok(Sent::All),
        Err(error) => Ok(Sent::Refused(error)),
    }
}

async fn receive(
    mut peer: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> anyhow::Result<Received> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match peer.read(&mut buffer).await {
            Ok(length) => length,
            Err(error) => return Err(BrokenOff::new(&error).into()),
        };
        let written = match buffer.get(..length) {
            None | Some([]) => match output.shutdown().await {
                Ok(()) => return Ok(Received::All),
                failed => failed,
            },
            Some(bytes) => match output.write_all(bytes).await {
                Ok(()) => output.flush().await,
                failed => failed,
            },
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(Received::Unwanted);
            }
            written => written.context("cannot write to standard output")?,
        }
    }
}

/// Ends when there has been nothing to send for `grace`.
async fn silence(idle_since: &Cell<Option<Instant>>, grace: Duration) {
    loop {
        match idle_since.get() {
            Some(since) if since.elapsed() >= grace => return,
            Some(since) => sleep_until(since + grace).await,
            None => sleep(grace.max(LOOK_AGAIN)).await,
        }
    }
}

/// Waits until the peer's system has acknowledged all that was sent; the end of the stream, which counts
/// as one byte, may be on its way.
async fn delivered(stream: &TcpStream) -> anyhow::Result<()> {
    loop {
        let lost = stream
            .take_error()
            .context("cannot ask for the connection's state")?;
        if let Some(error) = lost {
            return Err(BrokenOff::new(&error).into());
        }
        if unacknowledged(stream).context("cannot ask for the connection's state")? <= 1 {
            return Ok(());
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Reads `input` in a thread of its own, which the end of the process need not wait for: one of the
/// runtime's would keep the process alive after the peer closed, until the next key is pressed.
fn chunks_of(
    mut input: impl Read + Send + 'static,
) -> io::Result<mpsc::Receiver<io::Result<Vec<u8>>>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || {
            loop {
                let mut chunk = vec![0; CHUNK];
                let read = match input.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(length) => {
                        chunk.truncate(length);
                        Ok(chunk)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = read.is_err();
                if sender.blocking_send(read).is_err() || failed {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests;
