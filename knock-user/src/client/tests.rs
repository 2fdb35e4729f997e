//! The client against real sockets on loopback.

mod by_key;
mod verified;

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;

use super::*;

/// A pace with this delay, and a time-out that no test should reach.
fn pace(delay: Duration, retries: u32) -> Pace {
    Pace {
        delay,
        retries,
        timeout: Duration::from_secs(20),
    }
}

async fn loopback() -> Target {
    Target::resolve("127.0.0.1", Family::Any)
        .await
        .expect("an address")
}

fn port(address: io::Result<SocketAddr>, protocol: Protocol) -> Port {
    Port {
        number: address.expect("a bound socket").port(),
        protocol,
    }
}

async fn listener() -> (TcpListener, Port) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = port(listener.local_addr(), Protocol::Tcp);
    (listener, port)
}

/// A socket that takes knocks, and reads none before they were sent.
fn receiver() -> (UdpSocket, Port) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_nonblocking(true).expect("a non-blocking socket");
    let port = port(socket.local_addr(), Protocol::Udp);
    (socket, port)
}

/// All that has arrived: who sent it, what it was.
fn received(socket: &UdpSocket) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut buffer = [0; 512];
    std::iter::from_fn(|| match socket.recv_from(&mut buffer) {
        Ok((length, from)) => Some((from, buffer[..length].to_vec())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("cannot receive: {error}"),
    })
    .collect()
}

/// All connections made so far.
async fn accepted(listener: &TcpListener) -> Vec<SocketAddr> {
    let mut peers = Vec::new();
    while let Ok(accepted) = timeout(Duration::from_millis(100), listener.accept()).await {
        peers.push(accepted.expect("a connection").1);
    }
    peers
}

/// A port that nothing listens on, and that nobody else gets.
fn closed_port() -> (TcpSocket, Port) {
    let socket = TcpSocket::new_v4().expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(any).expect("a free port");
    let port = port(socket.local_addr(), Protocol::Tcp);
    (socket, port)
}

#[tokio::test]
async fn every_step_is_one_packet_from_a_port_of_its_own() {
    for delay in [Duration::ZERO, Duration::from_millis(2)] {
        let (tcp, tcp_port) = listener().await;
        let (udp, udp_port) = receiver();
        let target = loopback().await;
        let sequence = [udp_port, tcp_port, udp_port, udp_port, tcp_port];
        let mut seen = Vec::new();
        let mut observe =
            |_: &Address<'_>, progress: &Progress<'_>| seen.push(progress.to_string());
        Client::new(&target, &sequence, pace(delay, 0), &mut observe)
            .send()
            .await
            .expect("knocks");

        let datagrams = received(&udp);
        assert_eq!(datagrams.len(), 3, "{datagrams:?}");
        assert!(
            datagrams.iter().all(|(_, payload)| payload.len() == 1),
            "{datagrams:?}"
        );
        let connections = accepted(&tcp).await;
        assert_eq!(connections.len(), 2, "{connections:?}");
        let sources: HashSet<_> = datagrams.iter().map(|(from, _)| from.port()).collect();
        assert_eq!(sources.len(), 3, "{sources:?}");
        assert_ne!(connections[0].port(), connections[1].port());

        let knocks: Vec<_> = seen
            .iter()
            .filter(|line| line.starts_with("knock "))
            .collect();
        let expected: Vec<_> = (1..)
            .zip(sequence)
            .map(|(n, port)| format!("knock {n} of 5: {port}"))
            .collect();
        assert_eq!(knocks, expected.iter().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn closed_knock_ports_stop_nothing() {
    let (_closed, tcp) = closed_port();
    let udp = receiver().1;
    let (last, last_port) = receiver();
    let target = loopback().await;
    let mut answers = Vec::new();
    let mut observe = |_: &Address<'_>, progress: &Progress<'_>| {
        if let Progress::Answered {
            port,
            answer: Answer::Error(error),
        } = progress
        {
            answers.push((*port, error.kind()));
        }
    };
    let sequence = [udp, udp, tcp, tcp, last_port];
    let delay = Duration::from_millis(20);
    Client::new(&target, &sequence, pace(delay, 0), &mut observe)
        .send()
        .await
        .expect("knocks");
    assert_eq!(received(&last).len(), 1);
    let refused = io::ErrorKind::ConnectionRefused;
    assert_eq!(
        answers,
        [
            (udp, refused),
            (udp, refused),
            (tcp, refused),
            (tcp, refused)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_delay_lies_between_knocks_and_not_after_the_last() {
    let (_udp, port) = receiver();
    let target = loopback().await;
    let delay = Duration::from_millis(500);
    // Before the first knock, another test's client may be waited for.
    let mut first = None;
    let mut observe = |_: &Address<'_>, _: &Progress<'_>| {
        first.get_or_insert_with(tokio::time::Instant::now);
    };
    Client::new(&target, &[port, port, port], pace(delay, 0), &mut observe)
        .send()
        .await
        .expect("knocks");
    let taken = first.expect("a first knock").elapsed();
    assert!(taken >= 2 * delay && taken < 3 * delay, "{taken:?}");
}

#[tokio::test]
async fn a_port_that_stays_closed_is_knocked_for_again_and_then_given_up() {
    let (udp, knock) = receiver();
    let (_socket, Port { number: closed, .. }) = closed_port();
    let target = loopback().await;
    for (retries, said) in [(0, "sent once"), (1, "sent twice"), (2, "sent 3 times")] {
        let mut tries = 0;
        let mut observe = |_: &Address<'_>, progress: &Progress<'_>| {
            tries += u32::from(matches!(
                progress,
                Progress::Closed {
                    closed: Closed::Refused,
                    ..
                }
            ));
        };
        let error = Client::new(
            &target,
            &[knock, knock],
            pace(Duration::from_millis(1), retries),
            &mut observe,
        )
        .open(closed)
        .await
        .expect_err("a closed port");
        assert_eq!(tries, retries + 1);
        let error = error
            .downcast::<NotOpen>()
            .expect("the typed error")
            .to_string();
        assert!(
            error.starts_with(&format!("{closed}/tcp of 127.0.0.1 did not open: ")),
            "{error}"
        );
        assert!(error.contains(said), "{error}");
        assert!(error.contains("the connection was refused"), "{error}");
        assert!(
            !error.contains(&knock.to_string()),
            "the sequence is a secret: {error}"
        );

        let sources: HashSet<_> = received(&udp)
            .into_iter()
            .map(|(from, _)| from.port())
            .collect();
        assert_eq!(
            sources.len(),
            2 * (tries as usize),
            "one fresh source port for each knock"
        );
    }
}

#[tokio::test]
async fn a_silent_port_is_given_up_after_the_timeout() {
    // With its queue of one filled, the listener answers no further SYN.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("a port");
    let silent = socket.listen(0).expect("a listener");
    let address = silent.local_addr().expect("its address");
    let _fills_the_queue = TcpStream::connect(address)
        .await
        .expect("the one connection it takes");

    let (_udp, knock) = receiver();
    let target = loopback().await;
    let patience = Duration::from_millis(100);
    let pace = Pace {
        delay: Duration::ZERO,
        retries: 1,
        timeout: patience,
    };
    let start = Instant::now();
    let error = Client::new(&target, &[knock], pace, &mut |_, _| {})
        .open(address.port())
        .await
        .expect_err("a silent port");
    assert!(
        start.elapsed() >= 3 * patience,
        "the second try waits twice as long"
    );
    let error = error
        .downcast::<NotOpen>()
        .expect("the typed error")
        .to_string();
    assert!(error.contains("no answer within 200ms"), "{error}");
    for option in ["--delay 200ms", "--timeout 1s", "--retries 3"] {
        assert!(error.contains(option), "no {option} in {error}");
    }
}

#[tokio::test]
async fn the_connection_follows_the_knock_that_opens() {
    let (udp, knock) = receiver();
    let (socket, behind) = closed_port();
    let target = loopback().await;
    // A gate that opens when the sequence came for the second time.
    let gate = tokio::spawn(async move {
        let mut knocks = 0;
        while knocks < 4 {
            knocks += received(&udp).len();
            sleep(Duration::from_millis(1)).await;
        }
        let listener = socket.listen(1).expect("a bound socket");
        let peer = listener.accept().await.expect("a connection").1;
        (knocks, peer)
    });
    let mut lines = Vec::new();
    let mut observe = |_: &Address<'_>, progress: &Progress<'_>| lines.push(progress.to_string());
    let stream = Client::new(
        &target,
        &[knock, knock],
        pace(Duration::from_millis(5), 20),
        &mut observe,
    )
    .open(behind.number)
    .await
    .expect("an open port");
    let Opened::Stream(stream) = stream else {
        panic!("nobody resets it: {stream:?}");
    };
    let (knocks, peer) = gate.await.expect("a gate");
    assert_eq!(peer, stream.local_addr().expect("an address"));
    assert!(knocks >= 4);
    assert_eq!(
        lines.last().map(String::as_str),
        Some(format!("{}/tcp is open", behind.number).as_str())
    );
}

#[tokio::test]
async fn a_knock_that_cannot_leave_is_an_error() {
    // Connecting to the broadcast address without asking for broadcast is refused by this machine itself.
    let target = Target::resolve("255.255.255.255", Family::Any)
        .await
        .expect("an address");
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let knock = Port {
            number: 9,
            protocol,
        };
        let error = Client::new(&target, &[knock], pace(Duration::ZERO, 0), &mut |_, _| {})
            .send()
            .await
            .expect_err("no way to send this");
        let shown = format!("{error:#}");
        assert!(
            shown.starts_with("cannot send knock 1 of 1 to 255.255.255.255; "),
            "{shown}"
        );
    }
}

/// A name whose first address never answers, and whose second is this machine.
fn two_addresses(first: &str) -> Target {
    let address = |text: &str| SocketAddr::new(text.parse().expect("an address"), 0);
    Target::of("two.example", vec![address(first), address("127.0.0.1")])
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_does_not_answer() {
    let (listener, port) = listener().await;
    let (udp, knock) = receiver();
    // Nothing on this machine can be sent to the first; to the second it can, and nobody listens there.
    for first in ["255.255.255.255", "127.0.0.2"] {
        let target = two_addresses(first);
        let mut addresses = Vec::new();
        let mut observe = |address: &Address<'_>, progress: &Progress<'_>| {
            if matches!(progress, Progress::Knock { .. }) {
                addresses.push(address.ip().to_string());
            }
        };
        let opened = Client::new(&target, &[knock], pace(Duration::ZERO, 0), &mut observe)
            .open(port.number)
            .await
            .expect("the second address");
        assert!(matches!(opened, Opened::Stream(_)), "{opened:?}");
        assert_eq!(addresses, [first, "127.0.0.1"]);
        assert_eq!(received(&udp).len(), 1, "knocks at the second address");
    }
    drop(listener);
}

#[tokio::test]
async fn without_a_port_to_check_every_address_is_knocked_at() {
    let (udp, knock) = receiver();
    for first in ["255.255.255.255", "127.0.0.2"] {
        let target = two_addresses(first);
        Client::new(
            &target,
            &[knock, knock],
            pace(Duration::ZERO, 0),
            &mut |_, _| {},
        )
        .send()
        .await
        .expect("knocks at the second address");
        assert_eq!(received(&udp).len(), 2, "after {first}");
    }
}

#[tokio::test]
async fn every_address_that_stayed_closed_is_named() {
    let (_udp, knock) = receiver();
    let (_socket, Port { number: closed, .. }) = closed_port();
    let target = two_addresses("127.0.0.2");
    let error = Client::new(&target, &[knock], pace(Duration::ZERO, 0), &mut |_, _| {})
        .open(closed)
        .await
        .expect_err("a closed port")
        .to_string();
    let said = "two.example (127.0.0.2): the connection was refused; two.example (127.0.0.1): the connection was";
    assert!(error.contains(said), "{error}");
}

#[tokio::test]
async fn a_connection_that_is_reset_at_once_was_open() {
    let (listener, port) = listener().await;
    let (_udp, knock) = receiver();
    let target = loopback().await;
    let server = tokio::spawn(async move {
        for _ in 0..50 {
            let (connection, _) = listener.accept().await.expect("a connection");
            connection.set_zero_linger().expect("close by reset");
        }
    });
    for _ in 0..50 {
        Client::new(&target, &[knock], pace(Duration::ZERO, 0), &mut |_, _| {})
            .open(port.number)
            .await
            .expect("a port that took the connection");
    }
    server.await.expect("a server");
}

#[test]
fn only_tcp_ports_can_be_checked() {
    assert_eq!(parse_tcp_port("22/tcp"), Ok(22));
    for (text, message) in [
        ("53/udp", "an open UDP port need not answer"),
        ("22", "22/tcp"),
        ("0/tcp", "0"),
        ("ssh", "22/tcp"),
    ] {
        let error = parse_tcp_port(text).expect_err(text);
        assert!(error.contains(message), "{error}");
    }
}
