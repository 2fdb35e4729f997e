//! A device without a link header, whose other end is the test: it writes the IP packets that arrive there
//! and reads those that leave, as a VPN's process does.

use std::{
    ffi::c_char,
    fs::File,
    io::{self, Read, Write},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use crate::netns::{Netns, ip};

/// Of `linux/if_tun.h`.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETLINK: libc::Ioctl = 0x4004_54cd;
const IFF_TUN: libc::c_short = 1;

/// What is waited for arrives within this time, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest packet, with the four bytes before it (`struct tun_pi`).
const LONGEST: usize = 4 + (1 << 16);

/// A device that goes when this value goes.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Makes a device with these addresses in the namespace, and brings it up.
    pub fn create(netns: &Netns, name: &str, addresses: &[&str]) -> Self {
        let tun = Self::create_down(netns, name);
        for address in addresses {
            let mut arguments = vec!["-n", netns.name(), "address", "add", address, "dev", name];
            if address.contains(':') {
                arguments.push("nodad");
            }
            ip(&arguments);
        }
        ip(&["-n", netns.name(), "link", "set", name, "up"]);
        tun
    }

    /// Makes a device without addresses that is down.
    pub fn create_down(netns: &Netns, name: &str) -> Self {
        let file = netns.run(|| {
            let file = File::options()
                .read(true)
                .write(true)
                .open("/dev/net/tun")?;
            // SAFETY: ifreq is plain data, for which all zeroes is a value.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
                *to = c_char::from_ne_bytes([from]);
            }
            // Each packet with its EtherType, so that what the host believes of it is seen.
            request.ifr_ifru.ifru_flags = IFF_TUN;
            // SAFETY: the request is of the form that the command reads, alive for the call.
            if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) } != 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: takes no pointers.
            unsafe {
                let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
                libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK);
            }
            Ok(file)
        });
        let file = file.unwrap_or_else(|error| panic!("can't make a tun device: {error}"));
        Self { file }
    }

    /// Has the device, which must be down, say that it is of this link type (`ARPHRD_…`).
    pub fn pretend(&self, link_type: u32) {
        // SAFETY: the command takes a number, no pointer.
        let set = unsafe {
            libc::ioctl(
                self.file.as_raw_fd(),
                TUNSETLINK,
                libc::c_ulong::from(link_type),
            )
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }

    /// Has these packets arrive at the device, in this order.
    pub fn send<'p>(&self, packets: impl IntoIterator<Item = &'p [u8]>) {
        for packet in packets {
            let kind = ethertype(packet).to_be_bytes();
            let bytes = [&[0, 0], &kind[..], packet].concat();
            let sent = (&self.file).write(&bytes);
            assert_eq!(sent.expect("the device is up"), bytes.len());
        }
    }

    /// Packets that have left by the device, up to and without the first for which `last` holds. Panics where
    /// that does not come, and where one leaves as another protocol than it is.
    #[track_caller]
    pub fn until(&self, last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let begun = Instant::now();
        let mut buffer = vec![0; LONGEST];
        let mut seen = Vec::new();
        while begun.elapsed() < PATIENCE {
            match (&self.file).read(&mut buffer) {
                Ok(length) => {
                    let (head, packet) = buffer[..length].split_at(4);
                    let kind = u16::from_be_bytes([head[2], head[3]]);
                    assert_eq!(
                        kind,
                        ethertype(packet),
                        "of a packet that left: {packet:02x?}"
                    );
                    if last(packet) {
                        return seen;
                    }
                    seen.push(packet.to_vec());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("can't read packets: {error}"),
            }
        }
        panic!("the packet that was waited for did not come; before it came {seen:02x?}");
    }
}

fn ethertype(packet: &[u8]) -> u16 {
    match packet[0] >> 4 {
        4 => 0x0800,
        6 => 0x86dd,
        _ => 0,
    }
}
