//! One knock as it leaves the machine.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::values::Protocol;

/// One byte rather than none: some middleboxes drop empty datagrams, and a service that happens to listen
/// on a knock port might take a read of zero bytes for the end.
const PAYLOAD: [u8; 1] = [0];

/// A TCP knock's socket is closed before Linux would send its SYN again, one second after the first.
const BEFORE_RETRANSMISSION: Duration = Duration::from_millis(900);

/// Several runs of the longest sequence, and far below the usual limit of 1,024 open files.
const SOCKETS_KEPT: usize = 64;

/// Sends knocks, each from a source port that no recent knock had.
#[derive(Default)]
pub(super) struct Wire {
    /// An open socket keeps its port from being given out again. TCP needs no such care: the kernel walks
    /// on from port to port with each connection to one destination.
    udp: VecDeque<UdpSocket>,
}

impl Wire {
    /// Sends one knock, waits for `pause`, and returns what came back meanwhile, if anything did.
    ///
    /// An error means that the knock did not leave this machine.
    pub(super) async fn knock(
        &mut self,
        to: SocketAddr,
        protocol: Protocol,
        pause: Duration,
    ) -> io::Result<Option<Answer>> {
        let mut rest = pin!(sleep(pause));
        match protocol {
            Protocol::Tcp => {
                let answer = syn(to, pause.min(BEFORE_RETRANSMISSION)).await?;
                rest.await;
                Ok(answer)
            }
            Protocol::Udp => {
                let socket = datagram(to, &PAYLOAD)?;
                rest.as_mut().await;
                let answer = socket.take_error()?.map(Answer::Error);
                self.keep(socket);
                Ok(answer)
            }
        }
    }

    /// Sends one datagram, from a source port that no recent knock had.
    pub(super) fn send(&mut self, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let socket = datagram(to, payload)?;
        self.keep(socket);
        Ok(())
    }

    fn keep(&mut self, socket: UdpSocket) {
        if self.udp.len() == SOCKETS_KEPT {
            self.udp.pop_front();
        }
        self.udp.push_back(socket);
    }
}

/// What came back for a knock before the next one left. Says nothing about whether the knock counted.
#[derive(Debug)]
pub enum Answer {
    /// A service on the knock port took the connection.
    Accepted,
    /// A reset or an ICMP message, as the error the system makes of it.
    Error(io::Error),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("connection accepted, closed again"),
            Self::Error(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                f.write_str("closed, as it should be")
            }
            Self::Error(error) => error.fmt(f),
        }
    }
}

/// Tells an error that the network sent from one of this machine's own, which is returned as `Err`.
///
/// Both can carry the same number: a firewall such as firewalld answers a closed port with "no route to
/// host" or, over IPv6, "permission denied", yet the gate in front of it has seen the packet. Connecting
/// a UDP socket asks this machine's routing alone and sends nothing, so it settles the matter.
pub(super) fn from_the_network(error: io::Error, to: SocketAddr) -> io::Result<io::Error> {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => Ok(error),
        Some(
            libc::EACCES
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ENOPROTOOPT
            | libc::EPROTO,
        ) => udp_socket(to).map(|_| error),
        _ => Err(error),
    }
}

/// Sends a SYN and closes the socket after `hold`, or as soon as an answer is there.
async fn syn(to: SocketAddr, hold: Duration) -> io::Result<Option<Answer>> {
    match timeout(hold, TcpStream::connect(to)).await {
        Ok(Ok(_closed_at_once)) => Ok(Some(Answer::Accepted)),
        // This machine has given up waiting.
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
        Ok(Err(error)) => from_the_network(error, to).map(|error| Some(Answer::Error(error))),
        Err(_) => Ok(None),
    }
}

fn datagram(to: SocketAddr, payload: &[u8]) -> io::Result<UdpSocket> {
    let socket = udp_socket(to)?;
    match socket.send(payload) {
        Ok(_) => Ok(socket),
        Err(error) => from_the_network(error, to).map(|_| socket),
    }
}

pub(super) fn udp_socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_network_are_told_from_those_of_this_machine() {
        let reachable = SocketAddr::from(([127, 0, 0, 1], 9));
        // Connecting to the broadcast address without asking for broadcast is refused locally.
        let unroutable = SocketAddr::from(([255, 255, 255, 255], 9));
        for (errno, to, from_network) in [
            (libc::ECONNREFUSED, reachable, true),
            (libc::EHOSTUNREACH, reachable, true),
            (libc::EACCES, reachable, true),
            (libc::EHOSTUNREACH, unroutable, false),
            (libc::EACCES, unroutable, false),
            (libc::EPERM, reachable, false),
            (libc::EADDRNOTAVAIL, reachable, false),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(
                from_the_network(error, to).is_ok(),
                from_network,
                "errno {errno} towards {to}"
            );
        }
    }

    #[tokio::test]
    async fn a_flood_of_retries_keeps_a_bounded_number_of_sockets() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a loopback socket");
        let to = receiver.local_addr().expect("its address");
        let mut wire = Wire::default();
        for _ in 0..SOCKETS_KEPT + 10 {
            wire.knock(to, Protocol::Udp, Duration::ZERO)
                .await
                .expect("a knock");
        }
        assert_eq!(wire.udp.len(), SOCKETS_KEPT);
    }
}
