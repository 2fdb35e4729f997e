//! rtnetlink: what an interface is called now and which XDP program it carries, and a message when that may
//! have changed.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use rtnetlink::{
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage, LinkXdp},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// `RTMGRP_LINK` of linux/rtnetlink.h.
const LINKS: u32 = 1;

/// An interface of this process's network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Card {
    pub index: u32,
    pub name: String,
    /// Number of the program in the driver, or in hardware.
    pub native: Option<u32>,
    /// Number of the program behind the driver.
    pub generic: Option<u32>,
}

/// The interface with this index, if there is one.
pub fn card(index: u32) -> io::Result<Option<Card>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut wanted = LinkMessage::default();
    wanted.header.index = index;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(wanted));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(read(link))),
        NetlinkPayload::Error(error) => match error.to_io() {
            error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            error => Err(error),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn read(link: LinkMessage) -> Card {
    let mut card = Card {
        index: link.header.index,
        ..Card::default()
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => card.name = name,
            LinkAttribute::Xdp(attributes) => {
                for attribute in attributes {
                    match attribute {
                        LinkXdp::DrvProgId(id) | LinkXdp::HwProgId(id) => card.native = Some(id),
                        LinkXdp::SkbProgId(id) => card.generic = Some(id),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    card
}

/// Messages about interfaces that come, go or change: readable when there are some.
///
/// Not everything makes one. Linux sends none when a link is detached (`bpf_xdp_link_detach` of
/// net/core/dev.c, seen on 6.18 in both modes), so a reader has to look from time to time, too.
#[derive(Debug)]
pub struct LinkMessages(Socket);

impl LinkMessages {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, LINKS))?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Reads what has come: what it says is asked for afresh, so it is thrown away.
    pub fn discard(&self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(16 * 1024);
        loop {
            buffer.clear();
            match self.0.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(()),
                    // More than there was room for, which is as good as a message.
                    Some(libc::ENOBUFS | libc::EINTR) => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

impl AsRawFd for LinkMessages {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
