//! The clients' end of a lab's link: sends whole frames, including those that an IP stack would refuse to send.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use netlab::{netns, packet::Packet, pieces::PieceSocket, socket::PacketSocket};

use crate::lab::{CLIENT_INTERFACE, CLIENT_MAC, HOST_MAC, Lab};

/// How long other senders may keep the link full.
const PATIENCE: Duration = Duration::from_mins(1);

/// Of `linux/virtio_net.h`.
const VIRTIO_NET_HDR_F_NEEDS_CSUM: u8 = 1;

/// Sends Ethernet frames through the clients' interface, in this order.
pub fn send(lab: &Lab, frames: &[Vec<u8>]) {
    Wire::open(lab).send(lab, frames);
}

/// A socket on the clients' interface, for tests that send often: closing one makes the kernel wait for all CPUs.
#[derive(Debug)]
pub struct Wire(Socket);

#[derive(Debug)]
enum Socket {
    Whole(PacketSocket),
    InPieces(PieceSocket),
}

impl Wire {
    pub fn open(lab: &Lab) -> Self {
        Self(Socket::Whole(opened(sender(lab))))
    }

    /// As [`Wire::open`], with nothing but the Ethernet header in the first piece of a frame's memory.
    pub fn open_in_pieces(lab: &Lab) -> Self {
        let open = || PieceSocket::sending(netns::index_of(CLIENT_INTERFACE)?);
        Self(Socket::InPieces(opened(lab.client.run(open))))
    }

    /// Sends Ethernet frames in this order.
    pub fn send(&self, lab: &Lab, frames: &[Vec<u8>]) {
        // In the namespace, whose threads use one CPU.
        lab.client.run(|| {
            for frame in frames {
                self.put(frame);
            }
        });
    }

    /// Sends a frame, and waits while the link is full.
    fn put(&self, frame: &[u8]) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let sent = match &self.0 {
                Socket::Whole(socket) => socket.send(frame),
                Socket::InPieces(socket) => socket.send(frame),
            };
            if sent.unwrap_or_else(|error| panic!("cannot send a raw frame: {error}")) {
                return;
            }
            thread::sleep(Duration::from_micros(100));
        }
        panic!("there was no room for a raw frame within {PATIENCE:?}");
    }
}

/// As [`Wire`], for packets with an offloaded transport checksum, as the kernel sends those of sockets.
#[derive(Debug)]
pub struct OffloadedWire(Wire);

impl OffloadedWire {
    pub fn open(lab: &Lab) -> Self {
        let socket = opened(sender(lab));
        let set = socket.set_offload_header();
        set.unwrap_or_else(|error| panic!("cannot leave checksums to hardware: {error}"));
        Self(Wire(Socket::Whole(socket)))
    }

    /// Sends a frame whose transport header begins at `start`. The checksum is at `offset` in that header, and contains
    /// the sum of the pseudo-header.
    pub fn send(&self, lab: &Lab, frame: &[u8], start: usize, offset: usize) {
        let half = |number: usize| {
            u16::try_from(number)
                .expect("within the frame")
                .to_ne_bytes()
        };
        // `struct virtio_net_hdr`: flags, kind and lengths of segments, then the range of the checksum.
        let mut whole = vec![VIRTIO_NET_HDR_F_NEEDS_CSUM, 0, 0, 0, 0, 0];
        whole.extend(half(start));
        whole.extend(half(offset));
        whole.extend(frame);
        self.0.send(lab, &[whole]);
    }
}

fn opened<S>(socket: io::Result<S>) -> S {
    socket.unwrap_or_else(|error| panic!("cannot send raw frames: {error}"))
}

/// Opens a socket that sends through the clients' interface.
pub(crate) fn sender(lab: &Lab) -> io::Result<PacketSocket> {
    let open = || PacketSocket::sending(netns::index_of(CLIENT_INTERFACE)?);
    lab.client.run(open)
}

/// Returns the frame in which a client sends a packet to the host.
pub fn frame(packet: &Packet) -> Vec<u8> {
    packet.frame(CLIENT_MAC, HOST_MAC)
}
