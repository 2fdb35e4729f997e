//! What the client asks that only Linux answers. Nothing else in the client depends on the system, except that it is a Unix.

use std::{
    io,
    mem::MaybeUninit,
    net::IpAddr,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use tokio::net::TcpStream;

/// Takes the name that stands for knocking at `to`; [`io::ErrorKind::AddrInUse`] while another process has it. Abstract names
/// are a network namespace's own, like the address that the knocks come from.
pub(super) fn claim(to: IpAddr) -> io::Result<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("knockgate/knock/{to}"))?;
    UnixDatagram::bind_addr(&name)
}

/// Returns how many bytes that were sent, the end counted as one, the peer has not acknowledged.
pub(super) fn unacknowledged(stream: &TcpStream) -> io::Result<libc::c_int> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request (SIOCOUTQ, which has TIOCOUTQ's number) writes one int, to a place of that size;
    // the descriptor is open as long as the stream is borrowed.
    if unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } == 0 {
        Ok(bytes)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Returns whether nothing keeps the wall clock right: no time synchronisation has set it within the last hours.
pub(crate) fn clock_is_free() -> bool {
    // SAFETY: an all-zero structure is valid, and asks for nothing to be changed.
    let mut times = unsafe { MaybeUninit::<libc::timex>::zeroed().assume_init() };
    // SAFETY: the call fills the structure.
    let state = unsafe { libc::adjtimex(&raw mut times) };
    state >= 0 && times.status & libc::STA_UNSYNC != 0
}
