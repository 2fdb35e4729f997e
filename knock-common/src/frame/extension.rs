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

/// Returns protocol and place of a TCP or UDP header behind at most two headers of options or routing. `None`: only
/// [`chain`] can tell.
///
/// Inlined, since a call costs more than to read them; and only for kinds that state their length in the same way, so
/// that the verifier has few paths to follow.
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

/// What follows a chain of IPv6 extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// [`TCP`] or [`UDP`], and where its header begins.
    Transport {
        protocol: u8,
        at: usize,
    },
    /// Passes without a look at its ports.
    Pass(Reason),
    Malformed,
}

impl Chain {
    const OTHER_PROTOCOL: u32 = 1 << 24;
    const LATER_FRAGMENT: u32 = 2 << 24;
    const MALFORMED: u32 = 3 << 24;
    /// A transport header begins below this.
    const BOUND: usize = 1 << 15;

    /// Packs it into one number, since a BPF function returns one register.
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

/// Follows a chain of IPv6 extension headers. The first is of kind `next` and begins at `at`; `end` is the end of the
/// packet by its header.
#[inline(always)]
pub fn chain<F: Frame + ?Sized>(frame: &F, mut next: u8, mut at: usize, end: usize) -> Chain {
    let mut first_fragment = false;
    for _ in 0..MAX_EXTENSIONS {
        // Every extension header has at least eight bytes.
        let Some(extension) = frame.header::<ExtensionHeader>(at) else {
            return Chain::Malformed;
        };
        // Bytes behind a first fragment are padding of the link. The host finds the next header in the next
        // fragment.
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
        // A host that accepts segment routing (SRv6, RPL) decapsulates such a packet itself, without a tunnel
        // device, and delivers the inner packet.
        let unwrapped = next == ROUTING && matches!(extension.next, IPV4_INSIDE | IPV6_INSIDE);
        next = extension.next;
        // Eight headers of at most 2 KiB each never reach this bound. It is the same for all paths through the loop,
        // so the verifier follows one of them and not thousands.
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

/// Returns whether a first fragment has its whole TCP or UDP header before `end`, the end of the packet by its IP
/// header. Bytes behind that are padding of the link.
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
