//! Whether a published port is guarded, and what is to be done where it is not.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Concerned, Family, Ports, Rule, host::Host, shown};
use crate::{
    config::{Addresses, Config, Gate},
    datapath::Destinations,
    values::Port,
};

/// IPv4's loopback network. A rule that takes packets there, or to any address, takes also those that a host on the same link
/// sends: the kernel refuses such destinations (as martians) only after the rules have changed them.
const LOOPBACK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));

/// Every destination, by family.
const EVERYWHERE: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// Who can send to a loopback address of this host.
const NEIGHBOURS: &str =
    "to hosts on the same link, which can send to 127.0.0.1 by this host's MAC address";

/// A configuration on this host.
struct Guard<'g> {
    config: &'g Config,
    destinations: &'g Destinations,
    host: &'g Host,
}

impl Rule {
    /// Returns what the gates of `config` mean for the ports of this rule. `destinations`: what it guards.
    pub(super) fn concerned(
        &self,
        config: &Config,
        destinations: &Destinations,
        host: &Host,
    ) -> Vec<Concerned> {
        let guard = Guard {
            config,
            destinations,
            host,
        };
        let gates = || {
            let gates = config.gates.iter();
            gates.flat_map(|gate| gate.protect.iter().map(move |port| (gate, *port)))
        };
        let among = |port: Port, ports: Ports| {
            port.protocol == self.protocol && ports.range().contains(&port.number)
        };
        let mut found = Vec::new();
        for (gate, port) in gates().filter(|(_, port)| among(*port, self.ports)) {
            let advice = self.left_open(gate, &guard);
            found.push(self.row(&gate.name, Ports::one(port.number), advice));
        }
        // Where each port stays as it is, a gate for one protects that one.
        let Some(to) = self.to_ports.filter(|to| *to != self.ports) else {
            return found;
        };
        let behind = gates().find(|(_, port)| among(*port, to));
        let whole = found.len() > usize::from(self.ports.last - self.ports.first);
        if let Some((gate, port)) = behind.filter(|_| !whole) {
            let every = if self.ports.first == self.ports.last {
                ""
            } else {
                "each port of "
            };
            let ports = format!("{every}{}", self.text(self.ports));
            let remedy = match self.left_open(gate, &guard) {
                None => format!("list {ports} under `protect`"),
                // To list it at this gate would close it elsewhere alone.
                Some(_) if gate.is_placed() => {
                    format!("protect {ports} by another gate, without `protect_at`")
                }
                Some(still) => format!("list {ports} under `protect`, which then {still}"),
            };
            let advice = format!(
                "{}, though gate {:?} protects {port}: packets are judged before they are forwarded, so {remedy}",
                self.stays_open(),
                gate.name,
            );
            found.push(self.row(&gate.name, self.ports, Some(advice)));
        }
        found
    }

    /// Begins the advice: to whom the port stays open.
    fn stays_open(&self) -> String {
        let is_loopback = |address: IpNet| address.addr().is_loopback();
        if self.address.is_some_and(is_loopback) {
            format!("stays open {NEIGHBOURS}")
        } else {
            "stays open".to_owned()
        }
    }

    /// Returns why the port is not guarded though this gate protects it.
    fn left_open(&self, gate: &Gate, guard: &Guard<'_>) -> Option<String> {
        let which = if gate.is_placed() {
            format!("`protect_at` of gate {:?}", gate.name)
        } else {
            "`addresses`".to_owned()
        };
        let does = if gate.is_placed() { "cover" } else { "list" };
        let is_listed = gate.is_placed() || matches!(guard.config.addresses, Addresses::Listed(_));
        let is_open = |network: &IpNet| !guard.covers(gate, *network);
        if let Some(address) = self.address {
            let why = if is_listed {
                format!("{which} does not {does} {}", shown(address))
            } else {
                format!(
                    "{} is not one of this host's own addresses, and `addresses` is \"host\"",
                    shown(address)
                )
            };
            // What is not here now is guarded from the moment when it is, and the rule takes nothing until then.
            let follows = self.to_host && !is_listed && guard.config.addresses == Addresses::Host;
            let open = is_open(&address) && !follows;
            return open.then(|| format!("{}: {why}", self.stays_open()));
        }
        let concerns = |network: &IpNet| {
            let family = Family::of(network.addr());
            self.family.is_none_or(|of| of == family)
        };
        if is_listed {
            let own = guard.host.own.as_ref();
            let all_covered = own.is_some_and(|own| {
                let mut own = own.iter().filter(|network| concerns(network));
                !own.any(is_open)
            });
            if !all_covered && EVERYWHERE.iter().filter(|all| concerns(all)).any(is_open) {
                return Some(format!(
                    "stays open at each address of this host that {which} does not {does}"
                ));
            }
            if concerns(&LOOPBACK) && is_open(&LOOPBACK) {
                let other = if gate.is_placed() {
                    ""
                } else {
                    ", which `addresses = \"host\"` guards"
                };
                return Some(format!(
                    "stays open {NEIGHBOURS}: {which} does not {does} {LOOPBACK}{other}"
                ));
            }
        }
        let others = || EVERYWHERE.iter().filter(|all| concerns(all)).any(is_open);
        (!self.to_host && others()).then(|| {
            "stays open to packets for other hosts, which the firewall's rule takes as well: restrict the rule to this \
             host's own addresses (`fib daddr type local`, `--dst-type LOCAL`)"
                .to_owned()
        })
    }
}

impl Guard<'_> {
    /// Returns whether packets to each address of a network are guarded at the ports of a gate.
    fn covers(&self, gate: &Gate, network: IpNet) -> bool {
        if gate.is_placed() {
            return gate.protect_at.iter().any(|at| at.contains(&network));
        }
        let is_known = || {
            let mut known = self.destinations.addresses.iter();
            known.any(|row| IpNet::from(row.address) == network)
        };
        match self.config.addresses {
            Addresses::Every => true,
            Addresses::Listed(_) => is_known(),
            Addresses::Host => {
                let own = self.host.own.iter().flatten();
                let mut own = own.chain([&LOOPBACK]);
                let ends = self.host.ends_others.contains(&Family::of(network.addr()));
                ends || is_known() || own.any(|own| own.contains(&network))
            }
        }
    }
}
