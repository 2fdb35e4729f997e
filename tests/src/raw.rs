//! Frames put on the wire byte by byte, past everything that an IP stack would refuse to send.

use std::{ffi::CString, io, thread, time::Duration};

use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use crate::lab::{CLIENT_INTERFACE, Lab};

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
        for _ in 0..10_000 {
            match self.socket.send_to(frame, &self.interface) {
                Err(error) if is_full(&error) => thread::sleep(Duration::from_micros(100)),
                sent => {
                    sent.unwrap_or_else(|error| panic!("can't send a raw frame: {error}"));
                    return;
                }
            }
        }
        panic!("there was no room for a raw frame within a second");
    }
}

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
