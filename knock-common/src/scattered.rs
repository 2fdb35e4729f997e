//! Judging a frame that lies in several buffers. It is first read, into memory of its own, and then judged: both in one
//! function, as in [`judge`](fn@crate::judge), would take too much of the kernel's stack.

use crate::{
    Address, Env,
    address::{V4, V6},
    frame::{
        Frame, Parsed, PortPair, Segment, TCP, ip,
        link::{Framing, NetworkLayer},
    },
    judge,
    verdict::{Reason, Verdict},
};

/// The headers of a packet are within this many bytes from the beginning of its frame: Ethernet, tags, IPv6
/// and the longest extension headers that are read.
pub const MOST_HEADERS: usize = 20 * 1024;

/// Memory for one frame.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Its first bytes, as far as they have been read.
    pub bytes: [u8; MOST_HEADERS],
    pub v4: Read<V4>,
    pub v6: Read<V6>,
}

/// What the verdict on a packet depends on. Not an enum with fields: unused bytes of a variant would be
/// copied too, and the verifier refuses to store uninitialised bytes.
#[derive(Debug, Clone, Copy)]
pub struct Read<A> {
    found: Found,
    /// Why it passes, if it was found to.
    reason: Reason,
    /// Zeros if not known.
    segment: Segment<A>,
    /// Of TCP.
    flags: u8,
    sequence: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Segment,
    Pass,
    Malformed,
    /// With source and destination.
    MalformedBetween,
}

/// The results of [`read`].
pub mod family {
    pub const NOT_IP: u32 = 0;
    pub const MALFORMED: u32 = 1;
    /// [`Room::v4`](super::Room::v4) and [`Room::v6`](super::Room::v6) say more.
    pub const V4: u32 = 4;
    pub const V6: u32 = 6;
}

/// Reads a frame of a link on which packets begin with `L`; returns one of [`family`].
#[inline(always)]
pub fn read<L: Framing, F: Frame + ?Sized>(frame: &F, v4: &mut Read<V4>, v6: &mut Read<V6>) -> u32 {
    match L::network(frame) {
        NetworkLayer::Ipv4 { at } => {
            *v4 = Read::of(frame, ip::ipv4(frame, at));
            family::V4
        }
        NetworkLayer::Ipv6 { at } => {
            *v6 = Read::of(frame, ip::ipv6(frame, at));
            family::V6
        }
        NetworkLayer::Other => family::NOT_IP,
        NetworkLayer::Malformed => family::MALFORMED,
    }
}

impl<A: Address> Read<A> {
    #[inline(always)]
    fn of<F: Frame + ?Sized>(frame: &F, parsed: Parsed<A>) -> Self {
        let mut read = Self {
            found: Found::Malformed,
            reason: Reason::Malformed,
            segment: Segment {
                source: A::zeroed(),
                destination: A::zeroed(),
                ports: PortPair::NONE,
                protocol: 0,
                transport: 0,
            },
            flags: 0,
            sequence: 0,
        };
        match parsed {
            Parsed::Segment(segment) => {
                read.found = Found::Segment;
                read.segment = segment;
                if segment.protocol == TCP {
                    (read.flags, read.sequence) = ip::tcp(frame, &segment);
                }
            }
            Parsed::Pass(reason) => {
                read.found = Found::Pass;
                read.reason = reason;
            }
            Parsed::Malformed(Some((source, destination))) => {
                read.found = Found::MalformedBetween;
                read.segment.source = source;
                read.segment.destination = destination;
            }
            Parsed::Malformed(None) => {}
        }
        read
    }

    /// Returns its ports and where they are; zeros if they are not known.
    #[inline(always)]
    pub const fn segment(&self) -> &Segment<A> {
        &self.segment
    }

    /// Judges the packet of this frame.
    #[inline(always)]
    pub fn judge<E: Env, F: Frame + ?Sized>(&self, env: &E, frame: &F) -> Verdict {
        let Self {
            found,
            reason,
            segment,
            flags,
            sequence,
        } = self;
        match found {
            Found::Segment => judge::segment(env, frame, segment, || (*flags, *sequence)),
            Found::Pass => Verdict::of(*reason),
            Found::Malformed => judge::malformed::<E, A>(env, None),
            Found::MalformedBetween => {
                judge::malformed(env, Some((segment.source, segment.destination)))
            }
        }
    }
}
