//! Connected UDP sockets of the host, with any address: in a namespace to which every address is local.

use std::{
    collections::HashMap,
    mem,
    net::SocketAddr,
    os::fd::AsRawFd as _,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use netlab::Netns;
use socket2::{Domain, Protocol, Socket, Type};

use crate::network::{ip, set};

/// `connect` to an address of this family disconnects a UDP socket (udp(7)).
const AF_UNSPEC: libc::sa_family_t = 0;

/// The sockets. Dropping this value closes them.
pub struct Sockets {
    netns: Netns,
    /// By own address and peer's address.
    open: HashMap<(SocketAddr, SocketAddr), Socket>,
}

impl Sockets {
    /// Returns an empty set of sockets.
    pub fn none() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kg-sockets-{}-{number}", process::id());
        let netns = Netns::create(&name).unwrap_or_else(|error| panic!("{error}"));
        ip(
            &netns,
            "route add local 0.0.0.0/0 dev lo\nroute add local ::/0 dev lo",
        );
        // Otherwise a socket can be bound to addresses of an interface only.
        set(
            &netns,
            &["ipv4/ip_nonlocal_bind", "ipv6/ip_nonlocal_bind"],
            "1",
        );
        Self {
            netns,
            open: HashMap::new(),
        }
    }

    /// Adds a socket at `own` that is connected to `peer`, unless there is one.
    pub fn connect(&mut self, own: SocketAddr, peer: SocketAddr) {
        let netns = &self.netns;
        self.open.entry((own, peer)).or_insert_with(|| {
            let made = netns.here(|| {
                let socket =
                    Socket::new(Domain::for_address(own), Type::DGRAM, Some(Protocol::UDP))?;
                // Sockets for several peers may share a port.
                socket.set_reuse_address(true)?;
                socket.bind(&own.into())?;
                socket.connect(&peer.into())?;
                Ok::<_, std::io::Error>(socket)
            });
            made.unwrap_or_else(|error| panic!("no socket at {own} for {peer}: {error}"))
        });
    }

    /// Closes all sockets.
    ///
    /// Each is disconnected first: a process that another thread is starting has copies of the descriptors until it
    /// executes its program, and a copy would keep a socket connected.
    pub fn close(&mut self) {
        // SAFETY: `sockaddr` is plain data, for which all zeroes is a value.
        let mut nowhere: libc::sockaddr = unsafe { mem::zeroed() };
        nowhere.sa_family = AF_UNSPEC;
        let length = libc::socklen_t::try_from(size_of_val(&nowhere)).expect("an address is short");
        for socket in self.open.values() {
            // SAFETY: the address is as long as is said, and lives for the call.
            let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) };
            assert_eq!(result, 0, "a UDP socket can be disconnected");
        }
        self.open.clear();
    }

    pub fn contains(&self, own: SocketAddr, peer: SocketAddr) -> bool {
        self.open.contains_key(&(own, peer))
    }

    /// Runs `inside` in the namespace of the sockets.
    pub fn beside<T>(&self, inside: impl FnOnce() -> T) -> T {
        self.netns.here(inside)
    }
}
