//! Faults in user space: what is read from the host, and findings about the configuration.

use super::Fault;

const TIME: &str = "knock-common/src/time.rs";
const SOCK_DIAG: &str = "knock-user/src/sys/sock_diag.rs";
const LINT: &str = "knock-user/src/config/lint/mod.rs";
const NETWORK: &str = "knock-user/src/config/lint/network.rs";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "a flow whose last packet came by a CPU with a later clock is taken for an old one",
        file: TIME,
        find: "if time.cast_signed() < 0 { 0 } else { time }",
        replace: "time",
    },
    Fault {
        what: "the age of a flow ends at the boot",
        file: TIME,
        find: "now.wrapping_sub(then).cast_signed()",
        replace: "now.saturating_sub(then).cast_signed()",
    },
    Fault {
        what: "a flow whose last packet came by a CPU with a later clock is over",
        file: TIME,
        find: "now.wrapping_sub(then).cast_signed() < limit.cast_signed()",
        replace: "now.wrapping_sub(then) < limit",
    },
    Fault {
        what: "a port that only this host can reach counts as open",
        file: SOCK_DIAG,
        find: "!self.local.ip().is_loopback() && ",
        replace: "",
    },
    Fault {
        what: "a port on the loopback device alone counts as open",
        file: SOCK_DIAG,
        find: " && self.interface != LOOPBACK",
        replace: "",
    },
    Fault {
        what: "there is no warning of an allow list whose networks together contain everyone",
        file: LINT,
        find: "for everyone in IpNet::aggregate(&networks) {",
        replace: "for everyone in networks {",
    },
    Fault {
        what: "there is no warning of a protected UDP port from which the host may send",
        file: LINT,
        find: "port.protocol == Protocol::Udp && sockets",
        replace: "port.protocol == Protocol::Tcp && sockets",
    },
    Fault {
        what: "there is no warning of VXLAN tunnels",
        file: NETWORK,
        find: "    \"vxlan\",\n",
        replace: "",
    },
    Fault {
        what: "there is no warning of temporary addresses that are not guarded",
        file: NETWORK,
        find: "} else if address.is_temporary {",
        replace: "} else if false {",
    },
    Fault {
        what: "a bridge's ports count as the bridge",
        file: "knock-user/src/datapath/host/mod.rs",
        find: "link.is_some_and(|link| link.kind.as_deref() == Some(\"bond\"))",
        replace: "link.is_some()",
    },
    Fault {
        what: "interfaces in bonds that are not guarded count as these",
        file: "knock-user/src/datapath/host/mod.rs",
        find: "(guarded.contains(&master) && is_bond(master))",
        replace: "is_bond(master)",
    },
];
