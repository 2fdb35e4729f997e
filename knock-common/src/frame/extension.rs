//! IPv6 extension headers.

use super::{Frame, TCP, UDP};
use crate::{
    verdict::Reason,
    wire::{ExtensionHeader, TcpHeader, UdpHeader},
};

/// Kinds of extension headers, by their protocol numbers (IANA).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MAX_EXTENSIONS: usize = 8;

/// IP within IP, by the number of the inner protocol.
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;

/// Where TCP or UDP begins behind no more than two headers of options or routing, as [`chain`] would
/// find it. `None`: ask there.
///
/// In place, since a call costs more than to read them; and only kinds that state their length alike, so
/// that the verifier has few ways to follow.
#[inline(always)]
pub(super) fn short_chain<F: Frame + ?Sized>(
    frame: &F,
    mut next: u8,
    mut at: usize,
) -> Option<(u8, usize)> {
    for _ in 0..2 {
        if is_transport(next) {
            return Some((next, at));
        }
        if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
            return None;
        }
        let extension = frame.header::<ExtensionHeader>(at)?;
        next = extension.next;
        at += (usize::from(extension.length) + 1) * 8;
    }
    is_transport(next).then_some((next, at))
}

#[inline(always)]
const fn is_transport(kind: u8) -> bool {
    matches!(kind, TCP | UDP)
}

#[inline(always)]
pub(super) const fn is_extension(kind: u8) -> bool {
    matches!(
        kind,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}

/// Where a chain of IPv6 extension headers leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// [`TCP`] or [`UDP`], and where its header begins.
    Transport {
        protocol: u8,
        at: usize,
    },
    /// None of the gate's business.
    Pass(Reason),
    Malformed,
}

impl Chain {
    const OTHER_PROTOCOL: u32 = 1 << 24;
    const LATER_FRAGMENT: u32 = 2 << 24;
    const MALFORMED: u32 = 3 << 24;
    /// Where a transport header begins is below this.
    const BOUND: usize = 1 << 15;

    /// In one number, since that is what a BPF function returns.
    #[inline(always)]
    pub const fn pack(self) -> u32 {
        match self {
            Self::Transport { protocol, at } => {
                (protocol as u32) << 16 | (at & (Self::BOUND - 1)) as u32
            }
            Self::Pass(Reason::Fragment) => Self::LATER_FRAGMENT,
            Self::Pass(_) => Self::OTHER_PROTOCOL,
            Self::Malformed => Self::MALFORMED,
        }
    }

    #[inline(always)]
    pub(super) const fn unpack(packed: u32) -> Self {
        match packed & Self::MALFORMED {
            0 => Self::Transport {
                protocol: (packed >> 16) as u8,
                at: packed as usize & (Self::BOUND - 1),
            },
            Self::OTHER_PROTOCOL => Self::Pass(Reason::OtherProtocol),
            Self::LATER_FRAGMENT => Self::Pass(Reason::Fragment),
            _ => Self::Malformed,
        }
    }
}

/// Follows a chain of IPv6 extension headers, of which the first is a `next` and begins at `at`. `end`:
/// that of the packet, as its header states it.
#[inline(always)]
pub fn chain<F: Frame + ?Sized>(frame: &F, mut next: u8, mut at: usize, end: usize) -> Chain {
    let mut first_fragment = false;
    for _ in 0..MAX_EXTENSIONS {
        // Every extension header has at least eight bytes.
        let Some(extension) = frame.header::<ExtensionHeader>(at) else {
            return Chain::Malformed;
        };
        // What follows a first fragment in its frame is padding of the link. The host finds the next
        // header in the next fragment, whatever the padding says it is.
        if first_fragment && at + 8 > end {
            return Chain::Malformed;
        }
        let words = usize::from(extension.length);
        let length = match next {
            FRAGMENT => {
                let offset = extension.fragment.get();
                if offset & 0xfff8 != 0 {
                    return match extension.next {
                        TCP if offset & 0xfff8 == 8 => Chain::Malformed,
                        TCP | UDP => Chain::Pass(Reason::Fragment),
                        kind if is_extension(kind) => Chain::Pass(Reason::Fragment),
                        _ => Chain::Pass(Reason::OtherProtocol),
                    };
                }
                first_fragment |= offset & 1 != 0;
                8
            }
            // In units of four bytes, less two (RFC 4302, section 2.2).
            AUTHENTICATION => (words + 2) * 4,
            _ => (words + 1) * 8,
        };
        // A host that takes segment routing (SRv6, RPL) unwraps such a packet itself, without a tunnel's
        // device, and delivers what is inside: by its next hop too, where that is another address of
        // the host's.
        let unwrapped = next == ROUTING && matches!(extension.next, IPV4_INSIDE | IPV6_INSIDE);
        next = extension.next;
        // Never reached by eight headers of at most 2 KiB each; it gives the verifier one bound for
        // all paths through the loop, so that it follows one of them and not thousands.
        at = (at + length) & (Chain::BOUND - 1);
        match next {
            TCP | UDP if first_fragment && !holds_header(frame, at, end, next) => {
                return Chain::Malformed;
            }
            TCP | UDP => return Chain::Transport { protocol: next, at },
            _ if unwrapped => return Chain::Malformed,
            _ if is_extension(next) => {}
            _ => return Chain::Pass(Reason::OtherProtocol),
        }
    }
    Chain::Malformed
}

/// Does a first fragment hold its whole TCP or UDP header, before the end that the IP header
/// states? What follows there is padding of the link, not part of the packet.
#[inline(always)]
pub(super) fn holds_header<F: Frame + ?Sized>(
    frame: &F,
    transport: usize,
    end: usize,
    protocol: u8,
) -> bool {
    let needed = if protocol == TCP {
        size_of::<TcpHeader>()
    } else {
        size_of::<UdpHeader>()
    };
    transport + needed <= end && transport + needed <= frame.length()
}
