//! What a closed port of this host answers, for gates with `deny = "reject"`: Linux's own RST to TCP
//! (`tcp_v4_send_reset`, `tcp_v6_send_reset`), its ICMP port unreachable to UDP (`__icmp_send`,
//! `icmp6_send`), or nothing.
//!
//! Where the host's answer can't be told from the packet, there is none: to IPv4 options, IPv6
//! extension headers and fragments, which the host would unwrap first.
//!
//! Numbers that come from the packet and go back into it are kept as they lie there, in network
//! order; Internet checksums come out right in either.

mod arrival;
mod limit;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use crate::{
    Address,
    address::{V4, V6},
    frame::{Frame, Framing, TCP},
    table::{Habits, Link, labels},
};

pub use arrival::Envelope;
pub use limit::{Pool, first};

/// Bytes of a TCP header without options, of an ICMP header, and of a VLAN tag.
const TCP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
const TAG: usize = 4;

/// A frame that can be rewritten in place.
pub trait FrameMut: Frame {
    /// Stores a value at `at`; `None` where the frame ends before.
    fn put<T: Pod>(&mut self, at: usize, value: T) -> Option<()>;
}

/// A frame whose bytes can be summed.
pub trait Summed: Frame {
    /// The sum of `length` bytes from `at` as [`fold`] takes it; `None` where the frame ends before,
    /// or for more than [`MOST_SUMMED`].
    fn sum(&self, at: usize, length: usize) -> Option<u64>;
}

/// The longest packet whose checksum is looked at, bytes: a jumbo frame's.
pub const MOST_SUMMED: usize = 160 * 64;

/// What the answer depends on beside the packet.
pub trait Host {
    /// How this host answers at all; `None`: it doesn't.
    fn habits(&self) -> Option<&Habits>;

    /// The interface that the packet came by, or one of its VLANs, outer first and 0 for none.
    fn link(&self, vlans: [u16; 2]) -> Option<&Link>;

    /// [`crate::table::standing`] of an address; 0: a stranger's.
    fn standing<A: Address>(&self, address: A) -> u32;
}

/// One family's part of it.
pub trait Answered: Address {
    /// Bytes of its header without options or extensions.
    const HEADER: usize;
    const ETHERTYPE: u16;
    const ICMP: u8;
    /// Type and code of its port unreachable (RFC 792, RFC 4443).
    const UNREACHABLE: [u8; 2];
    /// Longest packet of an ICMP error, bytes (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4).
    const MOST: usize;

    /// The sum of its 32-bit words.
    fn sum(self) -> u64;

    /// Can it be where a packet comes from, and an answer go to?
    fn is_one_host(self) -> bool;

    /// Reads its header at `at`, where it is a whole packet without options or extension headers.
    fn arrival<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Arrival<Self>>;

    /// Where an answer of this family is made.
    fn room(scratch: &mut Scratch) -> &mut Answer<Self>;

    /// Writes its header at `at`, and these words behind it.
    fn put_headers<F: FrameMut + ?Sized, const N: usize>(
        answer: &Answer<Self>,
        frame: &mut F,
        at: usize,
        behind: [u32; N],
    ) -> Option<()>
    where
        [u32; N]: Pod;
}

/// A packet's network header, as far as answers go by it.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<A> {
    pub source: A,
    pub destination: A,
    pub protocol: u8,
    /// Type of service, traffic class.
    pub traffic: u8,
    /// Flow label, as a number; 0 for IPv4.
    pub label: u32,
    /// Bytes behind the header.
    pub length: usize,
}

/// An answer, ready to be written over the packet that asked for it.
#[derive(Debug, Clone, Copy)]
pub struct Answer<A> {
    envelope: Envelope,
    source: A,
    destination: A,
    traffic: u8,
    hops: u8,
    label: u32,
    identification: u16,
    /// Bytes of the packet that an ICMP error quotes; 0: this is a RST.
    quoted: usize,
    reset: Reset,
}

/// Room for an answer in the making: too much for the kernel's stack.
#[derive(Debug, Clone, Copy)]
pub struct Scratch {
    pub envelope: Envelope,
    pub v4: Answer<V4>,
    pub v6: Answer<V6>,
}

/// What a RST says.
#[derive(Debug, Clone, Copy, Default)]
struct Reset {
    /// As they lie, swapped already.
    ports: u32,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
}

impl<A: Answered> Answer<A> {
    /// What a closed port would answer to the packet in this frame.
    #[inline(always)]
    pub fn to<H: Host, F: Summed + ?Sized>(
        frame: &F,
        host: &H,
        habits: &Habits,
        envelope: &Envelope,
    ) -> Option<Self> {
        let at = envelope.network();
        let arrival = A::arrival(frame, at)?;
        if arrival.length > frame.length().checked_sub(at + A::HEADER)?
            || host.standing(arrival.destination) != crate::table::standing::OWN
            || host.standing(arrival.source) != 0
            || !arrival.source.is_one_host()
        {
            return None;
        }
        let transport = at + A::HEADER;
        let tcp = arrival.protocol == TCP;
        let segment = if tcp {
            arrival::tcp(frame, transport, arrival.length, habits.strict != 0)?
        } else {
            arrival::udp(frame, transport, arrival.length)?
        };
        let unsummed = !tcp && segment.checksum == 0;
        if unsummed {
            // IPv6 has no datagrams without a checksum (RFC 8200, section 8.1).
            if A::FAMILY == 6 {
                return None;
            }
        } else {
            let pseudo = pseudo(
                arrival.source,
                arrival.destination,
                arrival.protocol,
                segment.length,
            );
            // A neighbour behind a virtual wire leaves the sum to hardware that there is none of.
            let partial = envelope.partial && segment.checksum == fold(pseudo);
            if !partial && fold(pseudo + frame.sum(transport, segment.length)?) != 0xffff {
                return None;
            }
        }
        let mut answer = Self {
            envelope: *envelope,
            source: arrival.destination,
            destination: arrival.source,
            traffic: arrival.traffic,
            hops: if A::FAMILY == 4 {
                habits.ttl
            } else {
                envelope.hop_limit
            },
            label: 0,
            identification: 0,
            quoted: 0,
            reset: segment.reset,
        };
        if tcp {
            // Of the congestion bits none comes back.
            answer.traffic &= !3;
            if habits.labels & labels::REFLECT != 0 {
                answer.label = arrival.label;
            }
        } else {
            // Linux's RT_TOS, and RFC 1812's precedence for errors; IPv6's have none.
            answer.traffic = if A::FAMILY == 4 {
                arrival.traffic & 0x1e | 0xc0
            } else {
                0
            };
            let room = A::MOST - A::HEADER - ICMP_HEADER;
            answer.quoted = (A::HEADER + segment.length).min(room);
        }
        if A::FAMILY == 6 && answer.label == 0 {
            answer.label = answer.own_label(habits);
        }
        Some(answer)
    }

    /// Is it an ICMP error, of which only so many may be sent?
    #[inline(always)]
    pub fn is_error(&self) -> bool {
        self.quoted != 0
    }

    /// Whom it goes to.
    #[inline(always)]
    pub fn destination(&self) -> A {
        self.destination
    }

    /// Sets the identification of an IPv4 packet that is an ICMP error.
    #[inline(always)]
    pub fn identify(&mut self, identification: u16) {
        self.identification = identification;
    }

    /// By how many bytes the frame has to begin later (negative: earlier) for the answer to fit.
    #[inline(always)]
    pub fn shift<L: Framing>(&self) -> isize {
        if self.quoted == 0 {
            return 0;
        }
        // What is quoted stays where it is.
        self.envelope.network().cast_signed()
            - (self.network::<L>() + A::HEADER + ICMP_HEADER).cast_signed()
    }

    /// Bytes of the answer's frame.
    #[inline(always)]
    pub fn length<L: Framing>(&self) -> usize {
        self.network::<L>() + self.packet()
    }

    /// Writes the answer into a frame that has been shifted and cut to its length.
    #[inline(always)]
    pub fn write<L: Framing, F: FrameMut + Summed + ?Sized>(&self, frame: &mut F) -> Option<()> {
        if L::HEADER != 0 {
            self.envelope.write(frame, A::ETHERTYPE)?;
        }
        let network = self.network::<L>();
        if self.quoted == 0 {
            let Reset {
                ports,
                sequence,
                acknowledgement,
                flags,
            } = self.reset;
            // Five words long, no window.
            let offset = u32::from_be_bytes([5 << 4, flags, 0, 0]).to_be();
            let words = [ports, sequence, acknowledgement, offset];
            let sum = pseudo(self.source, self.destination, TCP, TCP_HEADER) + total(&words);
            let [ports, sequence, acknowledgement, offset] = words;
            let segment = [
                ports,
                sequence,
                acknowledgement,
                offset,
                u32::from(!fold(sum)),
            ];
            A::put_headers(self, frame, network, segment)
        } else {
            let behind = ICMP_HEADER + self.quoted();
            let [kind, code] = A::UNREACHABLE;
            let first = u16::from_ne_bytes([kind, code]);
            let quoted = network + A::HEADER + ICMP_HEADER;
            let mut sum = u64::from(first) + frame.sum(quoted, self.quoted())?;
            if A::FAMILY == 6 {
                sum += pseudo(self.source, self.destination, A::ICMP, behind);
            }
            let message = [u32::from(first) | u32::from(!fold(sum)) << 16, 0];
            A::put_headers(self, frame, network, message)
        }
    }

    /// Bytes of the answer's packet.
    #[inline(always)]
    fn packet(&self) -> usize {
        if self.quoted == 0 {
            A::HEADER + TCP_HEADER
        } else {
            A::HEADER + ICMP_HEADER + self.quoted()
        }
    }

    /// Bounded for the verifier, which knows nothing of what was in memory; see [`Scratch`].
    #[inline(always)]
    fn quoted(&self) -> usize {
        self.quoted & 0x7ff
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        if self.quoted == 0 { TCP } else { A::ICMP }
    }

    /// Where the network header of the answer begins.
    #[inline(always)]
    fn network<L: Framing>(&self) -> usize {
        if L::HEADER == 0 {
            0
        } else {
            L::HEADER + TAG * self.envelope.kept()
        }
    }

    /// A label that is the same for every packet of a flow and tells nothing else, as Linux makes it
    /// (`ip6_make_flowlabel`, by a keyed hash over the same fields).
    #[inline(always)]
    fn own_label(&self, habits: &Habits) -> u32 {
        if habits.labels & labels::AUTO == 0 {
            return 0;
        }
        let ports = if self.quoted == 0 {
            self.reset.ports
        } else {
            0
        };
        let flow = u64::from(ports) << 8 | u64::from(self.protocol());
        let mut hash = habits.secret;
        for word in [self.source.fold(), self.destination.fold(), flow] {
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        let label = (hash >> 40) as u32 & 0xf_ffff;
        if habits.labels & labels::STATELESS != 0 {
            label | 0x8_0000
        } else {
            label
        }
    }
}

impl Answered for V4 {
    const HEADER: usize = 20;
    const ETHERTYPE: u16 = 0x0800;
    const ICMP: u8 = 1;
    const UNREACHABLE: [u8; 2] = [3, 3];
    const MOST: usize = 576;

    #[inline(always)]
    fn sum(self) -> u64 {
        self.padded().words().0
    }

    #[inline(always)]
    fn is_one_host(self) -> bool {
        let first = self.padded().words().0 as u8;
        // This network, loopback, groups; with the groups go the addresses reserved above them, of
        // which one is everyone.
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn arrival<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Arrival<Self>> {
        arrival::ipv4(frame, at)
    }

    #[inline(always)]
    fn room(scratch: &mut Scratch) -> &mut Answer<Self> {
        &mut scratch.v4
    }

    #[inline(always)]
    fn put_headers<F: FrameMut + ?Sized, const N: usize>(
        answer: &Answer<Self>,
        frame: &mut F,
        at: usize,
        behind: [u32; N],
    ) -> Option<()>
    where
        [u32; N]: Pod,
    {
        // A RST may not be cut in pieces, and needs no identification then.
        let fragments = if answer.quoted == 0 { 0x4000 } else { 0 };
        let start = 0x45 << 24 | u32::from(answer.traffic) << 16 | answer.packet() as u32;
        let mut words = [
            start.to_be(),
            (u32::from(answer.identification) << 16 | fragments).to_be(),
            (u32::from(answer.hops) << 24 | u32::from(answer.protocol()) << 16).to_be(),
            answer.source.sum() as u32,
            answer.destination.sum() as u32,
        ];
        words[2] |= u32::from(!fold(total(&words))) << 16;
        frame.put(at, Both(words, behind))
    }
}

impl Answered for V6 {
    const HEADER: usize = 40;
    const ETHERTYPE: u16 = 0x86dd;
    const ICMP: u8 = 58;
    const UNREACHABLE: [u8; 2] = [1, 4];
    const MOST: usize = 1280;

    #[inline(always)]
    fn sum(self) -> u64 {
        let (first, second) = self.words();
        halves(first) + halves(second)
    }

    #[inline(always)]
    fn is_one_host(self) -> bool {
        let (first, second) = self.words();
        // Groups; then nobody, loopback, and IPv4 addresses written as IPv6 ones.
        first as u8 != 0xff
            && (first != 0 || (second.to_be() > 1 && second.to_be() >> 32 != 0xffff))
    }

    #[inline(always)]
    fn arrival<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Arrival<Self>> {
        arrival::ipv6(frame, at)
    }

    #[inline(always)]
    fn room(scratch: &mut Scratch) -> &mut Answer<Self> {
        &mut scratch.v6
    }

    #[inline(always)]
    fn put_headers<F: FrameMut + ?Sized, const N: usize>(
        answer: &Answer<Self>,
        frame: &mut F,
        at: usize,
        behind: [u32; N],
    ) -> Option<()>
    where
        [u32; N]: Pod,
    {
        let start = 6 << 28 | u32::from(answer.traffic) << 20 | answer.label;
        let rest = ((answer.packet() - Self::HEADER) as u32) << 16
            | u32::from(answer.protocol()) << 8
            | u32::from(answer.hops);
        let header = Header6 {
            words: [start.to_be(), rest.to_be()],
            source: answer.source,
            destination: answer.destination,
        };
        frame.put(at, Both(header, behind))
    }
}

/// An IPv6 header (RFC 8200).
#[repr(C)]
#[derive(Clone, Copy, Zeroable, Pod)]
struct Header6 {
    words: [u32; 2],
    source: V6,
    destination: V6,
}

/// One behind the other.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Both<A, B>(A, B);

// SAFETY: two such types without padding between them.
unsafe impl<A: Zeroable, B: Zeroable> Zeroable for Both<A, B> {}
// SAFETY: as above.
unsafe impl<A: Pod, B: Pod> Pod for Both<A, B> {}

/// The sum of what TCP, UDP and `ICMPv6` cover beside their own bytes (RFC 9293, RFC 8200).
#[inline(always)]
fn pseudo<A: Answered>(source: A, destination: A, protocol: u8, length: usize) -> u64 {
    let rest = u16::from(protocol).to_be();
    source.sum() + destination.sum() + u64::from(rest) + u64::from((length as u16).to_be())
}

#[inline(always)]
fn total<const N: usize>(words: &[u32; N]) -> u64 {
    let mut sum = 0;
    for word in words {
        sum += u64::from(*word);
    }
    sum
}

#[inline(always)]
fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

/// Folds a sum of 16- and 32-bit words to 16 bits (RFC 1071). Over whole data with its checksum:
/// 0xffff.
#[inline(always)]
pub fn fold(sum: u64) -> u16 {
    let sum = halves(halves(sum));
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

impl FrameMut for [u8] {
    #[inline]
    fn put<T: Pod>(&mut self, at: usize, value: T) -> Option<()> {
        let room = self.get_mut(at..at + size_of::<T>())?;
        room.copy_from_slice(bytemuck::bytes_of(&value));
        Some(())
    }
}

impl Summed for [u8] {
    #[inline]
    fn sum(&self, at: usize, length: usize) -> Option<u64> {
        let bytes = self.get(at..at + length)?;
        let words = bytes.chunks(2).map(|pair| {
            let second = pair.get(1).copied().unwrap_or(0);
            u64::from(u16::from_ne_bytes([pair[0], second]))
        });
        (length <= MOST_SUMMED).then(|| words.sum())
    }
}
