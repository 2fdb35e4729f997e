//! Reading a packet for its answer: everything that makes a host drop it without a word.

use super::{
    FrameMut, Host, ReplyFamily as _,
    checksum::{fold, total},
    headers::Both,
    reply::{Reset, TAG, TCP_HEADER},
};
use crate::{
    address::{V4, V6},
    frame::{ETHER_HEADER, Frame, Framing, NetworkLayer, TCP, UDP, flag, load, u16_at, u32_at},
};

const VLAN: [u16; 2] = [0x8100, 0x88a8];
/// Type of the TCP option that carries a signature, and its length (RFC 2385).
const SIGNATURE: u8 = 19;
const SIGNATURE_LENGTH: usize = 18;
/// The longest options of TCP, bytes; a signature begins on one of the first 23.
const MOST_OPTIONS: usize = 40;

/// The link header of an answer.
#[derive(Debug, Clone, Copy)]
pub struct LinkHeader {
    /// Whom it goes to and whom it is from, as they lie.
    macs: [[u16; 3]; 2],
    /// Its tags, as they lie: those that came, but for mere priorities, which the host takes off and
    /// does not put on.
    tags: [u32; 2],
    /// How many of them there are.
    kept: usize,
    /// Where the network header of the packet begins.
    network: usize,
    pub(super) hop_limit: u8,
    pub(super) partial: bool,
    /// The packet is IPv4, else IPv6.
    pub is_ipv4: bool,
}

impl LinkHeader {
    /// Reads the link header; `None` where the frame isn't for this host alone.
    #[inline(always)]
    pub fn of<L: Framing, H: Host, F: Frame + ?Sized>(frame: &F, host: &H) -> Option<Self> {
        if L::HEADER == 0 {
            Self::of_bare_ip::<L, H, F>(frame, host)
        } else {
            Self::of_ethernet(frame, host)
        }
    }

    /// Without a link header every packet is for this host.
    #[inline(always)]
    fn of_bare_ip<L: Framing, H: Host, F: Frame + ?Sized>(frame: &F, host: &H) -> Option<Self> {
        let is_ipv4 = match L::network(frame) {
            NetworkLayer::Ipv4 { .. } => true,
            NetworkLayer::Ipv6 { .. } => false,
            NetworkLayer::Other | NetworkLayer::Malformed => return None,
        };
        let link = host.link([0, 0])?;
        Some(Self {
            macs: [[0; 3]; 2],
            tags: [0; 2],
            kept: 0,
            network: 0,
            hop_limit: link.hop_limit,
            partial: link.partial != 0,
            is_ipv4,
        })
    }

    /// Ethernet and tags.
    #[inline(always)]
    fn of_ethernet<H: Host, F: Frame + ?Sized>(frame: &F, host: &H) -> Option<Self> {
        let ethernet = frame.header::<ETHER_HEADER>(0)?;
        let ours: [u16; 3] = [load(ethernet, 0), load(ethernet, 2), load(ethernet, 4)];
        let theirs: [u16; 3] = [load(ethernet, 6), load(ethernet, 8), load(ethernet, 10)];
        let mut kind = u16_at(ethernet, 12);
        let mut network = ETHER_HEADER;
        let mut kept = 0;
        let mut tags = [0_u32; 2];
        let mut vlans = [0_u16; 2];
        for _ in 0..2 {
            if !VLAN.contains(&kind) {
                break;
            }
            let tag = frame.header::<TAG>(network)?;
            let vlan = u16_at(tag, 0) & 0xfff;
            if vlan != 0 {
                let word = (u32::from(kind) << 16 | u32::from(vlan)).to_be();
                if kept == 0 {
                    tags[0] = word;
                    vlans[0] = vlan;
                } else {
                    tags[1] = word;
                    vlans[1] = vlan;
                }
                kept += 1;
            }
            kind = u16_at(tag, 2);
            network += TAG;
        }
        let is_ipv4 = kind == V4::ETHERTYPE;
        if !is_ipv4 && kind != V6::ETHERTYPE {
            return None;
        }
        let link = host.link(vlans)?;
        let own = [load(&link.mac, 0), load(&link.mac, 2), load(&link.mac, 4)];
        // The lowest bit of the first byte marks a group.
        if ours != own || u16::from_be(theirs[0]) & 0x100 != 0 {
            return None;
        }
        Some(Self {
            macs: [theirs, own],
            tags,
            kept,
            network,
            hop_limit: link.hop_limit,
            partial: link.partial != 0,
            is_ipv4,
        })
    }

    /// How many tags the answer has. This and the next are bounded for the verifier, which knows
    /// nothing of what was in memory; see [`super::reply::ReplyBuffer`].
    #[inline(always)]
    pub(super) fn kept(&self) -> usize {
        self.kept & 3
    }

    /// Where the network header of the packet begins.
    #[inline(always)]
    pub(super) fn network(&self) -> usize {
        self.network & 0x1f
    }

    /// Writes it at the beginning of a frame.
    #[inline(always)]
    pub(super) fn write<F: FrameMut + ?Sized>(&self, frame: &mut F, ethertype: u16) -> Option<()> {
        // With tags, whether there are any or not: what follows covers those that there aren't.
        frame.put(0, Both(self.macs, self.tags))?;
        frame.put(12 + TAG * self.kept(), ethertype.to_be())
    }
}

/// A packet's network header, as far as answers go by it.
#[derive(Debug, Clone, Copy)]
pub struct Request<A> {
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

/// IPv4: whole, undamaged, in one piece and without options.
#[inline(always)]
pub(super) fn ipv4<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Request<V4>> {
    let header = frame.header::<20>(at)?;
    let words: [u32; 5] = [
        load(header, 0),
        load(header, 4),
        load(header, 8),
        load(header, 12),
        load(header, 16),
    ];
    let length = usize::from(u16_at(header, 2));
    // More fragments, or an offset. What the reserved bit says, the host doesn't ask.
    let fragment = u16_at(header, 6) & 0x3fff != 0;
    if header[0] != 0x45 || fragment || fold(total(&words)) != 0xffff {
        return None;
    }
    Some(Request {
        source: V4::from_word(words[3]),
        destination: V4::from_word(words[4]),
        protocol: transport(header[9])?,
        traffic: header[1],
        label: 0,
        length: length.checked_sub(20)?,
    })
}

/// IPv6 without extension headers.
#[inline(always)]
pub(super) fn ipv6<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Request<V6>> {
    let header = frame.header::<40>(at)?;
    let start = u32_at(header, 0);
    if start >> 28 != 6 {
        return None;
    }
    Some(Request {
        source: V6::from_words(load(header, 8), load(header, 16)),
        destination: V6::from_words(load(header, 24), load(header, 32)),
        protocol: transport(header[6])?,
        traffic: (start >> 20) as u8,
        label: start & 0xf_ffff,
        length: usize::from(u16_at(header, 4)),
    })
}

#[inline(always)]
fn transport(protocol: u8) -> Option<u8> {
    (protocol == TCP || protocol == UDP).then_some(protocol)
}

/// What a transport header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// Bytes of it with its payload.
    pub length: usize,
    /// As it lies.
    pub checksum: u16,
    /// Empty for UDP.
    pub reset: Reset,
}

/// A TCP segment that is answered: no RST, and none that is signed, as its key can't be known.
#[inline(always)]
pub(super) fn tcp<F: Frame + ?Sized>(
    frame: &F,
    at: usize,
    length: usize,
    strict: bool,
) -> Option<Segment> {
    let header = frame.header::<20>(at)?;
    let flags = header[13];
    let offset = usize::from(header[12] >> 4) * 4;
    if offset < TCP_HEADER || offset > length || flags & flag::RST != 0 {
        return None;
    }
    if !is_plain(frame, at + TCP_HEADER, offset - TCP_HEADER, strict) {
        return None;
    }
    let ports: u32 = load(header, 0);
    let reset = if flags & flag::ACK != 0 {
        Reset {
            ports: ports.rotate_left(16),
            sequence: load(header, 8),
            acknowledgement: 0,
            flags: flag::RST,
        }
    } else {
        // SYN and FIN count as a byte each.
        let took = (length - offset) as u32
            + u32::from(flags & flag::SYN != 0)
            + u32::from(flags & flag::FIN != 0);
        Reset {
            ports: ports.rotate_left(16),
            sequence: 0,
            acknowledgement: u32_at(header, 4).wrapping_add(took).to_be(),
            flags: flag::RST | flag::ACK,
        }
    };
    Some(Segment {
        length,
        checksum: load(header, 16),
        reset,
    })
}

/// Is there no signature among so many bytes of TCP options, and, for a `strict` kernel, no nonsense?
/// Read as Linux reads them (`tcp_do_parse_auth_options`; before 6.7 `tcp_parse_md5sig_option`), which
/// looks no further where there is no room for a signature.
#[inline(always)]
fn is_plain<F: Frame + ?Sized>(frame: &F, at: usize, length: usize, strict: bool) -> bool {
    let mut read = 0;
    for _ in 0..=MOST_OPTIONS - SIGNATURE_LENGTH {
        if read + SIGNATURE_LENGTH > length {
            break;
        }
        let Some(option) = frame.header::<2>(at + read) else {
            break;
        };
        let long = usize::from(option[1]);
        match option[0] {
            0 => break,
            1 => read += 1,
            _ if long < 2 || read + long > length => return !strict,
            SIGNATURE => return long != SIGNATURE_LENGTH && !strict,
            _ => read += long,
        }
        // Never more; one bound for all paths, as in `frame::ipv6`.
        read &= 63;
    }
    true
}

/// A UDP datagram whose length is possible. What the packet holds beyond it doesn't count.
#[inline(always)]
pub(super) fn udp<F: Frame + ?Sized>(frame: &F, at: usize, length: usize) -> Option<Segment> {
    let header = frame.header::<8>(at)?;
    let stated = usize::from(u16_at(header, 4));
    if stated < 8 || stated > length {
        return None;
    }
    Some(Segment {
        length: stated,
        checksum: load(header, 6),
        reset: Reset::default(),
    })
}
