//! The clients' end of a lab's link: frames put on it byte by byte, past everything that an IP stack would refuse to
//! send.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use netlab::{netns, packet::Packet, socket::PacketSocket};

use crate::lab::{CLIENT_INTERFACE, CLIENT_MAC, GATE_MAC, Lab};

/// How long others may keep the link full.
const PATIENCE: Duration = Duration::from_mins(1);

/// Of `linux/virtio_net.h`.
const VIRTIO_NET_HDR_F_NEEDS_CSUM: u8 = 1;

/// Sends whole Ethernet frames out of the clients' interface, in this order.
pub fn send(lab: &Lab, frames: &[Vec<u8>]) {
    Wire::open(lab).send(lab, frames);
}

/// A socket on the clients' interface, for tests that send often: closing it makes the kernel wait for all CPUs.
#[derive(Debug)]
pub struct Wire(PacketSocket);

impl Wire {
    pub fn open(lab: &Lab) -> Self {
        Self(sender(lab).unwrap_or_else(|error| panic!("cannot send raw frames: {error}")))
    }

    /// Sends whole Ethernet frames in this order.
    pub fn send(&self, lab: &Lab, frames: &[Vec<u8>]) {
        // In the namespace, whose threads keep to one CPU.
        lab.client.run(|| {
            for frame in frames {
                self.put(frame);
            }
        });
    }

    /// Waits where others have filled the link.
    fn put(&self, frame: &[u8]) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let sent = self.0.send(frame);
            if sent.unwrap_or_else(|error| panic!("cannot send a raw frame: {error}")) {
                return;
            }
            thread::sleep(Duration::from_micros(100));
        }
        panic!("there was no room for a raw frame within {PATIENCE:?}");
    }
}

/// As [`Wire`], for packets whose transport checksum is left to hardware, as the kernel leaves a program's socket's.
#[derive(Debug)]
pub struct OffloadedWire(Wire);

impl OffloadedWire {
    pub fn open(lab: &Lab) -> Self {
        let wire = Wire::open(lab);
        let set = wire.0.set_offload_header();
        set.unwrap_or_else(|error| panic!("cannot leave checksums to hardware: {error}"));
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

/// A socket that sends out of the clients' interface.
pub(crate) fn sender(lab: &Lab) -> io::Result<PacketSocket> {
    let open = || PacketSocket::sending(netns::index_of(CLIENT_INTERFACE)?);
    lab.client.run(open)
}

/// Returns the frame in which a client sends a packet to the host.
pub fn frame(packet: &Packet) -> Vec<u8> {
    packet.frame(CLIENT_MAC, GATE_MAC)
}
