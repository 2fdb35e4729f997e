//! Links of other kinds than the veth pair of a lab, put on top of it. Not every kernel has them; `cargo xtask kernels` boots
//! one that does.

use crate::{
    lab::{BELOW, CLIENT_INTERFACE, Lab, WAN},
    network::ip,
    run::{run, wait_until},
};

/// A kind of link: what it is, and the `ip` commands that make it at the host and at the clients (see [`Lab::put_on_top`]).
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub what: &'static str,
    pub commands: [Option<&'static str>; 2],
}

pub const VLAN: Kind = Kind {
    what: "VLAN devices",
    commands: [Some(
        "link set below up\nlink add link below name {name} address {mac} type vlan id 7",
    ); 2],
};

/// A bridge at the host.
pub const BRIDGE: Kind = Kind {
    what: "bridges",
    commands: [
        Some("link add {name} address {mac} type bridge\nlink set below master {name} up"),
        None,
    ],
};

/// A macvlan at the host.
pub const MACVLAN: Kind = Kind {
    what: "macvlans",
    commands: [
        Some(
            "link set below up\nlink add link below name {name} address {mac} type macvlan mode private",
        ),
        None,
    ],
};

/// The same interface, in a VRF, whose routes are in a table of their own.
pub const VRF: Kind = Kind {
    what: "VRFs",
    commands: [
        Some(
            "link add apart type vrf table 10\nlink set apart up\nlink set below name {name} address {mac}\n\
             link set {name} master apart",
        ),
        None,
    ],
};

/// An ipvlan at the host, which has the MAC address of what it stands on.
pub const IPVLAN: Kind = Kind {
    what: "ipvlans",
    commands: [
        Some(
            "link set below address {mac} up\nlink add link below name {name} type ipvlan mode l2",
        ),
        None,
    ],
};

/// A bond of two pairs, of which one carries the packets.
const BOND: Kind = Kind {
    what: "bonds",
    commands: [Some(
        "link add {name} address {mac} type bond mode active-backup miimon 20\nlink set below master {name}",
    ); 2],
};
/// The second interface of the host's bond.
pub const SECOND: &str = "second";

/// Makes a [`Kind`]. Returns whether the kernel has it.
pub fn make(lab: &Lab, kind: &Kind) -> bool {
    lab.put_on_top(kind.what, kind.commands)
}

/// Makes bonds of [`BELOW`] and [`SECOND`] at both ends. Returns whether the kernel has bonds.
pub fn bond(lab: &Lab) -> bool {
    if !make(lab, &BOND) {
        return false;
    }
    lab.add_interface(SECOND);
    join_bond(lab, SECOND);
    true
}

/// Adds an interface of [`Lab::add_interface`] to the bonds.
pub fn join_bond(lab: &Lab, interface: &str) {
    let ends = [
        (&lab.host, interface.to_owned(), WAN),
        (&lab.client, peer(interface), CLIENT_INTERFACE),
    ];
    for (netns, interface, bond) in ends {
        ip(
            netns,
            &format!("link set {interface} down\nlink set {interface} master {bond}"),
        );
    }
}

/// Sets the interface of the host's bond that carries the packets down, and another one up. Waits until that one carries them
/// at both ends.
pub fn fail_over(lab: &Lab, from: &str, to: &str) {
    ip(
        &lab.host,
        &format!("link set {to} up\nlink set {from} down"),
    );
    let far = if to == BELOW { to.to_owned() } else { peer(to) };
    for (netns, bond, carrier) in [
        (&lab.host, WAN, to),
        (&lab.client, CLIENT_INTERFACE, far.as_str()),
    ] {
        wait_until("another interface of the bond carries the packets", || {
            let shown = run(netns
                .command("ip")
                .args(["-details", "link", "show", "dev", bond]));
            let shown = &shown.exits(0).stdout;
            shown.contains(&format!(" active_slave {carrier} "))
        });
    }
}

fn peer(interface: &str) -> String {
    format!("{interface}-peer")
}
