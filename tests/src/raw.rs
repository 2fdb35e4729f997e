//! Frames put on the wire byte by byte, past everything that an IP stack would refuse to send.

use std::{
    ffi::CString,
    io,
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use crate::lab::{CLIENT_INTERFACE, Lab};

/// How long others may keep the wire full.
const PATIENCE: Duration = Duration::from_mins(1);

/// Sends whole Ethernet frames out of the clients' interface, in this order.
pub fn send(lab: &Lab, frames: &[Vec<u8>]) {
    Wire::open(lab).send(lab, frames);
}

/// The clients' end of the wire, for who sends often: to let go of it makes the kernel wait for all CPUs.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    interface: SockAddr,
}

impl Wire {
    pub fn open(lab: &Lab) -> Self {
        let open = || {
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            let interface = address(CLIENT_INTERFACE, 0)?;
            io::Result::Ok(Self { socket, interface })
        };
        lab.client
            .run(open)
            .unwrap_or_else(|error| panic!("can't send raw frames: {error}"))
    }

    /// Sends whole Ethernet frames in this order.
    pub fn send(&self, lab: &Lab, frames: &[Vec<u8>]) {
        // There, since it keeps to one CPU.
        lab.client.run(|| {
            for frame in frames {
                self.put(frame);
            }
        });
    }

    /// Waits where others have filled the wire.
    fn put(&self, frame: &[u8]) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            match self.socket.send_to(frame, &self.interface) {
                Err(error) if is_full(&error) => thread::sleep(Duration::from_micros(100)),
                sent => {
                    sent.unwrap_or_else(|error| panic!("can't send a raw frame: {error}"));
                    return;
                }
            }
        }
        panic!("there was no room for a raw frame within {PATIENCE:?}");
    }
}

/// The clients' end of the wire for packets whose transport checksum is left to hardware, as a program's
/// socket leaves it.
#[derive(Debug)]
pub struct UnsummedWire(Wire);

impl UnsummedWire {
    pub fn open(lab: &Lab) -> Self {
        let wire = Wire::open(lab);
        let on: libc::c_int = 1;
        // SAFETY: the option is an int, of which the kernel reads as many bytes as it has.
        let set = unsafe {
            libc::setsockopt(
                wire.socket.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_VNET_HDR,
                (&raw const on).cast(),
                libc::socklen_t::try_from(size_of_val(&on)).expect("four bytes"),
            )
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        Self(wire)
    }

    /// Sends a frame whose transport header begins at `start`, and whose checksum is `offset` bytes behind
    /// that and holds the sum of the pseudo-header.
    pub fn send(&self, lab: &Lab, frame: &[u8], start: usize, offset: usize) {
        let half = |number: usize| {
            u16::try_from(number)
                .expect("within the frame")
                .to_ne_bytes()
        };
        // `struct virtio_net_hdr`: flags, kind and lengths of segments, then what is to be summed.
        let mut whole = vec![VIRTIO_NET_HDR_F_NEEDS_CSUM, 0, 0, 0, 0, 0];
        whole.extend(half(start));
        whole.extend(half(offset));
        whole.extend(frame);
        self.0.send(lab, &[whole]);
    }
}

/// Of `linux/if_packet.h` and `linux/virtio_net.h`.
const PACKET_VNET_HDR: libc::c_int = 15;
const VIRTIO_NET_HDR_F_NEEDS_CSUM: u8 = 1;

/// Whether an error of sending says that the wire holds all that it can.
pub(crate) fn is_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// An interface of the calling thread's namespace, as a packet socket sends to it or is bound to it; with
/// the ethertype of what such a socket receives.
pub(crate) fn address(interface: &str, ethertype: u16) -> io::Result<SockAddr> {
    let name = CString::new(interface)?;
    // SAFETY: the name ends in a NUL.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    let family = libc::sa_family_t::try_from(libc::AF_PACKET).expect("a family is a small number");
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("20 bytes");
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of the forms that a socket address takes.
    let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    address.sll_family = family;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the storage holds an address of this length, filled in above.
    Ok(unsafe { SockAddr::new(storage, length) })
}
