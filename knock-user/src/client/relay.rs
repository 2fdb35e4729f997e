//! An opened connection joined to standard input and output, as ssh's `ProxyCommand` wants it.

use std::io::{self, Read};
use std::pin::pin;
use std::thread;

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const CHUNK: usize = 64 * 1024;
const CHUNKS_AHEAD: usize = 4;

/// Copies `input` to the peer and what the peer sends to `output`, until the peer closes.
///
/// The end of `input` closes only the sending direction. The end of the peer's stream ends the relay even
/// while `input` is still open. An `output` that nobody reads any more ends it too, without an error.
///
/// # Errors
/// A connection that breaks off, an `input` that can't be read, an `output` that can't be written.
pub async fn relay(
    stream: TcpStream,
    input: impl Read + Send + 'static,
    output: impl AsyncWrite + Unpin,
) -> anyhow::Result<()> {
    // Keystrokes go out as they are typed.
    stream
        .set_nodelay(true)
        .context("can't set up the connection")?;
    let (from_peer, to_peer) = stream.into_split();
    let input = chunks_of(input).context("can't start a thread to read standard input")?;
    let mut receiving = pin!(receive(from_peer, output));
    tokio::select! {
        done = &mut receiving => done,
        sent = send(input, to_peer) => {
            sent?;
            receiving.await
        }
    }
}

async fn send(
    mut input: mpsc::Receiver<io::Result<Vec<u8>>>,
    mut peer: impl AsyncWrite + Unpin,
) -> anyhow::Result<()> {
    while let Some(chunk) = input.recv().await {
        let chunk = chunk.context("can't read standard input")?;
        if peer.write_all(&chunk).await.is_err() {
            // The peer takes no more, but what it sent before is still to be received; if the connection
            // is broken, receiving says so.
            return Ok(());
        }
    }
    // Fails only where the peer is gone, which receiving finds out as well.
    let _ = peer.shutdown().await;
    Ok(())
}

async fn receive(
    mut peer: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = peer
            .read(&mut buffer)
            .await
            .context("the connection broke off")?;
        let written = match buffer.get(..length) {
            None | Some([]) => return Ok(()),
            Some(bytes) => match output.write_all(bytes).await {
                Ok(()) => output.flush().await,
                failed => failed,
            },
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("can't write to standard output")?,
        }
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
mod tests {
    use std::future::Future;
    use std::io::Cursor;
    use std::pin::Pin;
    use std::task::{self, Poll};
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// Both ends of a connection over loopback: the client's, the server's.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("its address");
        let client = TcpStream::connect(address).await.expect("a connection");
        let (server, _) = listener.accept().await.expect("the other end");
        (client, server)
    }

    async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(20), future)
            .await
            .unwrap_or_else(|_| panic!("{what} hangs"))
    }

    #[tokio::test]
    async fn the_end_of_input_reaches_a_peer_that_answers_only_then() {
        let (client, mut server) = connection().await;
        let request: Vec<u8> = (0..3_000_000_u32)
            .map(|i| u8::try_from(i % 251).unwrap_or(0))
            .collect();
        let expected = request.clone();
        let echo = tokio::spawn(async move {
            let mut all = Vec::new();
            server
                .read_to_end(&mut all)
                .await
                .expect("the request up to its end");
            server.write_all(&all).await.expect("the way back is open");
        });
        let mut output = Vec::new();
        in_time(
            "a half-closed relay",
            relay(client, Cursor::new(request), &mut output),
        )
        .await
        .expect("a relay that ends well");
        in_time("the echo server", echo)
            .await
            .expect("the server saw the end of input");
        assert!(
            output == expected,
            "{} of {} bytes came back",
            output.len(),
            expected.len()
        );
    }

    #[tokio::test]
    async fn the_peer_ends_the_relay_while_input_stays_open() {
        let (client, mut server) = connection().await;
        server
            .write_all(b"goodbye\n")
            .await
            .expect("a line to the client");
        drop(server);
        let (input, _kept_open) = io::pipe().expect("a pipe");
        let mut output = Vec::new();
        in_time(
            "a relay whose peer closed",
            relay(client, input, &mut output),
        )
        .await
        .expect("a relay that ends well");
        assert_eq!(output, b"goodbye\n");
    }

    #[tokio::test]
    async fn a_reset_is_an_error_and_what_came_before_is_kept() {
        let (client, mut server) = connection().await;
        server
            .write_all(b"half a li")
            .await
            .expect("some bytes to the client");
        server.set_zero_linger().expect("close by reset");
        drop(server);
        let (input, _kept_open) = io::pipe().expect("a pipe");
        let mut output = Vec::new();
        let error = in_time(
            "a relay whose peer reset",
            relay(client, input, &mut output),
        )
        .await
        .expect_err("a reset is no good end");
        assert_eq!(error.to_string(), "the connection broke off");
        assert_eq!(output, b"half a li");
    }

    #[tokio::test]
    async fn input_that_cannot_be_read_is_reported() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("unplugged"))
            }
        }
        let (client, _server) = connection().await;
        let error = in_time("a relay without input", relay(client, Broken, Vec::new()))
            .await
            .expect_err("no input, no relay");
        assert_eq!(format!("{error:#}"), "can't read standard input: unplugged");
    }

    #[tokio::test]
    async fn only_a_reader_that_left_ends_the_relay_quietly() {
        /// An output that fails as told.
        struct Failing(io::ErrorKind);
        impl AsyncWrite for Failing {
            fn poll_write(
                self: Pin<&mut Self>,
                _: &mut task::Context<'_>,
                _: &[u8],
            ) -> Poll<io::Result<usize>> {
                Poll::Ready(Err(self.0.into()))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(
                self: Pin<&mut Self>,
                _: &mut task::Context<'_>,
            ) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        for (kind, quiet) in [
            (io::ErrorKind::BrokenPipe, true),
            (io::ErrorKind::StorageFull, false),
        ] {
            let (client, mut server) = connection().await;
            server.write_all(b"x").await.expect("a byte to the client");
            let (input, _kept_open) = io::pipe().expect("a pipe");
            let ended = in_time(
                "a relay without output",
                relay(client, input, Failing(kind)),
            )
            .await;
            assert_eq!(ended.is_ok(), quiet, "{kind:?}: {ended:?}");
        }
    }
}
