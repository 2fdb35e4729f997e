//! Frames put on the wire byte by byte, past everything that an IP stack would refuse to send.

use std::{ffi::CString, io};

use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use crate::lab::{CLIENT_INTERFACE, Lab};

/// Sends whole Ethernet frames out of the clients' interface, in this order.
pub fn send(lab: &Lab, frames: &[Vec<u8>]) {
    lab.client
        .run(|| {
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            let address = destination(CLIENT_INTERFACE)?;
            for frame in frames {
                socket.send_to(frame, &address)?;
            }
            io::Result::Ok(())
        })
        .unwrap_or_else(|error| panic!("can't send a raw frame: {error}"));
}

fn destination(interface: &str) -> io::Result<SockAddr> {
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
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the storage holds an address of this length, filled in above.
    Ok(unsafe { SockAddr::new(storage, length) })
}
