//! Ports as a client sees them: attempts to connect, and single knocks, from any source address.

use std::{
    io::{self, ErrorKind},
    mem,
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// The outcome of an attempt to reach a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A connection was established, or a datagram was answered.
    Open,
    /// A connection was established, but only by a retransmitted SYN: the port may have opened meanwhile.
    OpenLate,
    /// The host answered that nothing listens there.
    Refused,
    /// No answer at all.
    Silent,
}

impl Outcome {
    /// Of a connection that stands, or of none; see [`connect`].
    pub fn of(connection: &Result<TcpStream, Self>) -> Self {
        match connection {
            Ok(stream) if retransmissions(stream) > 0 => Self::OpenLate,
            Ok(_) => Self::Open,
            Err(outcome) => *outcome,
        }
    }
}

/// Connects, and gives up after `wait`. Below one second, only one SYN is sent: the first retransmission comes after
/// a second.
pub fn connect(from: SocketAddr, to: SocketAddr, wait: Duration) -> Result<TcpStream, Outcome> {
    let socket = bound(Type::STREAM, Protocol::TCP, from);
    match socket.connect_timeout(&to.into(), wait) {
        Ok(()) => Ok(socket.into()),
        Err(error) => Err(refusal(&error)
            .unwrap_or_else(|| panic!("cannot try {to} over TCP from {from}: {error}"))),
    }
}

/// Sends a datagram and waits for an answer.
pub fn ask(from: SocketAddr, to: SocketAddr, wait: Duration) -> Outcome {
    let socket = bound(Type::DGRAM, Protocol::UDP, from);
    let answer = socket
        .set_read_timeout(Some(wait))
        .and_then(|()| socket.connect(&to.into()))
        .and_then(|()| socket.send(b"anyone?"))
        .and_then(|_| received(&socket));
    match answer {
        Ok(_) => Outcome::Open,
        Err(error) => refusal(&error)
            .unwrap_or_else(|| panic!("cannot try {to} over UDP from {from}: {error}")),
    }
}

/// Waits for a datagram, also where a signal stops the process and has it go on meanwhile.
fn received(socket: &Socket) -> io::Result<usize> {
    loop {
        match socket.recv(&mut [mem::MaybeUninit::uninit(); 64]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => return received,
        }
    }
}

/// Sends one SYN and does not wait for an answer.
pub fn syn(from: SocketAddr, to: SocketAddr) {
    let socket = bound(Type::STREAM, Protocol::TCP, from);
    let begun = socket
        .set_nonblocking(true)
        .and_then(|()| socket.connect(&to.into()));
    if let Err(error) = begun {
        let under_way = error.raw_os_error() == Some(libc::EINPROGRESS);
        assert!(
            under_way || refusal(&error).is_some(),
            "cannot send a SYN to {to} from {from}: {error}"
        );
    }
}

/// Sends one datagram and does not wait for an answer.
pub fn datagram(from: SocketAddr, to: SocketAddr) {
    bound(Type::DGRAM, Protocol::UDP, from)
        .send_to(b"", &to.into())
        .unwrap_or_else(|error| panic!("cannot send a datagram to {to} from {from}: {error}"));
}

fn bound(kind: Type, protocol: Protocol, from: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(from), kind, Some(protocol));
    socket
        .and_then(|socket| {
            // A test may use a source port twice, as a retransmission does.
            socket.set_reuse_address(true)?;
            socket.bind(&SockAddr::from(from))?;
            Ok(socket)
        })
        .unwrap_or_else(|error| panic!("cannot send from {from}: {error}"))
}

fn refusal(error: &io::Error) -> Option<Outcome> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(Outcome::Refused),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Some(Outcome::Silent),
        _ => None,
    }
}

fn retransmissions(socket: &TcpStream) -> u32 {
    // SAFETY: tcp_info is plain data, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length =
        libc::socklen_t::try_from(size_of::<libc::tcp_info>()).expect("a few hundred bytes");
    // SAFETY: the kernel writes at most `length` bytes to `info`.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    assert_eq!(asked, 0, "TCP_INFO: {}", io::Error::last_os_error());
    info.tcpi_total_retrans
}
