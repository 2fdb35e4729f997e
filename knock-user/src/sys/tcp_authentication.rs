//! Whether the kernel can authenticate TCP segments (RFC 5925).

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// Of `linux/tcp.h`.
const TCP_AO_INFO: libc::c_int = 40;
/// Bytes for an answer. What it says is not read.
const ROOM: u8 = 4;

/// Returns whether it was built with `TCP_AO` (since Linux 6.7); false where there are no sockets to ask it by.
pub fn is_built_in() -> bool {
    [libc::AF_INET, libc::AF_INET6]
        .into_iter()
        .find_map(|family| asked(family).ok())
        .unwrap_or(false)
}

fn asked(family: libc::c_int) -> io::Result<bool> {
    // SAFETY: takes no pointers.
    let socket = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which the call above has made and nothing else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut answer = [0_u8; ROOM as usize];
    let mut length = libc::socklen_t::from(ROOM);
    // SAFETY: the kernel reads and writes no more than `length` bytes of the first, and a length at the second.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_AO_INFO,
            answer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // A socket without keys has no such information; a kernel without authentication does not know what is asked.
    Ok(asked == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT))
}
