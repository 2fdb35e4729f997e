//! Notifications about interfaces and their addresses (rtnetlink).

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// Messages about interfaces and addresses that come, go or change: readable when there are some.
///
/// Linux sends none when a BPF link is detached (`bpf_xdp_link_detach` of `net/core/dev.c`, seen on 6.18 in both
/// modes), so a reader has to look from time to time, too.
#[derive(Debug)]
pub struct LinkEvents(Socket);

impl LinkEvents {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Discards the messages that have come; the reader asks for the state of interfaces and addresses
    /// afresh.
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
