//! The reply that a closed port makes.

use super::{
    FrameMut, Host, ReplyFamily, ReplySettings, Summed, address_kind,
    checksum::{fold, pseudo, total},
    labels,
    request::{self, LinkHeader},
};
use crate::{
    address::{V4, V6},
    frame::{Framing, TCP},
};

/// Bytes of a TCP header without options, of an ICMP header, and of a VLAN tag.
pub(super) const TCP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
pub(super) const TAG: usize = 4;

/// An answer, ready to be written over the packet that asked for it.
#[derive(Debug, Clone, Copy)]
pub struct Reply<A> {
    pub(super) link_header: LinkHeader,
    pub(super) source: A,
    pub(super) destination: A,
    pub(super) traffic: u8,
    pub(super) hops: u8,
    pub(super) label: u32,
    pub(super) identification: u16,
    /// Bytes of the packet that an ICMP error quotes; 0: this is a RST.
    pub(super) quoted: usize,
    pub(super) reset: Reset,
}

/// Room for an answer in the making: too much for the kernel's stack.
#[derive(Debug, Clone, Copy)]
pub struct ReplyBuffer {
    pub link_header: LinkHeader,
    pub v4: Reply<V4>,
    pub v6: Reply<V6>,
}

/// What a RST says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reset {
    /// As they lie, swapped already.
    pub ports: u32,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
}

impl<A: ReplyFamily> Reply<A> {
    /// What a closed port would answer to the packet in this frame.
    #[inline(always)]
    pub fn to<H: Host, F: Summed + ?Sized>(
        frame: &F,
        host: &H,
        settings: &ReplySettings,
        link_header: &LinkHeader,
    ) -> Option<Self> {
        let at = link_header.network();
        let request = A::request(frame, at)?;
        if request.length > frame.length().checked_sub(at + A::HEADER)?
            || host.address_kind(request.destination) != address_kind::OWN
            || host.address_kind(request.source) != 0
            || !request.source.is_one_host()
        {
            return None;
        }
        let transport = at + A::HEADER;
        let tcp = request.protocol == TCP;
        let segment = if tcp {
            request::tcp(frame, transport, request.length, settings.strict != 0)?
        } else {
            request::udp(frame, transport, request.length)?
        };
        let unsummed = !tcp && segment.checksum == 0;
        if unsummed {
            // IPv6 has no datagrams without a checksum (RFC 8200, section 8.1).
            if A::FAMILY == 6 {
                return None;
            }
        } else {
            let pseudo = pseudo(
                request.source,
                request.destination,
                request.protocol,
                segment.length,
            );
            // A neighbour behind a virtual wire leaves the sum to hardware that there is none of.
            let partial = link_header.partial && segment.checksum == fold(pseudo);
            if !partial && fold(pseudo + frame.sum(transport, segment.length)?) != 0xffff {
                return None;
            }
        }
        let mut reply = Self {
            link_header: *link_header,
            source: request.destination,
            destination: request.source,
            traffic: request.traffic,
            hops: if A::FAMILY == 4 {
                settings.ttl
            } else {
                link_header.hop_limit
            },
            label: 0,
            identification: 0,
            quoted: 0,
            reset: segment.reset,
        };
        if tcp {
            // Of the congestion bits none comes back.
            reply.traffic &= !3;
            if settings.labels & labels::REFLECT != 0 {
                reply.label = request.label;
            }
        } else {
            // Linux's RT_TOS, and RFC 1812's precedence for errors; IPv6's have none.
            reply.traffic = if A::FAMILY == 4 {
                request.traffic & 0x1e | 0xc0
            } else {
                0
            };
            let room = A::MOST - A::HEADER - ICMP_HEADER;
            reply.quoted = (A::HEADER + segment.length).min(room);
        }
        if A::FAMILY == 6 && reply.label == 0 {
            reply.label = reply.own_label(settings);
        }
        Some(reply)
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
        self.link_header.network().cast_signed()
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
            self.link_header.write(frame, A::ETHERTYPE)?;
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
    pub(super) fn packet(&self) -> usize {
        if self.quoted == 0 {
            A::HEADER + TCP_HEADER
        } else {
            A::HEADER + ICMP_HEADER + self.quoted()
        }
    }

    /// Bounded for the verifier, which knows nothing of what was in memory; see [`ReplyBuffer`].
    #[inline(always)]
    fn quoted(&self) -> usize {
        self.quoted & 0x7ff
    }

    #[inline(always)]
    pub(super) fn protocol(&self) -> u8 {
        if self.quoted == 0 { TCP } else { A::ICMP }
    }

    /// Where the network header of the answer begins.
    #[inline(always)]
    fn network<L: Framing>(&self) -> usize {
        if L::HEADER == 0 {
            0
        } else {
            L::HEADER + TAG * self.link_header.kept()
        }
    }

    /// A label that is the same for every packet of a flow and tells nothing else, as Linux makes it
    /// (`ip6_make_flowlabel`, by a keyed hash over the same fields).
    #[inline(always)]
    fn own_label(&self, settings: &ReplySettings) -> u32 {
        if settings.labels & labels::AUTO == 0 {
            return 0;
        }
        let ports = if self.quoted == 0 {
            self.reset.ports
        } else {
            0
        };
        let flow = u64::from(ports) << 8 | u64::from(self.protocol());
        let mut hash = settings.secret;
        for word in [self.source.fold(), self.destination.fold(), flow] {
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        let label = (hash >> 40) as u32 & 0xf_ffff;
        if settings.labels & labels::STATELESS != 0 {
            label | 0x8_0000
        } else {
            label
        }
    }
}
