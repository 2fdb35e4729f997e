//! Packets that are merged of several, as the kernel receives them (GRO) or another network namespace leaves them to be
//! split (GSO).

use crate::{
    frame::{Frame, Segment, TCP},
    verdict::Counter,
    wire::{TcpStart, UdpHeader},
};

/// What a packet is merged of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// How many packets; 0: not known. Of a packet that is not merged, 0 or 1.
    pub segments: u32,
    /// The most bytes that each has behind its headers; 0: it is not merged.
    pub size: u32,
}

impl Merged {
    /// Returns how many packets they are on the wire, and their bytes. `length`: of the merged one; `headers`: bytes that each
    /// of them begins with, 0 where that is not known.
    #[inline(always)]
    pub const fn count(self, length: u64, headers: u64) -> Counter {
        let packets = match (self.segments, self.size) {
            // One that a virtual machine has left to be split says how large the parts are, and not how many.
            (0, size) if size != 0 && headers != 0 && length > headers => {
                (length - headers).div_ceil(size as u64)
            }
            (0, _) => 1,
            (segments, _) => segments as u64,
        };
        Counter {
            packets,
            bytes: length + (packets - 1) * headers,
        }
    }
}

/// Returns the bytes in front of the payload of a packet; 0 where these are not known.
#[inline(always)]
pub fn headers<F: Frame + ?Sized, A>(frame: &F, segment: &Segment<A>) -> u64 {
    let transport = segment.transport;
    if transport == 0 {
        return 0;
    }
    let header = if segment.protocol == TCP {
        match frame.header::<TcpStart>(transport) {
            Some(header) => usize::from(header.offset >> 4) * 4,
            None => return 0,
        }
    } else {
        size_of::<UdpHeader>()
    };
    (transport + header) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{PortPair, UDP};

    #[test]
    fn a_packet_that_is_not_merged_counts_once() {
        for segments in [0, 1] {
            let merged = Merged { segments, size: 0 };
            let counted = Counter {
                packets: 1,
                bytes: 90,
            };
            assert_eq!(merged.count(90, 54), counted);
        }
    }

    #[test]
    fn each_merged_packet_has_its_headers() {
        // Three with 1448, 1448 and 100 bytes of payload behind 66 of headers.
        let merged = Merged {
            segments: 3,
            size: 1448,
        };
        let counted = Counter {
            packets: 3,
            bytes: 1514 + 1514 + 166,
        };
        assert_eq!(merged.count(66 + 2 * 1448 + 100, 66), counted);
    }

    #[test]
    fn packets_whose_number_is_not_stated_are_counted_by_their_size() {
        let merged = Merged {
            segments: 0,
            size: 1000,
        };
        let counted = |packets, bytes| Counter { packets, bytes };
        assert_eq!(merged.count(54 + 2001, 54), counted(3, 2001 + 3 * 54));
        assert_eq!(merged.count(54 + 1000, 54), counted(1, 1054));
        assert_eq!(merged.count(54, 54), counted(1, 54));
        assert_eq!(merged.count(3000, 0), counted(1, 3000));
    }

    #[test]
    fn headers_end_where_the_payload_begins() {
        let mut frame = [0_u8; 60];
        // Eight words.
        frame[20 + 12] = 8 << 4;
        let segment = |protocol, transport| Segment {
            source: (),
            destination: (),
            ports: PortPair::NONE,
            protocol,
            transport,
        };
        assert_eq!(headers(&frame[..], &segment(TCP, 20)), 52);
        assert_eq!(headers(&frame[..], &segment(UDP, 20)), 28);
        // Not known: the frame ends before, or it is no packet with ports.
        assert_eq!(headers(&frame[..30], &segment(TCP, 20)), 0);
        assert_eq!(headers(&frame[..], &segment(0, 0)), 0);
    }
}
