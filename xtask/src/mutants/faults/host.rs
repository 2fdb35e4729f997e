//! Faults in what is asked of the host and of the configuration, before anything is loaded and beside the program.

use super::Fault;

const SESSION: &str = "knock-common/src/session.rs";
const SOCK_DIAG: &str = "knock-user/src/sys/sock_diag.rs";
const LINT: &str = "knock-user/src/config/lint/mod.rs";
const NETWORK: &str = "knock-user/src/config/lint/network.rs";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "a flow whose last packet came by a CPU with a later clock is taken for an old one",
        file: SESSION,
        find: "if idle.cast_signed() < 0 { 0 } else { idle }",
        replace: "idle",
    },
    Fault {
        what: "the age of a flow ends at the boot",
        file: SESSION,
        find: "now.wrapping_sub(self.last)",
        replace: "now.saturating_sub(self.last)",
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
        what: "an allow list that holds everyone in parts is not warned of",
        file: LINT,
        find: "for everyone in IpNet::aggregate(&networks) {",
        replace: "for everyone in networks {",
    },
    Fault {
        what: "a guarded UDP port that the host may send from is not warned of",
        file: LINT,
        find: "port.protocol == Protocol::Udp && sockets",
        replace: "port.protocol == Protocol::Tcp && sockets",
    },
    Fault {
        what: "VXLAN is not warned of as a tunnel",
        file: NETWORK,
        find: "    \"vxlan\",\n",
        replace: "",
    },
    Fault {
        what: "temporary addresses that are left open are not warned of",
        file: NETWORK,
        find: "} else if address.is_temporary {",
        replace: "} else if false {",
    },
];
