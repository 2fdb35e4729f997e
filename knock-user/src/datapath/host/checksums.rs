//! Devices by which packets with an unfinished transport checksum may arrive.
//!
//! A sender that offloads the checksum writes the sum of the pseudo-header alone (`CHECKSUM_PARTIAL`). A network card
//! completes the sum when it sends, so such a packet never leaves a machine; but on its way between two software
//! devices of one machine, nothing completes it.

use crate::sys::links::{DEEPEST, Link, SHARING};

/// Buses of devices that lead to another system on the same machine.
const VIRTUAL_BUSES: [&str; 3] = ["virtio", "xen", "vio"];

/// Kinds that come in pairs: the lower device is the other end.
const PAIRS: [&str; 2] = ["veth", "netkit"];

/// Returns whether such packets may arrive by device `index`: not where it is hardware, or on top of hardware alone. A
/// device that cannot be seen, such as one in another network namespace, counts as software.
pub fn may_be_left_out(index: u32, links: &[Link]) -> bool {
    reaches_software(index, links, DEEPEST)
}

fn reaches_software(index: u32, links: &[Link], depth: u32) -> bool {
    let found = links.iter().find(|link| link.index == index);
    let Some(link) = found.filter(|_| depth > 0) else {
        return true;
    };
    if let Some(bus) = &link.bus {
        return VIRTUAL_BUSES.contains(&bus.as_str());
    }
    let kind = link.kind.as_deref().unwrap_or_default();
    // Devices that share another pass packets to each other without it.
    if PAIRS.contains(&kind) || SHARING.contains(&kind) || link.lower_elsewhere {
        return true;
    }
    let below = link.lower.filter(|lower| *lower != index && *lower != 0);
    let ports = links.iter().filter(|port| port.master == Some(index));
    let mut under = below
        .into_iter()
        .chain(ports.map(|port| port.index))
        .peekable();
    // With nothing below, it is software itself: a tap, or a bridge to which virtual machines will be added.
    under.peek().is_none() || under.any(|lower| reaches_software(lower, links, depth - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: &str) -> Link {
        Link {
            index,
            kind: (!kind.is_empty()).then(|| kind.to_owned()),
            ..Link::default()
        }
    }

    fn card(index: u32, bus: &str) -> Link {
        Link {
            bus: Some(bus.to_owned()),
            ..link(index, "")
        }
    }

    fn on(lower: u32, link: Link) -> Link {
        Link {
            lower: Some(lower),
            ..link
        }
    }

    fn port_of(master: u32, link: Link) -> Link {
        Link {
            master: Some(master),
            ..link
        }
    }

    #[test]
    fn hardware_completes_every_sum() {
        let links = [
            card(2, "pci"),
            card(3, "usb"),
            card(4, "virtio"),
            card(5, "xen"),
        ];
        let left: Vec<_> = (2..6).map(|index| may_be_left_out(index, &links)).collect();
        assert_eq!(left, [false, false, true, true]);
    }

    #[test]
    fn software_does_not() {
        for kind in ["veth", "tun", "dummy", "vxlan", "macvlan", "bridge"] {
            assert!(may_be_left_out(2, &[link(2, kind)]), "{kind}");
        }
        // A pair's other end, here or elsewhere, is not what it stands on.
        let pair = [on(3, link(2, "veth")), on(2, link(3, "veth"))];
        assert!(may_be_left_out(2, &pair));
        assert!(may_be_left_out(9, &pair), "unknown");
    }

    #[test]
    fn what_stands_on_others_is_as_they_are() {
        let links = [
            card(2, "pci"),
            on(2, link(3, "vlan")),
            on(2, link(4, "macvlan")),
            port_of(10, on(9, link(5, "veth"))),
            port_of(10, on(2, link(6, "vlan"))),
            link(10, "bridge"),
            on(10, link(7, "vlan")),
            port_of(11, card(12, "pci")),
            port_of(11, card(13, "pci")),
            link(11, "bond"),
            port_of(14, link(11, "bond")),
        ];
        let left = |index| may_be_left_out(index, &links);
        assert!(!left(3), "a VLAN on a card");
        assert!(left(4), "a macvlan's siblings are software");
        assert!(left(10), "a bridge with a veth among its ports");
        assert!(left(7), "a VLAN on that bridge");
        assert!(!left(11), "a bond of cards");
    }

    #[test]
    fn a_bridge_of_cards_alone_completes_every_sum() {
        let links = [
            link(10, "bridge"),
            port_of(10, card(2, "pci")),
            port_of(10, on(3, link(4, "vlan"))),
            card(3, "pci"),
        ];
        assert!(!may_be_left_out(10, &links));
    }

    #[test]
    fn what_stands_on_another_namespaces_device_may_be_anything() {
        let moved = Link {
            lower_elsewhere: true,
            ..on(2, link(3, "vlan"))
        };
        assert!(may_be_left_out(3, &[card(2, "pci"), moved]));
    }

    #[test]
    fn devices_that_name_each_other_end_somewhere() {
        let links = [on(3, link(2, "vlan")), on(2, link(3, "vlan"))];
        assert!(may_be_left_out(2, &links));
    }
}
