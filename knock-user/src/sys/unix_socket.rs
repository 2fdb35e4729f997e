//! Connections to sockets of the file system.

use std::{
    ffi::c_char,
    io, mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, net::UnixStream},
    },
    path::Path,
};

#[expect(clippy::cast_possible_truncation, reason = "1")]
const FAMILY: libc::sa_family_t = libc::AF_UNIX as libc::sa_family_t;
#[expect(clippy::cast_possible_truncation, reason = "110 bytes")]
const LENGTH: libc::socklen_t = size_of::<libc::sockaddr_un>() as libc::socklen_t;

/// Returns whether somebody listens at `path`, also where nobody is accepted; `None`: this user may not know.
pub fn is_listened_at(path: &Path) -> Option<bool> {
    match connect(path) {
        Ok(_) => Some(true),
        Err(error) => match error.kind() {
            io::ErrorKind::PermissionDenied => None,
            kind => Some(kind == io::ErrorKind::WouldBlock),
        },
    }
}

/// Connects to the socket at `path`, and waits for nothing: where somebody listens who accepts nobody, so that the queue is
/// full, it fails with [`io::ErrorKind::WouldBlock`]. (std's `connect` waits until there is room, for any time.)
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: all zeros is a valid `sockaddr_un`.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    // The zero at the end must fit, too.
    if bytes.len() >= address.sun_path.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    address.sun_family = FAMILY;
    for (to, &from) in address.sun_path.iter_mut().zip(bytes) {
        *to = c_char::from_ne_bytes([from]);
    }
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes no pointers.
    let socket = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has made the descriptor, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: the call reads the address, whose whole length is given.
    let connected =
        unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), LENGTH) };
    if connected != 0 {
        return Err(io::Error::last_os_error());
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Returns whether the other end of a connection neither sends nor reads any more.
pub fn has_hung_up(stream: BorrowedFd<'_>) -> bool {
    let mut polled = libc::pollfd {
        fd: stream.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: the call reads and writes this one value; the descriptor is open as long as it is borrowed.
    let ready = unsafe { libc::poll(&raw mut polled, 1, 0) };
    ready > 0 && polled.revents & (libc::POLLHUP | libc::POLLERR) != 0
}

#[cfg(test)]
mod tests {
    use std::{
        net::Shutdown,
        os::{fd::AsFd as _, unix::net::UnixListener},
    };

    use super::*;

    #[test]
    fn who_sends_nothing_more_still_reads() {
        let (ours, theirs) = UnixStream::pair().expect("two descriptors");
        assert!(!has_hung_up(ours.as_fd()));
        theirs.shutdown(Shutdown::Write).expect("it is connected");
        assert!(!has_hung_up(ours.as_fd()));
        drop(theirs);
        assert!(has_hung_up(ours.as_fd()));
    }

    #[test]
    fn who_accepts_nobody_is_there() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("sock");
        assert_eq!(is_listened_at(&path), Some(false));
        let listener = UnixListener::bind(&path).expect("a free name");
        // SAFETY: the descriptor is open; the call takes no pointers. It makes the queue as short as can be.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let mut waiting = Vec::new();
        while let Ok(stream) = connect(&path) {
            waiting.push(stream);
            assert!(waiting.len() < 100, "the queue is short");
        }
        assert_eq!(is_listened_at(&path), Some(true));
        drop(listener);
        assert_eq!(is_listened_at(&path), Some(false));
    }
}
