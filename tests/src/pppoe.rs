//! PPP over Ethernet (RFC 2516) without its daemons: both ends are told what discovery and LCP would have agreed on.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd},
};

use netlab::Netns;

use crate::network::ip;

/// Of `linux/if_pppox.h`.
const PX_PROTO_OE: u32 = 0;
/// Of `linux/ppp-ioctl.h`.
const PPPIOCGCHAN: libc::Ioctl = 0x8004_7437_u32 as libc::Ioctl;
const PPPIOCATTCHAN: libc::Ioctl = 0x4004_7438;
const PPPIOCCONNECT: libc::Ioctl = 0x4004_743a;
const PPPIOCNEWUNIT: libc::Ioctl = 0xc004_743e_u32 as libc::Ioctl;

/// The number of the session, at both ends.
const SESSION: u16 = 7;
/// Bytes of an Ethernet frame that are left for what PPP carries.
const MTU: u16 = 1492;

/// `struct sockaddr_pppox`, of `PPPoE`.
#[repr(C, packed)]
struct Address {
    family: u16,
    protocol: u32,
    session: u16,
    remote: [u8; 6],
    device: [u8; 16],
}

/// One end of a session, as a network device. Dropping it removes the device.
#[derive(Debug)]
pub struct Pppoe {
    _unit: File,
    _channel: File,
    _session: OwnedFd,
}

impl Pppoe {
    /// Makes the device `name` over an Ethernet interface of the namespace. `peer`: the MAC address of the other end. Fails where
    /// the kernel has no `PPPoE`.
    pub fn make(netns: &Netns, name: &str, below: &str, peer: [u8; 6]) -> io::Result<Self> {
        let (end, number) = netns.run(|| {
            let session = session()?;
            Ok::<_, io::Error>(Self::join(session, below, peer).expect("a session can be made"))
        })?;
        ip(
            netns,
            &format!("link set ppp{number} name {name}\nlink set {name} mtu {MTU}"),
        );
        Ok(end)
    }

    /// Returns the end, and the number in the name of its device, `ppp…`.
    fn join(session: OwnedFd, below: &str, peer: [u8; 6]) -> io::Result<(Self, i32)> {
        let mut address = Address {
            family: libc::AF_PPPOX.try_into().expect("a small number"),
            protocol: PX_PROTO_OE,
            session: SESSION.to_be(),
            remote: peer,
            device: [0; 16],
        };
        let bytes = below.as_bytes();
        address.device[..bytes.len()].copy_from_slice(bytes);
        let length = size_of_val(&address).try_into().expect("a small number");
        // SAFETY: the address is as long as is said, and of the form of its family.
        let joined =
            unsafe { libc::connect(session.as_raw_fd(), (&raw const address).cast(), length) };
        if joined != 0 {
            return Err(io::Error::last_os_error());
        }
        let (channel, unit) = (open()?, open()?);
        let channel_number = asked(&session, PPPIOCGCHAN, 0)?;
        asked(&channel, PPPIOCATTCHAN, channel_number)?;
        // -1: any that is free.
        let unit_number = asked(&unit, PPPIOCNEWUNIT, -1)?;
        asked(&channel, PPPIOCCONNECT, unit_number)?;
        let end = Self {
            _unit: unit,
            _channel: channel,
            _session: session,
        };
        Ok((end, unit_number))
    }
}

fn session() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let session =
        unsafe { libc::socket(libc::AF_PPPOX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if session < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which the call above has made and nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(session) })
}

fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/ppp")
}

/// Makes a request that reads a number, writes one, or both, and returns the number.
fn asked(of: &impl AsRawFd, request: libc::Ioctl, number: i32) -> io::Result<i32> {
    let mut number = number;
    // SAFETY: each of the requests above reads or writes an `int`.
    if unsafe { libc::ioctl(of.as_raw_fd(), request, &raw mut number) } == 0 {
        Ok(number)
    } else {
        Err(io::Error::last_os_error())
    }
}
