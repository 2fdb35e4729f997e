//! Offloads of a network device, which decide how much of a stream one packet holds on its way.

use std::{ffi::c_char, io, mem, os::fd::AsRawFd, ptr};

use socket2::{Domain, Socket, Type};

use crate::netns::Netns;

/// What can be switched, by its command in linux/ethtool.h.
#[derive(Clone, Copy, Debug)]
pub enum Offload {
    /// Segments that arrive one behind the other are merged into one.
    Gro = 0x2c,
    /// A sender hands over more than one packet holds, and it is cut as late as can be.
    Gso = 0x24,
    /// The same for TCP alone.
    Tso = 0x1f,
}

const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Switches offloads of an interface on or off.
pub fn set(netns: &Netns, interface: &str, offloads: &[Offload], on: bool) {
    for &offload in offloads {
        let switched = netns.run(|| switch(interface, offload, on));
        switched.unwrap_or_else(|error| panic!("can't set {offload:?} of {interface}: {error}"));
    }
}

fn switch(interface: &str, offload: Offload, on: bool) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut value = Value {
        command: offload as u32,
        data: u32::from(on),
    };
    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays the NUL that ends the name.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(interface.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = ptr::from_mut(&mut value).cast();
    // SAFETY: the request points to a value of the form that these commands read, alive for the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
