//! Sets up `WireGuard` devices over generic netlink (`linux/wireguard.h`), since not every machine has `wg`.

use std::{io, net::IpAddr, os::fd::AsRawFd};

use netlab::Netns;
use socket2::{Domain, Socket, Type};

/// The byte of which each end's secret consists.
pub const HOST: u8 = 1;
pub const CLIENT: u8 = 2;
/// The port on which each end listens.
pub const PORT: u16 = 51_820;

/// Of `linux/netlink.h` and `linux/genetlink.h`.
const NETLINK_GENERIC: i32 = 16;
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const REQUEST_ACK: u16 = 1 | 4;
const NESTED: u16 = 1 << 15;
const HEADER: usize = 16 + 4;

/// Of `linux/wireguard.h`.
const SET_DEVICE: u8 = 1;
const DEVICE_NAME: u16 = 2;
const DEVICE_SECRET: u16 = 3;
const DEVICE_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;
const PEER_KEY: u16 = 1;
const PEER_ENDPOINT: u16 = 4;
const PEER_NETWORKS: u16 = 9;
const NETWORK_FAMILY: u16 = 1;
const NETWORK_ADDRESS: u16 = 2;
const NETWORK_LENGTH: u16 = 3;

/// Returns the public key of a secret of 32 equal bytes (X25519, RFC 7748).
const fn public(secret: u8) -> [u8; 32] {
    match secret {
        HOST => [
            0xa4, 0xe0, 0x92, 0x92, 0xb6, 0x51, 0xc2, 0x78, 0xb9, 0x77, 0x2c, 0x56, 0x9f, 0x5f,
            0xa9, 0xbb, 0x13, 0xd9, 0x06, 0xb4, 0x6a, 0xb6, 0x8c, 0x9d, 0xf9, 0xdc, 0x2b, 0x44,
            0x09, 0xf8, 0xa2, 0x09,
        ],
        _ => [
            0xce, 0x8d, 0x3a, 0xd1, 0xcc, 0xb6, 0x33, 0xec, 0x7b, 0x70, 0xc1, 0x78, 0x14, 0xa5,
            0xc7, 0x6e, 0xcd, 0x02, 0x96, 0x85, 0x05, 0x0d, 0x34, 0x47, 0x45, 0xba, 0x05, 0x87,
            0x0e, 0x58, 0x7d, 0x59,
        ],
    }
}

/// Sets the secret of a device, and its only peer: public key, IPv4 endpoint, all addresses allowed.
pub fn set(netns: &Netns, device: &str, [own, other]: [u8; 2], endpoint: IpAddr) {
    let IpAddr::V4(endpoint) = endpoint else {
        panic!("{endpoint} is not of IPv4");
    };
    // `struct sockaddr_in`.
    let family = u16::try_from(libc::AF_INET)
        .expect("a small number")
        .to_ne_bytes();
    let endpoint = [
        &family,
        &PORT.to_be_bytes(),
        &endpoint.octets()[..],
        &[0; 8],
    ]
    .concat();
    let everything = [(libc::AF_INET, 4), (libc::AF_INET6, 16)].map(|(family, length)| {
        let family = u16::try_from(family).expect("a small number").to_ne_bytes();
        let network = [
            attribute(NETWORK_FAMILY, &family),
            attribute(NETWORK_ADDRESS, &vec![0; length]),
            attribute(NETWORK_LENGTH, &[0]),
        ];
        attribute(NESTED, &network.concat())
    });
    let peer = [
        attribute(PEER_KEY, &public(other)),
        attribute(PEER_ENDPOINT, &endpoint),
        attribute(PEER_NETWORKS | NESTED, &everything.concat()),
    ];
    let name = [device.as_bytes(), &[0]].concat();
    let settings = [
        attribute(DEVICE_NAME, &name),
        attribute(DEVICE_SECRET, &[own; 32]),
        attribute(DEVICE_PORT, &PORT.to_ne_bytes()),
        attribute(DEVICE_PEERS | NESTED, &attribute(NESTED, &peer.concat())),
    ];
    let done = netns.run(|| {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW,
            Some(NETLINK_GENERIC.into()),
        )?;
        let asked = ask(
            &socket,
            CONTROLLER,
            GET_FAMILY,
            &attribute(FAMILY_NAME, b"wireguard\0"),
        )?;
        let family = find(&asked[HEADER..], FAMILY_ID).expect("a family has a number");
        let family = u16::from_ne_bytes([family[0], family[1]]);
        ask(&socket, family, SET_DEVICE, &settings.concat())
    });
    done.unwrap_or_else(|error| panic!("cannot set up {device}: {error}"));
}

/// Sends a request, and returns the first message of the reply.
fn ask(socket: &Socket, family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    /// `NLMSG_ERROR`, which also acknowledges success.
    const ERROR: u16 = 2;
    let length = u32::try_from(HEADER + attributes.len()).expect("short");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend(REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    socket.send(&message)?;
    let mut reply = vec![0; 1 << 14];
    // SAFETY: the kernel writes at most so many bytes to the buffer.
    let read = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            reply.as_mut_ptr().cast(),
            reply.len(),
            0,
        )
    };
    let Ok(read) = usize::try_from(read) else {
        return Err(io::Error::last_os_error());
    };
    reply.truncate(read);
    let kind = u16::from_ne_bytes([reply[4], reply[5]]);
    let code = i32::from_ne_bytes([reply[16], reply[17], reply[18], reply[19]]);
    if kind == ERROR && code != 0 {
        return Err(io::Error::from_raw_os_error(-code));
    }
    if kind != ERROR {
        // The acknowledgement that follows.
        let mut rest = [0_u8; 64];
        // SAFETY: as above.
        unsafe { libc::recv(socket.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len(), 0) };
    }
    Ok(reply)
}

/// A length, a kind and a value, padded to whole words.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("short");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [low, high, first, second, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([first, second]) == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}
