use std::future::Future;
use std::io::{Cursor, Write as _};
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

/// Longer than anything in these tests pauses.
const GRACE: Duration = Duration::from_secs(15);

/// Both ends of a connection over loopback: the client's, the server's.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let client = TcpStream::connect(address).await.expect("a connection");
    let (server, _) = listener.accept().await.expect("the other end");
    (client, server)
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_mins(1), future)
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
        relay(client, Cursor::new(request), &mut output, GRACE),
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
async fn what_is_still_to_be_sent_goes_out_after_the_peer_has_ended() {
    let (client, mut server) = connection().await;
    let request = vec![7; 20_000_000];
    let (input, mut more) = io::pipe().expect("a pipe");
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        more.write_all(&request).expect("the relay reads on");
    });
    let peer = tokio::spawn(async move {
        server.write_all(b"hello\n").await.expect("a greeting");
        server.shutdown().await.expect("half a connection");
        sleep(Duration::from_millis(100)).await;
        let mut all = Vec::new();
        server
            .read_to_end(&mut all)
            .await
            .expect("the whole request");
        all.len()
    });
    let mut output = Vec::new();
    in_time(
        "a relay whose peer only reads",
        relay(client, input, &mut output, GRACE),
    )
    .await
    .expect("a relay that ends well");
    assert_eq!(output, b"hello\n");
    let taken = in_time("the peer", peer).await.expect("a peer");
    assert_eq!(taken, 20_000_000);
    writer.join().expect("a writer");
}

#[tokio::test]
async fn output_is_closed_as_soon_as_the_peer_has_ended() {
    /// Says when it is closed.
    struct Closing(Option<tokio::sync::oneshot::Sender<()>>);
    impl AsyncWrite for Closing {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(closed) = self.0.take() {
                let _ = closed.send(());
            }
            Poll::Ready(Ok(()))
        }
    }
    let (client, server) = connection().await;
    let (input, writer) = io::pipe().expect("a pipe");
    let (sender, closed) = tokio::sync::oneshot::channel();
    let relaying = relay(
        client,
        input,
        Closing(Some(sender)),
        Duration::from_hours(1),
    );
    // As ssh does it: the end of its input makes it close its output.
    let reader = async {
        drop(server);
        closed.await.expect("output is closed");
        drop(writer);
    };
    let (ended, ()) = in_time("a relay whose reader waits", async {
        tokio::join!(relaying, reader)
    })
    .await;
    ended.expect("a relay that ends well");
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
        relay(client, input, &mut output, Duration::from_millis(50)),
    )
    .await
    .expect("a relay that ends well");
    assert_eq!(output, b"goodbye\n");
}

/// Input that never pauses: some of its writes meet a connection that has just been reset, and some
/// reads do.
struct Endless;
impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(buffer.len().min(100))
    }
}

/// Whichever direction meets it first: the system tells a reset once.
#[tokio::test]
async fn a_reset_is_an_error_and_what_came_before_is_kept() {
    for round in 0..200 {
        let (client, mut server) = connection().await;
        let said = if round % 2 == 0 {
            &b""[..]
        } else {
            b"half a li"
        };
        server.write_all(said).await.expect("bytes to the client");
        server.set_zero_linger().expect("close by reset");
        // Lost before the relay begins, or while it sends.
        let resetting = async {
            if round % 3 == 2 {
                let _ = server.read(&mut [0]).await;
            } else if round % 4 < 2 {
                tokio::task::yield_now().await;
            }
            drop(server);
        };
        let mut output = Vec::new();
        let (_kept_open, input): (_, Box<dyn Read + Send>) = match round % 3 {
            0 => {
                let (input, kept_open) = io::pipe().expect("a pipe");
                (Some(kept_open), Box::new(input))
            }
            1 => (None, Box::new(io::empty())),
            _ => (None, Box::new(Endless)),
        };
        let (ended, ()) = in_time("a relay whose peer reset", async {
            tokio::join!(relay(client, input, &mut output, GRACE), resetting)
        })
        .await;
        let error = ended.expect_err("a reset is no good end");
        assert!(error.is::<BrokenOff>(), "round {round}: {error:#}");
        assert!(
            error.chain().all(|cause| !cause.is::<io::Error>()),
            "may be taken for a closed standard output: {error:#}"
        );
        assert_eq!(output, said, "round {round}");
    }
}

#[tokio::test]
async fn a_peer_that_closes_before_it_has_taken_everything_is_an_error() {
    let (client, server) = connection().await;
    drop(server);
    let error = in_time(
        "a relay that still has to send",
        relay(client, Endless, Vec::new(), GRACE),
    )
    .await
    .expect_err("nobody took it");
    assert!(error.is::<BrokenOff>(), "{error:#}");
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
    let error = in_time(
        "a relay without input",
        relay(client, Broken, Vec::new(), GRACE),
    )
    .await
    .expect_err("no input, no relay");
    assert_eq!(
        format!("{error:#}"),
        "cannot read standard input: unplugged"
    );
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
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
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
            relay(client, input, Failing(kind), GRACE),
        )
        .await;
        assert_eq!(ended.is_ok(), quiet, "{kind:?}: {ended:?}");
    }
}
