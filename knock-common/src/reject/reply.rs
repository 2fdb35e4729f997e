//! The reply that a closed port makes, written over the packet that asks for it.

use super::{
    ReplyFamily, ReplySettings, Summed, address_kind,
    checksum::{fold, pseudo, total},
    headers::IpFields,
    labels,
    permit::permit,
    request::{self, LinkHeader, Reset, TCP_HEADER},
};
use crate::{
    Env,
    address::{Address as _, Padded, V4, V6},
    frame::{
        Frame, FrameMut, TCP, UDP,
        link::{Framing, NetworkLayer, VLAN_TAG},
    },
    keys::SourceKey,
};

/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;

/// A reply in the making: too much for the kernel's stack.
///
/// It is made in steps, each of which is a function of its own in the kernel program and leaves nothing behind but what
/// it writes here, so that the verifier follows each once. What is read from here is bounded, since the verifier does not
/// know what was written.
#[derive(Debug, Clone, Copy)]
pub struct ReplyBuffer {
    /// Where the packet's IP header begins.
    network: usize,
    link: LinkHeader,
    reply: Reply,
}

/// A part of the packet that its reply holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// Where it begins in the packet's frame.
    pub from: usize,
    /// Where it begins in the reply's.
    pub at: usize,
    /// Bytes; 0: nothing.
    pub length: usize,
}

/// A reply as far as it depends on the packet behind the link header.
#[derive(Debug, Clone, Copy)]
struct Reply {
    source: Padded,
    destination: Padded,
    traffic: u8,
    hops: u8,
    label: u32,
    /// Of an ICMP error.
    identification: u16,
    /// Bytes of the packet that an ICMP error quotes; 0: this is a RST.
    quoted: usize,
    reset: Reset,
    /// The sender of the packet may have left its checksum to hardware: it is that of the pseudo-header alone.
    left: bool,
    /// The checksum is right as it is, or a datagram has none.
    summed: bool,
}

impl ReplyBuffer {
    /// Returns a buffer with nothing in it. In the kernel program it is an entry of a table.
    #[cfg(test)]
    pub(super) fn empty() -> Self {
        let no_address = Padded::from_words(0, 0);
        Self {
            network: 0,
            link: LinkHeader::default(),
            reply: Reply {
                source: no_address,
                destination: no_address,
                traffic: 0,
                hops: 0,
                label: 0,
                identification: 0,
                quoted: 0,
                reset: Reset::default(),
                left: false,
                summed: false,
            },
        }
    }

    /// Reads the link header. Returns the address family of the packet behind it, or 0 where there is no reply.
    ///
    /// It finds the IP header once more: the place of it in the verdict would cost every other packet instructions, and
    /// room on the stack.
    #[inline(always)]
    pub fn read_link<L: Framing, E: Env, F: Frame + ?Sized>(&mut self, env: &E, frame: &F) -> u8 {
        let (family, network) = match L::network(frame) {
            NetworkLayer::Ipv4 { at } => (V4::FAMILY, at),
            NetworkLayer::Ipv6 { at } => (V6::FAMILY, at),
            NetworkLayer::Other | NetworkLayer::Malformed => return 0,
        };
        let Some(link) = LinkHeader::of::<L, E, F>(env, frame, network) else {
            return 0;
        };
        self.network = network;
        self.link = link;
        family
    }

    /// Reads the rest of the packet; false where there is no reply.
    #[inline(always)]
    pub fn read_packet<A: ReplyFamily, E: Env, F: Frame + Summed + ?Sized>(
        &mut self,
        env: &E,
        frame: &F,
    ) -> bool {
        let Some(reply) = Reply::to::<A, E, F>(env, frame, &self.link, self.network()) else {
            return false;
        };
        self.reply = reply;
        true
    }

    /// Takes an ICMP error from the host's limits; false where there may be no more. A RST has no limit.
    #[inline(always)]
    pub fn permit<E: Env>(&mut self, env: &E, family: u8) -> bool {
        let reply = &mut self.reply;
        if reply.quoted == 0 {
            return true;
        }
        let to = SourceKey {
            address: reply.destination,
            family: u64::from(family),
        };
        let Some(identification) = permit(env, &to) else {
            return false;
        };
        reply.identification = identification;
        true
    }

    /// Returns by how many bytes the frame has to begin later (negative: earlier) for the reply to fit.
    #[inline(always)]
    pub fn shift<L: Framing, A: ReplyFamily>(&self) -> isize {
        let Quote { from, at, length } = self.quote::<L, A>();
        if length == 0 {
            return 0;
        }
        // What is quoted stays where it is.
        from.cast_signed() - at.cast_signed()
    }

    /// Returns what of the packet the reply holds.
    #[inline(always)]
    pub fn quote<L: Framing, A: ReplyFamily>(&self) -> Quote {
        Quote {
            from: self.network(),
            at: self.reply_network::<L>() + A::HEADER + ICMP_HEADER,
            length: self.reply.quoted(),
        }
    }

    /// Returns the bytes of the reply's frame.
    #[inline(always)]
    pub fn length<L: Framing, A: ReplyFamily>(&self) -> usize {
        self.reply_network::<L>() + A::HEADER + self.reply.length()
    }

    /// Writes the reply into a frame that has been shifted and cut to its length.
    #[inline(always)]
    pub fn write<L: Framing, A: ReplyFamily, F: FrameMut + Summed + ?Sized>(
        &self,
        frame: &mut F,
    ) -> Option<()> {
        self.write_with::<L, A, F>(frame, false)
    }

    /// As [`write`](Self::write). With `leave`, the checksum of a RST is left to hardware too.
    #[inline(always)]
    pub fn write_with<L: Framing, A: ReplyFamily, F: FrameMut + Summed + ?Sized>(
        &self,
        frame: &mut F,
        leave: bool,
    ) -> Option<()> {
        if L::HEADER != 0 {
            self.link.write(frame, A::ETHERTYPE)?;
        }
        self.reply
            .write::<A, F>(frame, self.reply_network::<L>(), leave)
    }

    /// Has the packet's checksum judged by [`is_right`](Self::is_right), whatever is known of the interface.
    #[inline(always)]
    pub fn judge_sum_later(&mut self) {
        self.link.shows_later = true;
    }

    /// Returns whether the packet's checksum is right, where it is known whether it was left to hardware. A checksum can be
    /// right in both cases.
    #[inline(always)]
    pub fn is_right(&self, is_left: bool) -> bool {
        if is_left {
            self.reply.left
        } else {
            self.reply.summed
        }
    }

    /// Makes it a reply without VLAN tags in its frame, to a packet without. Returns how many the packet had.
    #[inline(always)]
    pub fn untag<L: Framing>(&mut self) -> usize {
        let tags = self.network().saturating_sub(L::HEADER) / VLAN_TAG;
        self.network = L::HEADER;
        self.link.untag();
        tags
    }

    /// Returns the VLAN tags of the reply, outer first, as words in network order; 0: none.
    #[inline(always)]
    pub fn tags(&self) -> [u32; 2] {
        self.link.tags
    }

    /// Where the packet's IP header begins.
    #[inline(always)]
    fn network(&self) -> usize {
        self.network & 0x1f
    }

    /// Where the reply's IP header begins.
    #[inline(always)]
    fn reply_network<L: Framing>(&self) -> usize {
        if L::HEADER == 0 {
            0
        } else {
            L::HEADER + VLAN_TAG * self.link.kept()
        }
    }
}

impl Reply {
    /// Returns what a closed port would reply to the packet in this frame.
    #[inline(always)]
    fn to<A: ReplyFamily, E: Env, F: Frame + Summed + ?Sized>(
        env: &E,
        frame: &F,
        link: &LinkHeader,
        network: usize,
    ) -> Option<Self> {
        let settings = env.reply_settings()?;
        let packet = A::read(frame, network)?;
        let at = network + A::HEADER;
        if packet.length > frame.length().checked_sub(at)?
            || env.address_kind(packet.destination) != address_kind::OWN
            || env.address_kind(packet.source) != 0
            || !packet.source.is_one_host()
        {
            return None;
        }
        let tcp = packet.protocol == TCP;
        let transport = if tcp {
            request::tcp::<A, _>(frame, at, packet.length, settings)?
        } else if packet.protocol == UDP {
            request::udp(frame, at, packet.length)?
        } else {
            // An extension header, which the host would process first.
            return None;
        };
        let (mut left, mut summed) = (false, true);
        let unsummed = !tcp && transport.checksum == 0;
        if unsummed {
            // IPv6 has no datagrams without a checksum (RFC 8200, section 8.1).
            if A::FAMILY == 6 {
                return None;
            }
        } else {
            let addresses = packet.source.sum() + packet.destination.sum();
            let pseudo = pseudo(addresses, packet.protocol, transport.length);
            // As a veth's peer does (CHECKSUM_PARTIAL).
            left = (link.partial || link.shows_later) && transport.checksum == fold(pseudo);
            summed = (!left || link.shows_later)
                && frame
                    .sum(at, transport.length)
                    .is_some_and(|sum| fold(pseudo + sum) == 0xffff);
            if !left && !summed {
                return None;
            }
        }
        let mut reply = Self {
            source: packet.destination.padded(),
            destination: packet.source.padded(),
            traffic: packet.traffic,
            hops: if A::FAMILY == 4 {
                settings.ttl
            } else {
                link.hop_limit
            },
            label: 0,
            identification: 0,
            quoted: 0,
            reset: transport.reset,
            left,
            summed,
        };
        if tcp {
            // Without the congestion bits.
            reply.traffic &= !3;
            if settings.labels & labels::REFLECT != 0 {
                reply.label = packet.label;
            }
        } else {
            // Linux's RT_TOS, and RFC 1812's precedence for errors; IPv6's have none.
            reply.traffic = if A::FAMILY == 4 {
                packet.traffic & 0x1e | 0xc0
            } else {
                0
            };
            let room = A::MOST - A::HEADER - ICMP_HEADER;
            reply.quoted = (A::HEADER + transport.length).min(room);
        }
        if A::FAMILY == 6 && reply.label == 0 {
            reply.label = reply.own_label::<A>(settings);
        }
        Some(reply)
    }

    /// Writes IP header and what follows it, but for what is quoted, which is there.
    #[inline(always)]
    fn write<A: ReplyFamily, F: FrameMut + Summed + ?Sized>(
        &self,
        frame: &mut F,
        network: usize,
        leave: bool,
    ) -> Option<()> {
        let fields = IpFields {
            source: A::unpadded(self.source),
            destination: A::unpadded(self.destination),
            protocol: self.protocol::<A>(),
            traffic: self.traffic,
            hops: self.hops,
            label: self.label,
            identification: (self.quoted != 0).then_some(self.identification),
            length: self.length(),
        };
        let addresses = fields.source.sum() + fields.destination.sum();
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
            let pseudo = pseudo(addresses, TCP, TCP_HEADER);
            let sum = if leave {
                fold(pseudo)
            } else {
                !fold(pseudo + total(&words))
            };
            let [ports, sequence, acknowledgement, offset] = words;
            let segment = [ports, sequence, acknowledgement, offset, u32::from(sum)];
            A::put(&fields, frame, network, segment)
        } else {
            let [kind, code] = A::UNREACHABLE;
            let first = u16::from_ne_bytes([kind, code]);
            let quoted = network + A::HEADER + ICMP_HEADER;
            let mut sum = u64::from(first) + frame.sum(quoted, self.quoted())?;
            if A::FAMILY == 6 {
                sum += pseudo(addresses, A::ICMP, self.length());
            }
            let message = [u32::from(first) | u32::from(!fold(sum)) << 16, 0];
            A::put(&fields, frame, network, message)
        }
    }

    /// Bytes behind the IP header.
    #[inline(always)]
    fn length(&self) -> usize {
        if self.quoted == 0 {
            TCP_HEADER
        } else {
            ICMP_HEADER + self.quoted()
        }
    }

    #[inline(always)]
    fn quoted(&self) -> usize {
        self.quoted & 0x7ff
    }

    #[inline(always)]
    fn protocol<A: ReplyFamily>(&self) -> u8 {
        if self.quoted == 0 { TCP } else { A::ICMP }
    }

    /// Returns a flow label that is the same for every packet of a flow and tells nothing else, as Linux makes it
    /// (`ip6_make_flowlabel`, by a keyed hash over the same fields).
    #[inline(always)]
    fn own_label<A: ReplyFamily>(&self, settings: &ReplySettings) -> u32 {
        if settings.labels & labels::AUTO == 0 {
            return 0;
        }
        let ports = if self.quoted == 0 {
            self.reset.ports
        } else {
            0
        };
        let flow = u64::from(ports) << 8 | u64::from(self.protocol::<A>());
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
