//! Ports of this host that its firewall sends on to containers or other hosts, and what the gates mean for them.
//!
//! The program judges a packet before the firewall changes its destination, so it is the published port that a gate has to
//! protect, and not the port of the container behind it.

mod iptables;
mod nft;
mod read;

use std::{fmt, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    config::{Addresses, Config, Gate, count},
    datapath::Destinations,
    sys::links::{self, Link, is_above},
    values::{Port, Protocol},
};

use read::{Rules, read};

/// A rule that sends packets to a port of this host on to another destination (DNAT).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    pub protocol: Protocol,
    pub ports: Ports,
    /// The destinations that it is for; `None`: all.
    pub address: Option<IpNet>,
    /// The interface by which packets must come; `None`: any, or any but some.
    pub interface: Option<String>,
    /// The new destination; `None`: it stays.
    pub to: Option<IpAddr>,
    /// The new port; `None`: it stays.
    pub to_ports: Option<Ports>,
}

/// Ports from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ports {
    pub first: u16,
    pub last: u16,
}

impl Ports {
    const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    const fn range(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

/// The published ports of this host, as far as the gates of a configuration concern them.
#[derive(Debug, Default, Serialize)]
pub struct Published {
    /// `None`: the rules could not be read.
    #[serde(rename = "published")]
    pub rows: Option<Vec<Concerned>>,
    /// What was not read, in a sentence.
    #[serde(skip)]
    pub unread: Option<String>,
}

/// What is known of the firewall's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Found {
    pub published: Vec<Rule>,
    /// Rules that change destinations in a way that is not understood.
    pub not_understood: usize,
}

/// A published port that a gate's ports concern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Concerned {
    /// Such as `8080/tcp`, or a range `8080-8089/tcp`.
    pub port: String,
    /// The destinations that it is published at; `None`: all of this host's.
    pub address: Option<IpNet>,
    /// Where its packets are sent, such as `172.17.0.2:80`.
    pub to: String,
    /// The gate that protects the port itself, or else the port that it is sent to.
    pub gate: String,
    pub guarded: bool,
    /// What is to be done where it is not guarded.
    #[serde(skip)]
    advice: Option<String>,
}

impl fmt::Display for Concerned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            port,
            address,
            to,
            gate,
            guarded: _,
            advice,
        } = self;
        write!(f, "{port}")?;
        if let Some(address) = address {
            write!(f, " of {}", shown(*address))?;
        }
        write!(f, ", which is sent on to {to}, ")?;
        match advice {
            None => write!(f, "is guarded by gate {gate:?}"),
            Some(advice) => write!(f, "{advice}"),
        }
    }
}

fn shown(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

impl Published {
    /// Reads the firewall's rules for the gates of `config`. `destinations`: what it guards.
    pub fn by(config: &Config, destinations: &Destinations) -> Self {
        let Rules {
            found,
            answered,
            failed,
        } = read();
        let unread = match (failed, found.not_understood) {
            (Some(why), _) => Some(format!(
                "the firewall's rules, and the ports that they publish, could not all be read: {why}"
            )),
            (None, 0) => None,
            (None, rules) => Some(format!(
                "not looked at: {} of the firewall with maps, named sets or the like",
                count(rules, "rule")
            )),
        };
        Self {
            rows: answered.then(|| {
                // Without an answer, only rules for the guarded interfaces themselves count.
                let links = links::all().unwrap_or_default();
                concerned(config, destinations, &found.published, &links)
            }),
            unread,
        }
    }

    /// Returns the ports that stay open.
    pub fn open(&self) -> impl Iterator<Item = &Concerned> {
        self.rows.iter().flatten().filter(|row| !row.guarded)
    }

    /// Returns the ports that are guarded.
    pub fn guarded(&self) -> impl Iterator<Item = &Concerned> {
        self.rows.iter().flatten().filter(|row| row.guarded)
    }
}

/// Returns the published ports that the gates of `config` concern, and which of them would be guarded. `destinations`: what
/// it guards. `links`: the interfaces of this host.
fn concerned(
    config: &Config,
    destinations: &Destinations,
    published: &[Rule],
    links: &[Link],
) -> Vec<Concerned> {
    let mut found: Vec<Concerned> = Vec::new();
    let is_reachable = |rule: &&Rule| rule.is_reachable(config, links);
    for rule in published.iter().filter(is_reachable) {
        found.extend(rule.concerned(config, destinations));
    }
    found.dedup();
    found
}

impl Rule {
    /// Returns whether packets that come by a guarded interface may meet the rule, also because they are handed to a device above it.
    fn is_reachable(&self, config: &Config, links: &[Link]) -> bool {
        let names = &config.interfaces;
        let is_above_one = |name: &String| {
            let guarded = links.iter().filter(|link| names.contains(&link.name));
            let guarded: Vec<u32> = guarded.map(|link| link.index).collect();
            let device = links.iter().find(|link| link.name == *name);
            device.is_some_and(|device| is_above(device.index, &guarded, links))
        };
        let by_another = |name| !names.is_empty() && !names.contains(name) && !is_above_one(name);
        !self.interface.as_ref().is_some_and(by_another)
            && !self
                .address
                .is_some_and(|address| address.addr().is_loopback())
    }

    fn concerned(&self, config: &Config, destinations: &Destinations) -> Vec<Concerned> {
        let gates = || {
            let gates = config.gates.iter();
            gates.flat_map(|gate| gate.protect.iter().map(move |port| (gate, *port)))
        };
        let among = |port: Port, ports: Ports| {
            port.protocol == self.protocol && ports.range().contains(&port.number)
        };
        let mut found = Vec::new();
        for (gate, port) in gates().filter(|(_, port)| among(*port, self.ports)) {
            let advice = self.left_open(gate, config, destinations);
            found.push(self.row(&gate.name, Ports::one(port.number), advice));
        }
        let Some(to) = self.to_ports else {
            return found;
        };
        let behind = gates().find(|(_, port)| among(*port, to));
        let whole = found.len() > usize::from(self.ports.last - self.ports.first);
        if let Some((gate, port)) = behind.filter(|_| !whole) {
            let advice = format!(
                "stays open, though gate {:?} protects {port}: packets are judged before they are sent on, so list \
                 {} under `protect`",
                gate.name,
                self.text(self.ports)
            );
            found.push(self.row(&gate.name, self.ports, Some(advice)));
        }
        found
    }

    /// Returns why the port is not guarded though this gate protects it.
    fn left_open(
        &self,
        gate: &Gate,
        config: &Config,
        destinations: &Destinations,
    ) -> Option<String> {
        if gate.is_placed() {
            return match self.address {
                Some(address) => {
                    let covers = |network: &IpNet| network.contains(&address);
                    let is_guarded = gate.protect_at.iter().any(covers);
                    (!is_guarded).then(|| {
                        format!(
                            "stays open: `protect_at` of gate {:?} does not cover {}",
                            gate.name,
                            shown(address)
                        )
                    })
                }
                None => Some(format!(
                    "stays open at each address of this host that `protect_at` of gate {:?} does not cover",
                    gate.name
                )),
            };
        }
        let is_guarded = |network: IpNet| {
            let known = destinations.addresses.iter();
            network.prefix_len() == network.max_prefix_len()
                && known.map(|row| row.address).any(|ip| ip == network.addr())
        };
        match (&config.addresses, self.address) {
            (Addresses::Every, _) | (Addresses::Host, None) => None,
            (_, Some(address)) if is_guarded(address) => None,
            (Addresses::Host, Some(address)) => Some(format!(
                "stays open: {} is not an address of this host's own, and `addresses` is \"host\"",
                shown(address)
            )),
            (Addresses::Listed(_), None) => Some(
                "stays open at each address of this host that `addresses` does not list".to_owned(),
            ),
            (Addresses::Listed(_), Some(address)) => Some(format!(
                "stays open: `addresses` does not list {}",
                shown(address)
            )),
        }
    }

    fn row(&self, gate: &str, ports: Ports, advice: Option<String>) -> Concerned {
        Concerned {
            port: self.text(ports),
            address: self.address,
            to: self.destination(),
            gate: gate.to_owned(),
            guarded: advice.is_none(),
            advice,
        }
    }

    /// Returns ports of this rule as they are written in messages.
    fn text(&self, ports: Ports) -> String {
        format!("{}/{}", numbers(ports), self.protocol)
    }

    fn destination(&self) -> String {
        let ports = self.to_ports.map(numbers);
        match (self.to, ports) {
            (Some(ip), None) => ip.to_string(),
            (Some(IpAddr::V4(ip)), Some(ports)) => format!("{ip}:{ports}"),
            (Some(IpAddr::V6(ip)), Some(ports)) => format!("[{ip}]:{ports}"),
            (None, ports) => format!("port {} of this host", ports.unwrap_or_default()),
        }
    }
}

fn numbers(ports: Ports) -> String {
    let Ports { first, last } = ports;
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

#[cfg(test)]
mod tests;
