//! Sends and receives whole frames, including those that an IP stack would refuse to send.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
    time::Duration,
};

/// A packet socket on one interface. It never blocks; [`PacketSocket::wait`] does.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

/// The direction of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Arrived,
    /// Sent by this host itself.
    Left,
}

/// The ethertype of the frames that a socket receives; `EVERY` is `ETH_P_ALL` of `linux/if_ether.h`.
pub const IPV4: u16 = 0x0800;
pub const EVERY: u16 = 0x0003;

/// Of `linux/if_packet.h`.
const PACKET_VNET_HDR: libc::c_int = 15;

impl PacketSocket {
    /// Opens a socket that only sends. `interface` is an index in the calling thread's namespace.
    pub fn sending(interface: u32) -> io::Result<Self> {
        Self::open(interface, 0)
    }

    /// Opens a socket that sends, and receives frames of this ethertype.
    pub fn receiving(interface: u32, ethertype: u16) -> io::Result<Self> {
        Self::open(interface, ethertype)
    }

    fn open(interface: u32, ethertype: u16) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol 0 until the socket is bound to its interface, so that it receives no frame of another interface.
        // SAFETY: takes no pointers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened this descriptor for the caller alone.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: sockaddr_ll is plain data, for which all zeroes is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = interface.cast_signed();
        let size = libc::socklen_t::try_from(size_of_val(&address)).expect("20 bytes");
        // SAFETY: the address is valid for the size given.
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(socket))
    }

    /// Sets the receive buffer in bytes, even beyond the limit of the machine.
    pub fn set_receive_room(&self, bytes: libc::c_int) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes)
    }

    /// Makes each frame begin with a `struct virtio_net_hdr`, which describes its offloads.
    pub fn set_offload_header(&self) -> io::Result<()> {
        let on: libc::c_int = 1;
        self.set(libc::SOL_PACKET, PACKET_VNET_HDR, &on)
    }

    /// Sends a whole frame. Returns false if the queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<bool> {
        // SAFETY: the frame is valid for its length.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent >= 0 {
            return Ok(true);
        }
        full(io::Error::last_os_error()).map(|()| false)
    }

    /// Sends whole frames by one system call. Returns how many were sent before the queue was full.
    pub fn send_many(&self, frames: &[Vec<u8>]) -> io::Result<usize> {
        let mut pieces: Vec<libc::iovec> = frames
            .iter()
            .map(|frame| libc::iovec {
                iov_base: frame.as_ptr().cast_mut().cast(),
                iov_len: frame.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = pieces
            .iter_mut()
            .map(|piece| libc::mmsghdr {
                msg_hdr: libc::msghdr {
                    msg_name: ptr::null_mut(),
                    msg_namelen: 0,
                    msg_iov: piece,
                    msg_iovlen: 1,
                    msg_control: ptr::null_mut(),
                    msg_controllen: 0,
                    msg_flags: 0,
                },
                msg_len: 0,
            })
            .collect();
        let count = libc::c_uint::try_from(messages.len()).expect("few frames");
        // SAFETY: each message points at one live piece and that at one live frame, which the kernel only reads; it
        // writes how much it has sent to the `count` messages.
        let sent = unsafe { libc::sendmmsg(self.0.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        match usize::try_from(sent) {
            Ok(sent) => Ok(sent),
            Err(_) => full(io::Error::last_os_error()).map(|()| 0),
        }
    }

    /// Reads the next frame, or as much of it as fits into `room`. Returns `None` if no frame has arrived.
    pub fn receive<'b>(&self, room: &'b mut [u8]) -> io::Result<Option<(&'b [u8], Direction)>> {
        // SAFETY: sockaddr_ll is plain data, for which all zeroes is a value.
        let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
        let mut size = libc::socklen_t::try_from(size_of_val(&from)).expect("20 bytes");
        // SAFETY: room and address are valid for writes of the lengths given.
        let got = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                room.as_mut_ptr().cast(),
                room.len(),
                0,
                (&raw mut from).cast(),
                &raw mut size,
            )
        };
        let Ok(got) = usize::try_from(got) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(None),
                _ => Err(error),
            };
        };
        let direction = if from.sll_pkttype == libc::PACKET_OUTGOING {
            Direction::Left
        } else {
            Direction::Arrived
        };
        Ok(Some((&room[..got], direction)))
    }

    /// Waits until there is a frame to be read, for at most this long.
    pub fn wait(&self, longest: Duration) -> io::Result<()> {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let time = libc::timespec {
            tv_sec: libc::time_t::try_from(longest.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(longest.subsec_nanos().cast_signed()),
        };
        // SAFETY: one descriptor and one time, both valid during the call; no signal mask.
        if unsafe { libc::ppoll(&raw mut poll, 1, &raw const time, ptr::null()) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        }
    }

    /// Sets an option, whose value has this type.
    pub(crate) fn set<T>(
        &self,
        level: libc::c_int,
        option: libc::c_int,
        value: &T,
    ) -> io::Result<()> {
        let size = libc::socklen_t::try_from(size_of::<T>()).expect("few bytes");
        // SAFETY: the kernel reads `size` bytes of the value, and keeps none of them.
        let set = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                level,
                option,
                ptr::from_ref(value).cast(),
                size,
            )
        };
        if set == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns an error of sending, unless it says that the queue or the socket is full.
fn full(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENOBUFS | libc::EAGAIN) => Ok(()),
        _ => Err(error),
    }
}
