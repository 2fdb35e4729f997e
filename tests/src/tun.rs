//! A tun device, which has no link header and whose other end is the test: it writes the IP packets that arrive and
//! reads those that leave, as a VPN's process does. A [path](crate::path) uses tap devices, which have one.

use std::{
    ffi::c_char,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    mem,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt as _},
    thread,
    time::{Duration, Instant},
};

use netlab::Netns;

use crate::network::{add_address, ip, wait_for_addresses};

/// `TUNSETLINK` of `linux/if_tun.h`, which `libc` lacks.
const TUNSETLINK: libc::Ioctl = 0x4004_54cd;

/// How long a packet may take to arrive on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest packet, with the `struct tun_pi` of four bytes before it.
const LONGEST: usize = 4 + (1 << 16);

/// A tun device. Dropping it removes the device.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Makes a device with these addresses in the namespace, and brings it up.
    pub fn create(netns: &Netns, name: &str, addresses: &[&str]) -> Self {
        let tun = Self::create_down(netns, name);
        for address in addresses {
            add_address(netns, name, address);
        }
        ip(netns, &format!("link set {name} up"));
        wait_for_addresses(netns, name);
        tun
    }

    /// Makes a device that is down and has no addresses.
    pub fn create_down(netns: &Netns, name: &str) -> Self {
        // With the ethertype of each packet, so that a test sees which protocol the host assumes.
        let file = netns.run(|| device(name, libc::IFF_TUN));
        let file = file.unwrap_or_else(|error| panic!("cannot make the device {name}: {error}"));
        Self { file }
    }

    /// Sets the link type (`ARPHRD_…`) of the device, which must be down.
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

    /// Delivers packets to the device, in this order.
    pub fn send<'p>(&self, packets: impl IntoIterator<Item = &'p [u8]>) {
        for packet in packets {
            let kind = ethertype(packet).to_be_bytes();
            let bytes = [&[0, 0], &kind[..], packet].concat();
            let sent = (&self.file).write(&bytes);
            assert_eq!(sent.expect("the device is up"), bytes.len());
        }
    }

    /// Returns packets that have left through the device, up to but without the first for which `last` holds. Panics if
    /// none leaves, or if a packet has the wrong ethertype.
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
                    thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("cannot read packets: {error}"),
            }
        }
        panic!("the packet that was waited for did not come; before it came {seen:02x?}");
    }
}

/// Makes a device in the calling thread's namespace, with flags of `TUNSETIFF`. Closing the file removes it. Reading
/// does not block.
pub(crate) fn device(name: &str, flags: libc::c_int) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays the NUL that ends the name.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(flags).expect("flags in the lower bits");
    // SAFETY: the request is read and written by the kernel, and lives through the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } == 0 {
        Ok(file)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn ethertype(packet: &[u8]) -> u16 {
    match packet[0] >> 4 {
        4 => 0x0800,
        6 => 0x86dd,
        _ => 0,
    }
}
