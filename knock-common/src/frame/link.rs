//! The link header.

use super::{Frame, Segment, plain};
use crate::{
    address::V4,
    wire::{EthernetHeader, VlanTag, ether},
};

/// Bytes of an Ethernet header, and of a VLAN tag.
pub const ETHER_HEADER: usize = size_of::<EthernetHeader>();
pub const VLAN_TAG: usize = size_of::<VlanTag>();
/// How many tags are read.
pub const MAX_TAGS: usize = 2;

/// What follows the link header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLayer {
    Ipv4 { at: usize },
    Ipv6 { at: usize },
    Other,
    Malformed,
}

/// What packets begin with on a link. A type and not a value: each entry of the kernel program is compiled for one.
pub trait Framing {
    /// Bytes of the link header, without VLAN tags.
    const HEADER: usize;

    /// Finds the network layer.
    fn network<F: Frame + ?Sized>(frame: &F) -> NetworkLayer;

    /// Reads a plain packet, as the module `plain` defines it. `None` if it is another one, or where plain packets are read like
    /// all others.
    #[inline(always)]
    fn plain<F: Frame + ?Sized>(_: &F) -> Option<Segment<V4>> {
        None
    }
}

/// Ethernet II, with up to two VLAN tags.
#[derive(Debug, Clone, Copy)]
pub struct Ethernet;

/// Ethernet II whose outermost tag lies beside the frame, of which at most one more is read. Places are those that
/// the frame would have with the tag in it.
#[derive(Debug, Clone, Copy)]
pub struct TagBeside;

/// No link header: a packet begins with its IP header, whose first four bits are the version.
#[derive(Debug, Clone, Copy)]
pub struct BareIp;

impl Framing for Ethernet {
    const HEADER: usize = ETHER_HEADER;

    #[inline(always)]
    fn network<F: Frame + ?Sized>(frame: &F) -> NetworkLayer {
        let Some(ethernet) = frame.header::<EthernetHeader>(0) else {
            return NetworkLayer::Other;
        };
        behind::<MAX_TAGS, F>(frame, ethernet, ETHER_HEADER)
    }

    #[inline(always)]
    fn plain<F: Frame + ?Sized>(frame: &F) -> Option<Segment<V4>> {
        plain::ethernet(frame)
    }
}

impl Framing for TagBeside {
    const HEADER: usize = ETHER_HEADER;

    #[inline(always)]
    fn network<F: Frame + ?Sized>(frame: &F) -> NetworkLayer {
        let Some(ethernet) = frame.header::<EthernetHeader>(0) else {
            return NetworkLayer::Other;
        };
        behind::<{ MAX_TAGS - 1 }, F>(frame, ethernet, ETHER_HEADER + VLAN_TAG)
    }
}

/// Finds the network layer behind an Ethernet header and up to `TAGS` tags, the first of which would be at `at`.
#[inline(always)]
fn behind<const TAGS: usize, F: Frame + ?Sized>(
    frame: &F,
    ethernet: &EthernetHeader,
    mut at: usize,
) -> NetworkLayer {
    let mut kind = ethernet.kind.get();
    for _ in 0..TAGS {
        if kind != ether::VLAN && kind != ether::QINQ {
            break;
        }
        let Some(tag) = frame.header::<VlanTag>(at) else {
            return NetworkLayer::Malformed;
        };
        kind = tag.kind.get();
        at += VLAN_TAG;
    }
    match kind {
        ether::IPV4 => NetworkLayer::Ipv4 { at },
        ether::IPV6 => NetworkLayer::Ipv6 { at },
        ether::VLAN | ether::QINQ => NetworkLayer::Malformed,
        _ => NetworkLayer::Other,
    }
}

impl Framing for BareIp {
    const HEADER: usize = 0;

    #[inline(always)]
    fn network<F: Frame + ?Sized>(frame: &F) -> NetworkLayer {
        let Some(start) = frame.header::<[VlanTag; 2]>(0) else {
            return NetworkLayer::Other;
        };
        if is_priority_tag(start) {
            return NetworkLayer::Malformed;
        }
        match start[0].control.get() >> 12 {
            4 => NetworkLayer::Ipv4 { at: 0 },
            6 => NetworkLayer::Ipv6 { at: 0 },
            _ => NetworkLayer::Other,
        }
    }

    #[inline(always)]
    fn plain<F: Frame + ?Sized>(frame: &F) -> Option<Segment<V4>> {
        plain::bare_ip(frame)
    }
}

/// Returns what is behind the tag of a packet without link header, where the kernel has put the tag beside the packet.
/// `control`: its priority and VLAN; `kind`: the ethertype behind it. The host takes a tag that names no VLAN off, and drops
/// packets with others.
#[inline(always)]
pub const fn behind_tag(control: u16, kind: u16) -> NetworkLayer {
    match kind {
        ether::IPV4 | ether::IPV6 | ether::VLAN | ether::QINQ if control & VlanTag::VLAN == 0 => {
            NetworkLayer::Malformed
        }
        _ => NetworkLayer::Other,
    }
}

/// Returns whether a packet without link header begins with a priority tag: a VLAN tag that names no VLAN. Packets of GRE
/// and of tun devices can. The host takes the tag off and processes what follows.
#[inline(always)]
fn is_priority_tag(start: &[VlanTag; 2]) -> bool {
    let [tag, behind] = start;
    // In an IPv4 header these bits are the length, which is not 0.
    let names_vlan = |tag: &VlanTag| tag.control.get() & VlanTag::VLAN != 0;
    if names_vlan(tag) {
        return false;
    }
    let version = |header: &VlanTag| header.control.get() >> 12;
    // An IPv6 header can look like a tag: with one of four flow labels. Then the bytes behind tell them apart.
    let is_ipv6 = version(tag) == 6;
    match tag.kind.get() {
        ether::IPV4 => !is_ipv6 || version(behind) == 4,
        ether::IPV6 => !is_ipv6 || version(behind) == 6,
        ether::VLAN | ether::QINQ => !is_ipv6 || !names_vlan(behind),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Pod;

    use super::*;

    /// A frame without its outermost tag.
    struct Without<'f>(&'f [u8]);

    impl Frame for Without<'_> {
        fn header<T: Pod>(&self, at: usize) -> Option<&T> {
            self.0.header(if at == 0 { 0 } else { at - VLAN_TAG })
        }

        fn copy<const N: usize>(&self, _: usize, _: &mut [u64; N]) -> bool {
            unreachable!("the link header is not copied")
        }

        fn length(&self) -> usize {
            self.0.length() + VLAN_TAG
        }

        fn chain(&self, _: u8, _: usize, _: usize) -> u32 {
            unreachable!("the link header has no extension headers")
        }
    }

    #[test]
    fn a_frame_whose_tag_lies_beside_it_is_read_as_the_whole_frame() {
        let kinds = [ether::IPV4, ether::IPV6, ether::VLAN, ether::QINQ, 0x0806];
        for outer in [ether::VLAN, ether::QINQ] {
            for first in kinds {
                for second in kinds {
                    for third in kinds {
                        let mut whole = vec![0_u8; 12];
                        for kind in [outer, first, second, third] {
                            whole.extend(kind.to_be_bytes());
                            // The VLAN, or the beginning of what follows.
                            whole.extend([0x45, 0x07]);
                        }
                        for length in ETHER_HEADER + VLAN_TAG..=whole.len() {
                            let whole = &whole[..length];
                            let without = [&whole[..12], &whole[12 + VLAN_TAG..]].concat();
                            assert_eq!(
                                TagBeside::network(&Without(&without)),
                                Ethernet::network(whole),
                                "{whole:x?}"
                            );
                        }
                    }
                }
            }
        }
    }

    /// What the kernel puts beside a packet is judged as it would be in front of it.
    #[test]
    fn a_tag_beside_a_packet_is_judged_as_one_in_front_of_it() {
        // With a priority too, which is no version of IP.
        for control in [0_u16, 0xe000, 5, 0xe005] {
            for kind in [ether::IPV4, ether::IPV6, ether::VLAN, ether::QINQ, 0x0806] {
                let mut packet = [0_u8; 24];
                packet[..2].copy_from_slice(&control.to_be_bytes());
                packet[2..4].copy_from_slice(&kind.to_be_bytes());
                assert_eq!(
                    behind_tag(control, kind),
                    BareIp::network(&packet[..]),
                    "{control:#x} {kind:#x}"
                );
            }
        }
    }
}
