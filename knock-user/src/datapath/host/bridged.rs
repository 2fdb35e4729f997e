//! Whether packets of an interface reach other hosts without being forwarded by IP.

use crate::sys::links::{Link, SHARING, is_above};

/// Returns whether any of these interfaces takes packets for other MAC addresses than its own: as a bridge's port, below a
/// macvlan, also one on a VLAN, or because it is promiscuous for another reason.
///
/// A macvlan in another network namespace is not seen from this one.
pub fn is_any(indices: &[u32], devices: &[Link]) -> bool {
    devices.iter().any(|device| {
        let takes_all = device.promiscuity != 0 && indices.contains(&device.index);
        let kind = device.kind.as_deref().unwrap_or_default();
        takes_all || (SHARING.contains(&kind) && is_above(device.index, indices, devices))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_bridges_and_what_macvlans_stand_on_are_bridged() {
        let device = |index, promiscuity, kind: &str, lower| Link {
            index,
            promiscuity,
            kind: Some(kind.to_owned()),
            lower,
            ..Link::default()
        };
        let devices = [
            device(1, 0, "", None),
            device(2, 1, "veth", Some(9)),
            device(3, 0, "", None),
            device(4, 0, "macvlan", Some(3)),
            device(5, 0, "vlan", Some(1)),
            device(6, 0, "", None),
            device(7, 0, "vlan", Some(6)),
            device(8, 0, "vlan", Some(7)),
            device(9, 0, "ipvlan", Some(8)),
        ];
        assert!(!is_any(&[1], &devices));
        assert!(is_any(&[1, 2], &devices));
        assert!(is_any(&[3], &devices));
        assert!(is_any(&[6], &devices), "a VLAN's in a VLAN");
        assert!(!is_any(&[9], &devices), "nothing shares it");
        let moved = devices.map(|device| Link {
            lower_elsewhere: device.index == 7,
            ..device
        });
        assert!(!is_any(&[6], &moved), "it is another interface's VLAN");
    }
}
