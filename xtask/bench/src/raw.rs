//! Frames that user space sends and takes, byte by byte.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// A socket on one interface of the sender's.
pub struct Raw(OwnedFd);

impl Raw {
    /// One that takes IPv4 frames that arrive.
    pub fn open(interface: u32) -> Result<Self> {
        Self::bound(interface, libc::ETH_P_IP)
    }

    /// One that only sends.
    pub fn sending(interface: u32) -> Result<Self> {
        Self::bound(interface, 0)
    }

    fn bound(interface: u32, protocol: libc::c_int) -> Result<Self> {
        let protocol = u16::try_from(protocol)
            .expect("an Ethernet type has 16 bits")
            .to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: takes no pointers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol)) };
        if socket < 0 {
            return Err(io::Error::last_os_error()).context("can't make a packet socket");
        }
        // SAFETY: just made, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: all zeroes is a valid address.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
        address.sll_protocol = protocol;
        address.sll_ifindex = interface.cast_signed();
        let size = libc::socklen_t::try_from(size_of_val(&address)).expect("a small size");
        // SAFETY: the address is valid for the size given.
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) } != 0 {
            return Err(io::Error::last_os_error()).context("can't bind a packet socket");
        }
        Ok(Self(socket))
    }

    /// Sends a frame. A flood may have filled the wire: then tries again for 5 ms, since what is measured
    /// is the gate. Returns whether the frame went.
    pub fn send(&self, frame: &[u8]) -> Result<bool> {
        for _ in 0..50 {
            // SAFETY: the frame is valid for its length.
            let sent =
                unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
            if sent >= 0 {
                return Ok(true);
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ENOBUFS | libc::EAGAIN) => thread::sleep(Duration::from_micros(100)),
                _ => return Err(error).context("can't send a frame"),
            }
        }
        Ok(false)
    }

    /// The next frame that has arrived, or as much of it as there is room for.
    pub fn receive<'b>(&self, room: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
        // SAFETY: the room is valid for its length.
        let got =
            unsafe { libc::recv(self.0.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0) };
        let Ok(got) = usize::try_from(got) else {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN) => Ok(None),
                _ => Err(error).context("can't receive a frame"),
            };
        };
        Ok(Some(&room[..got]))
    }

    /// Waits until a frame arrives, or for so long.
    pub fn wait(&self, longest: Duration) -> Result<()> {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let time = libc::timespec {
            tv_sec: libc::time_t::try_from(longest.as_secs()).unwrap_or(1),
            tv_nsec: libc::c_long::from(longest.subsec_nanos().cast_signed()),
        };
        // SAFETY: one descriptor and one time, both valid during the call; no signal mask.
        let ready = unsafe { libc::ppoll(&raw mut poll, 1, &raw const time, std::ptr::null()) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error).context("can't wait for a frame");
            }
        }
        Ok(())
    }
}
