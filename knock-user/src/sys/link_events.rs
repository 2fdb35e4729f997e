//! Notifications about interfaces (rtnetlink).

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// `RTMGRP_LINK` of `linux/rtnetlink.h`.
const LINKS: u32 = 1;

/// Messages about interfaces that come, go or change: readable when there are some.
///
/// Linux sends none when a BPF link is detached (`bpf_xdp_link_detach` of `net/core/dev.c`, seen on 6.18 in both
/// modes), so a reader has to look from time to time, too.
#[derive(Debug)]
pub struct LinkEvents(Socket);

impl LinkEvents {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, LINKS))?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Discards the messages that have come; the reader asks for the state of its interfaces afresh.
    pub fn discard(&self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(16 * 1024);
        loop {
            buffer.clear();
            match self.0.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(()),
                    // Messages were lost, so there were some.
                    Some(libc::ENOBUFS | libc::EINTR) => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

impl AsRawFd for LinkEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
