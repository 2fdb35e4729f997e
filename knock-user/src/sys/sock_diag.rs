//! TCP and UDP sockets of this host, of the states that are asked for. The kernel leaves the others out, so listing the
//! listeners of a busy server costs no more than those of an idle one; `/proc/net` would list every connection.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

pub use netlink_packet_sock_diag::inet::StateFlags as States;
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId},
};
use rtnetlink::{
    packet_core::{
        NLM_F_DUMP, NetlinkDeserializable as _, NetlinkHeader, NetlinkSerializable as _,
    },
    sys::protocols::NETLINK_SOCK_DIAG,
};

use super::netlink;

/// The loopback interface's index, in every network namespace.
const LOOPBACK: u32 = 1;

/// A socket with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// The IPv4-mapped address of an IPv6 socket is given as IPv4.
    pub local: SocketAddr,
    /// Unspecified where the socket has no peer.
    pub remote: SocketAddr,
    /// Index of the interface that it is bound to; 0: any.
    interface: u32,
}

impl Socket {
    /// Returns whether packets from other hosts can reach it.
    pub fn is_reachable(&self) -> bool {
        !self.local.ip().is_loopback() && self.interface != LOOPBACK
    }
}

/// Transport protocols whose sockets can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// Returns all sockets in these states, of both families. Fails with `ENOENT` where the kernel has no module that lists those of
/// this transport (`tcp_diag`, `udp_diag`): what it does not tell is not taken for none.
pub fn sockets(transport: Transport, states: &States) -> io::Result<Vec<Socket>> {
    let protocol = match transport {
        Transport::Tcp => IPPROTO_TCP,
        Transport::Udp => IPPROTO_UDP,
    };
    sockets_of(protocol, states)
}

fn sockets_of(protocol: u8, states: &States) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for (family, any) in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol,
            extensions: ExtensionFlags::empty(),
            states: states.clone(),
            socket_id: any,
        });
        let kind = request.message_type();
        let mut payload = vec![0; request.buffer_len()];
        request.serialize(&mut payload);
        let mut header = NetlinkHeader::default();
        header.message_type = kind;
        let mut unread = None;
        // Sockets come and go all the time, so such a list is always of several moments.
        netlink::ask(NETLINK_SOCK_DIAG, kind, NLM_F_DUMP, &payload, |reply| {
            let response = match SockDiagMessage::deserialize(&header, reply) {
                Ok(SockDiagMessage::InetResponse(response)) => response,
                Ok(_) => return,
                Err(error) => {
                    unread = Some(io::Error::other(error));
                    return;
                }
            };
            let id = response.header.socket_id;
            let end = |address: IpAddr, port| SocketAddr::new(address.to_canonical(), port);
            sockets.push(Socket {
                local: end(id.source_address, id.source_port),
                remote: end(id.destination_address, id.destination_port),
                interface: id.interface_id,
            });
        })?;
        if let Some(error) = unread {
            return Err(error);
        }
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::fd::AsRawFd as _,
    };

    use super::*;

    fn found(transport: Transport, states: &States, local: SocketAddr) -> Option<Socket> {
        let sockets = sockets(transport, states).expect("the kernel has sock_diag");
        sockets.into_iter().find(|socket| socket.local == local)
    }

    #[test]
    fn only_the_states_asked_for_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let client = TcpStream::connect(address).expect("it listens");
        let end = client.local_addr().expect("a connected socket");
        let listening = found(Transport::Tcp, &States::LISTEN, address);
        assert!(listening.is_some_and(|socket| socket.remote.port() == 0));
        assert_eq!(found(Transport::Tcp, &States::LISTEN, end), None);
        let connected = found(Transport::Tcp, &States::ESTABLISHED, end);
        assert_eq!(connected.map(|socket| socket.remote), Some(address));
    }

    #[test]
    fn sockets_that_the_kernel_cannot_list_are_not_taken_for_none() {
        // For experiments (RFC 3692), so that no kernel has a module for it.
        let error = sockets_of(253, &States::all()).expect_err("no module lists these");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
    }

    #[test]
    fn a_datagram_socket_is_told_by_its_peer() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("a bound socket");
        assert!(found(Transport::Udp, &States::CLOSE, address).is_some());
        assert!(found(Transport::Udp, &States::ESTABLISHED, address).is_none());
        socket.connect("127.0.0.1:9").expect("no packet is sent");
        assert!(found(Transport::Udp, &States::CLOSE, address).is_none());
        assert!(found(Transport::Udp, &States::ESTABLISHED, address).is_some());
    }

    #[test]
    fn sockets_of_the_loopback_interface_face_nobody_outside() {
        for (bind, reachable) in [
            ("127.0.0.1:0", false),
            ("127.9.9.9:0", false),
            ("[::1]:0", false),
            ("[::ffff:127.0.0.1]:0", false),
            ("0.0.0.0:0", true),
            ("[::]:0", true),
        ] {
            let listener = TcpListener::bind(bind).expect("a free port");
            let address = listener.local_addr().expect("a bound socket");
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            let socket = found(Transport::Tcp, &States::LISTEN, address).expect(bind);
            assert_eq!(socket.is_reachable(), reachable, "{bind}");
        }
    }

    #[test]
    fn a_socket_bound_to_the_loopback_device_faces_nobody_outside() {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
        let name = c"lo";
        // SAFETY: the call reads the name, as long as said, and nothing else.
        let bound = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                name.as_ptr().cast(),
                2,
            )
        };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        let address = socket.local_addr().expect("a bound socket");
        let socket = found(Transport::Udp, &States::CLOSE, address).expect("it is there");
        assert!(!socket.is_reachable());
    }
}
