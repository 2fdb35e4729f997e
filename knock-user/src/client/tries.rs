//! Connections that are tried at the same time.

use std::{collections::BTreeMap, io, net::SocketAddr, pin::pin, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Closed, Opened, wire};

/// The connections that one attempt has begun, by the index of their address.
#[derive(Default)]
pub(super) struct Tries {
    pub(super) running: JoinSet<(usize, io::Result<Result<Opened, Closed>>)>,
    /// How each ended; none while it has not.
    pub(super) outcomes: BTreeMap<usize, Option<io::Result<Closed>>>,
}

impl Tries {
    pub(super) fn begin(&mut self, index: usize, to: SocketAddr, from: Option<TcpSocket>) {
        self.outcomes.insert(index, None);
        self.running
            .spawn(async move { (index, connect(to, from).await) });
    }

    /// The first connection that stands; none when all have ended otherwise, or none has come in time.
    pub(super) async fn within(
        &mut self,
        time: Duration,
    ) -> anyhow::Result<Option<(usize, Opened)>> {
        let mut over = pin!(sleep(time));
        loop {
            let ended = tokio::select! {
                ended = self.running.join_next() => ended,
                () = &mut over => None,
            };
            let Some(ended) = ended else {
                return Ok(None);
            };
            let (index, outcome) = ended.context("a connection attempt was lost")?;
            let outcome = match outcome {
                Ok(Ok(opened)) => return Ok(Some((index, opened))),
                Ok(Err(closed)) => Ok(closed),
                Err(error) => Err(error),
            };
            self.outcomes.insert(index, Some(outcome));
        }
    }
}

/// An error is one of this machine's own.
async fn connect(to: SocketAddr, from: Option<TcpSocket>) -> io::Result<Result<Opened, Closed>> {
    let begun = Instant::now();
    let connected = match from {
        Some(socket) => socket.connect(to).await,
        None => TcpStream::connect(to).await,
    };
    match connected {
        Ok(stream) => Ok(Ok(Opened::Stream(stream))),
        Err(error) => failed(error, to, begun.elapsed()),
    }
}

/// Returns what it means that a connection failed after `took`.
fn failed(error: io::Error, to: SocketAddr, took: Duration) -> io::Result<Result<Opened, Closed>> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Ok(Err(Closed::Refused)),
        // Only a connection that stood can be reset; a reset in answer to a SYN is a refusal.
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ok(Ok(Opened::Reset)),
        // This machine has given up, after as many SYNs as it is set to send.
        io::ErrorKind::TimedOut => Ok(Err(Closed::Silent(whole_seconds(took)))),
        _ => wire::from_the_network(error, to).map(|answer| Err(Closed::Answered(answer))),
    }
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_gives_up_is_no_answer() {
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        let outcome = |number| {
            let error = io::Error::from_raw_os_error(number);
            failed(error, to, Duration::from_millis(3071)).expect("not of this machine")
        };
        let silence = Duration::from_secs(3);
        assert!(matches!(outcome(libc::ETIMEDOUT), Err(Closed::Silent(time)) if time == silence));
        assert!(matches!(
            outcome(libc::EHOSTUNREACH),
            Err(Closed::Answered(_))
        ));
    }
}
