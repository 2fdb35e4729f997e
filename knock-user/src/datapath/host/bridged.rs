//! Whether packets of an interface reach other hosts without being forwarded by IP.

use crate::sys::links::Link;

/// Kinds of devices that share a lower device under MAC addresses of their own.
const SHARING: [&str; 4] = ["macvlan", "macvtap", "ipvlan", "ipvtap"];

/// Returns whether any of these interfaces takes packets for other MAC addresses than its own: as a bridge's port, below a
/// macvlan, or because it is promiscuous for another reason.
///
/// A macvlan in another network namespace is not seen from this one.
pub fn is_any(indices: &[u32], devices: &[Link]) -> bool {
    devices.iter().any(|device| {
        let takes_all = device.promiscuity != 0 && indices.contains(&device.index);
        let kind = device.kind.as_deref().unwrap_or_default();
        let below = device.lower.filter(|_| !device.lower_elsewhere);
        let shares = SHARING.contains(&kind) && below.is_some_and(|index| indices.contains(&index));
        takes_all || shares
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
        ];
        assert!(!is_any(&[1], &devices));
        assert!(is_any(&[1, 2], &devices));
        assert!(is_any(&[3], &devices));
    }
}
