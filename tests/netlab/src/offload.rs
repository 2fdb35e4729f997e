//! Offloads of a network device: whether it merges received segments and cuts large packets itself.

use std::{
    ffi::c_char,
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use crate::Netns;

/// An offload that can be switched; its value is the command in `linux/ethtool.h`.
#[derive(Clone, Copy, Debug)]
pub enum Offload {
    /// Generic receive offload: merges segments that arrive one after another.
    Gro = 0x2c,
    /// Generic segmentation offload: cuts a large packet into segments as late as possible.
    Gso = 0x24,
    /// TCP segmentation offload: the same for TCP, in hardware.
    Tso = 0x1f,
}

const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Switches offloads of an interface on or off, as `ethtool -K` does.
pub fn set(netns: &Netns, interface: &str, offloads: &[Offload], on: bool) -> io::Result<()> {
    for &offload in offloads {
        netns
            .run(|| switch(interface, offload, on))
            .map_err(|error| {
                let message = format!("cannot set {offload:?} of {interface}: {error}");
                io::Error::new(error.kind(), message)
            })?;
    }
    Ok(())
}

fn switch(interface: &str, offload: Offload, on: bool) -> io::Result<()> {
    // SAFETY: takes no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor for the caller alone.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
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
