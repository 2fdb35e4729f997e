//! Reading the packet that is denied, for its reply: everything that makes a host drop it without one.

use super::{LEAST_OPTIONS, ReplySettings, SIGNATURE_LENGTH};
use crate::{
    Address, Env,
    frame::{
        Frame, FrameMut, flag,
        link::{ETHER_HEADER, Framing, MAX_TAGS, VLAN_TAG},
    },
    wire::{EthernetHeader, TcpHeader, UdpHeader, VlanTag, load},
};

/// Bytes of a TCP header without options.
pub(super) const TCP_HEADER: usize = size_of::<TcpHeader>();
/// Types of the TCP options that carry a signature (RFC 2385) and an authentication code (RFC 5925).
const SIGNATURE: u8 = 19;
const AUTHENTICATION: u8 = 29;
/// The longest options of TCP, bytes.
const MOST_OPTIONS: usize = 40;

/// The link header of a reply.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinkHeader {
    /// Destination and source, as they lie.
    macs: [[u16; 3]; 2],
    /// VLAN tags in network order, priority tags left out: the host takes these off and does not put them on.
    pub(super) tags: [u32; 2],
    /// How many of them are in the frame.
    kept: usize,
    pub(super) hop_limit: u8,
    pub(super) partial: bool,
    /// Whether the checksum was left to hardware shows later.
    pub(super) shows_later: bool,
}

impl LinkHeader {
    /// Reads the link header before an IP header at `network`; `None` where the frame is not for this host alone.
    #[inline(always)]
    pub(super) fn of<L: Framing, E: Env, F: Frame + ?Sized>(
        env: &E,
        frame: &F,
        network: usize,
    ) -> Option<Self> {
        if L::HEADER == 0 {
            Self::of_bare_ip(env)
        } else {
            Self::of_ethernet(env, frame, network)
        }
    }

    /// Without a link header every packet is for this host.
    #[inline(always)]
    fn of_bare_ip<E: Env>(env: &E) -> Option<Self> {
        let link = env.reply_link([0, 0])?;
        Some(Self {
            macs: [[0; 3]; 2],
            tags: [0; 2],
            kept: 0,
            hop_limit: link.hop_limit,
            partial: link.partial != 0,
            shows_later: false,
        })
    }

    #[inline(always)]
    fn of_ethernet<E: Env, F: Frame + ?Sized>(env: &E, frame: &F, network: usize) -> Option<Self> {
        let ethernet = frame.header::<EthernetHeader>(0)?;
        let ours = mac(&ethernet.destination);
        let theirs = mac(&ethernet.source);
        let mut kind = ethernet.kind.get();
        let mut kept = 0;
        let mut tags = [0_u32; 2];
        let mut vlans = [0_u16; 2];
        for index in 0..MAX_TAGS {
            let at = ETHER_HEADER + index * VLAN_TAG;
            if at >= network {
                break;
            }
            let tag = frame.header::<VlanTag>(at)?;
            let vlan = tag.control.get() & VlanTag::VLAN;
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
            kind = tag.kind.get();
        }
        let link = env.reply_link(vlans)?;
        let own = mac(&link.mac);
        // The lowest bit of the first byte marks a group.
        if ours != own || u16::from_be(theirs[0]) & 0x100 != 0 {
            return None;
        }
        Some(Self {
            macs: [theirs, own],
            tags,
            kept,
            hop_limit: link.hop_limit,
            partial: link.partial != 0,
            shows_later: false,
        })
    }

    /// Returns how many tags the reply has. Bounded for the verifier, which does not know what was stored in memory.
    #[inline(always)]
    pub(super) fn kept(&self) -> usize {
        self.kept & 3
    }

    /// Leaves the tags out of the frame.
    #[inline(always)]
    pub(super) fn untag(&mut self) {
        self.kept = 0;
    }

    /// Writes it at the beginning of a frame.
    #[inline(always)]
    pub(super) fn write<F: FrameMut + ?Sized>(&self, frame: &mut F, ethertype: u16) -> Option<()> {
        // With both tags in any case: what follows overwrites those that there are not.
        frame.put(0, self.macs)?;
        frame.put(ETHER_HEADER - 2, self.tags)?;
        frame.put(ETHER_HEADER - 2 + VLAN_TAG * self.kept(), ethertype.to_be())
    }
}

/// Returns a MAC address in the words that it is compared and written by.
#[inline(always)]
fn mac(bytes: &[u8; 6]) -> [u16; 3] {
    [load(bytes, 0), load(bytes, 2), load(bytes, 4)]
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

/// What a transport header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transport {
    /// Bytes of it with its payload.
    pub length: usize,
    /// As it lies.
    pub checksum: u16,
    /// Empty for UDP.
    pub reset: Reset,
}

/// Reads a TCP segment that a host replies to: no RST, and none that is signed, whose key is not known.
#[inline(always)]
pub(super) fn tcp<A: Address, F: Frame + ?Sized>(
    frame: &F,
    at: usize,
    length: usize,
    settings: &ReplySettings,
) -> Option<Transport> {
    let header = frame.header::<TcpHeader>(at)?;
    let start = &header.start;
    let flags = start.flags;
    let offset = usize::from(start.offset >> 4) * 4;
    if offset < TCP_HEADER || offset > length || flags & flag::RST != 0 {
        return None;
    }
    if !is_plain::<A, _>(frame, at + TCP_HEADER, offset - TCP_HEADER, settings) {
        return None;
    }
    let ports = start.ports.raw();
    let reset = if flags & flag::ACK != 0 {
        Reset {
            ports: ports.rotate_left(16),
            sequence: start.acknowledgement.raw(),
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
            acknowledgement: start.sequence.get().wrapping_add(took).to_be(),
            flags: flag::RST | flag::ACK,
        }
    };
    Some(Transport {
        length,
        checksum: header.checksum.raw(),
        reset,
    })
}

/// Returns whether these bytes of TCP options hold no signature and, for a strict kernel, no authentication code and nothing
/// malformed. Reads them as Linux does (`tcp_do_parse_auth_options`; before 6.7 `tcp_parse_md5sig_option`), which looks no
/// further where there is no room for what it looks for.
///
/// A kernel that was not built with `TCP_AO` ignores one code, and only with IPv6 (`tcp_v6_send_reset`,
/// `tcp_v4_ao_sign_reset`).
#[inline(always)]
fn is_plain<A: Address, F: Frame + ?Sized>(
    frame: &F,
    at: usize,
    length: usize,
    settings: &ReplySettings,
) -> bool {
    let strict = settings.strict != 0;
    let least = usize::from(settings.least_options);
    let mut ignores_code = A::FAMILY == 6 && settings.least_options != LEAST_OPTIONS;
    let mut read = 0;
    for _ in 0..=MOST_OPTIONS - usize::from(LEAST_OPTIONS) {
        if read + least > length {
            break;
        }
        let Some(option) = frame.header::<[u8; 2]>(at + read) else {
            break;
        };
        let long = usize::from(option[1]);
        match option[0] {
            0 => break,
            1 => read += 1,
            _ if long < 2 || read + long > length => return !strict,
            SIGNATURE => return long != usize::from(SIGNATURE_LENGTH) && !strict,
            AUTHENTICATION if strict => {
                if !ignores_code || long < usize::from(LEAST_OPTIONS) {
                    return false;
                }
                ignores_code = false;
                read += long;
            }
            _ => read += long,
        }
        // Never more; one bound for all paths, as in `frame::extension`.
        read &= 63;
    }
    true
}

/// Reads a UDP datagram whose length is possible. Bytes of the packet beyond it are ignored.
#[inline(always)]
pub(super) fn udp<F: Frame + ?Sized>(frame: &F, at: usize, length: usize) -> Option<Transport> {
    let header = frame.header::<UdpHeader>(at)?;
    let stated = usize::from(header.length.get());
    if stated < 8 || stated > length {
        return None;
    }
    Some(Transport {
        length: stated,
        checksum: header.checksum.raw(),
        reset: Reset::default(),
    })
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;
    use crate::address::{V4, V6};

    /// Kernels before 6.7; since 6.7; and since 6.7, built with `TCP_AO`.
    const KERNELS: [(u8, u8); 3] = [
        (0, SIGNATURE_LENGTH),
        (1, SIGNATURE_LENGTH),
        (1, LEAST_OPTIONS),
    ];

    /// Returns whether each of them finds these options plain.
    fn by_kernel<A: Address>(options: &[u8]) -> [bool; 3] {
        KERNELS.map(|(strict, least_options)| {
            let settings = ReplySettings {
                strict,
                least_options,
                ..ReplySettings::zeroed()
            };
            is_plain::<A, _>(options, 0, options.len(), &settings)
        })
    }

    fn option(kind: u8, length: usize) -> Vec<u8> {
        let mut option = vec![kind, length as u8];
        option.resize(length, 0xaa);
        option
    }

    #[test]
    fn options_are_read_as_each_kernel_reads_them() {
        let padded = |before, option: &[u8]| [&vec![1; before][..], option].concat();
        let signature = option(SIGNATURE, 18);
        let code = option(AUTHENTICATION, 16);
        for (options, plain) in [
            (Vec::new(), [true; 3]),
            (vec![1; 40], [true; 3]),
            (padded(22, &signature), [false; 3]),
            // Cut off, with 17 bytes that are left.
            (padded(23, &signature[..17]), [true, true, false]),
            (padded(0, &[0; 20]), [true; 3]),
            (padded(2, &option(SIGNATURE, 16)), [true, true, false]),
            ([&code[..], &[1; 8]].concat(), [true, false, false]),
            (padded(24, &code), [true, true, false]),
            (padded(35, &option(AUTHENTICATION, 5)), [true, true, false]),
            (padded(36, &option(AUTHENTICATION, 4)), [true; 3]),
            // Too short for a code.
            (padded(3, &option(AUTHENTICATION, 4)), [true; 3]),
            (padded(35, &[5, 6, 0, 0, 0]), [true, true, false]),
            (padded(35, &[5, 5, 0, 0, 0]), [true; 3]),
        ] {
            assert_eq!(by_kernel::<V4>(&options), plain, "{options:?}");
        }
        for (options, plain) in [
            ([&code[..], &[1; 8]].concat(), [true, true, false]),
            // Two of them, which Linux takes for an error.
            ([&code[..], &code, &[1; 8]].concat(), [true, false, false]),
            (
                [&option(AUTHENTICATION, 4)[..], &[1; 20]].concat(),
                [true, false, false],
            ),
            ([&code[..], &signature].concat(), [false; 3]),
        ] {
            assert_eq!(by_kernel::<V6>(&options), plain, "{options:?}");
        }
    }
}
