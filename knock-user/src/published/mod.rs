//! Ports of this host that its firewall forwards to containers or other hosts, and what the gates mean for them.
//!
//! The program judges a packet before the firewall changes its destination, so it is the published port that a gate has to
//! protect, and not the port of the container behind it.

mod chains;
mod host;
mod iptables;
mod nft;
mod read;
mod verdict;

use std::{fmt, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use serde::Serialize;

use crate::{config::Config, datapath::Destinations, sys::links::is_above, values::Protocol};

use chains::Demand;
use host::{Host, guarded};
use read::{Rules, read};

/// The version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// A rule that gives packets to a port of this host another destination (DNAT).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    /// `None`: both.
    pub family: Option<Family>,
    pub protocol: Protocol,
    pub ports: Ports,
    /// The destinations that it is for; `None`: all.
    pub address: Option<IpNet>,
    /// It is for destinations of this host's own alone, also as far as is known.
    pub to_host: bool,
    /// The interface by which packets must come; `None`: any, or any but some.
    pub interface: Option<String>,
    /// The new destination; `None`: it stays.
    pub to: Option<IpAddr>,
    /// The new port; `None`: it stays.
    pub to_ports: Option<Ports>,
}

/// What rules for several ports, protocols and destinations have in common; the fields are those of [`Rule`].
struct Common {
    family: Option<Family>,
    interface: Option<String>,
    to: Option<IpAddr>,
    to_ports: Option<Ports>,
}

impl Common {
    /// Returns a rule for each of these ports, protocols and destinations.
    fn rules(&self, ports: &[Ports], protocols: &[Protocol], demands: &[Demand]) -> Vec<Rule> {
        let mut rules = Vec::new();
        for &ports in ports {
            for &protocol in protocols {
                rules.extend(demands.iter().map(|&Demand { address, to_host }| Rule {
                    family: self.family,
                    protocol,
                    ports,
                    address,
                    to_host,
                    interface: self.interface.clone(),
                    to: self.to,
                    to_ports: self.to_ports,
                }));
            }
        }
        rules
    }
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
    /// Rules that change destinations in a way that is not understood: their ports are not among the rows.
    pub unexamined_rules: usize,
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
    /// Where its packets are forwarded, such as `172.17.0.2:80`.
    pub to: String,
    /// The gate that protects the port itself, or else the port that it is forwarded to.
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
            write!(f, " at {}", shown(*address))?;
        }
        write!(f, ", forwarded to {to}, ")?;
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
            (None, rules) => not_examined(rules),
        };
        Self {
            rows: answered
                .then(|| concerned(config, destinations, &found.published, &Host::of(config))),
            unexamined_rules: found.not_understood,
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

/// Says how many rules are not understood, if some are.
fn not_examined(rules: usize) -> Option<String> {
    match rules {
        0 => None,
        1 => Some(
            "1 firewall rule was not examined: it names no port, or uses maps, named sets or the like".to_owned(),
        ),
        rules => Some(format!(
            "{rules} firewall rules were not examined: they name no port, or use maps, named sets or the like"
        )),
    }
}

/// Returns the published ports that the gates of `config` concern, and which of them would be guarded. `destinations`: what
/// it guards.
fn concerned(
    config: &Config,
    destinations: &Destinations,
    published: &[Rule],
    host: &Host,
) -> Vec<Concerned> {
    let mut found: Vec<Concerned> = Vec::new();
    let is_reachable = |rule: &&Rule| rule.is_reachable(config, host);
    for rule in published.iter().filter(is_reachable) {
        found.extend(rule.concerned(config, destinations, host));
    }
    found.dedup();
    found
}

impl Rule {
    /// Returns whether packets that come by a guarded interface may meet the rule, also because they are handed to a device above it.
    fn is_reachable(&self, config: &Config, host: &Host) -> bool {
        let (names, links) = (&config.interfaces, &host.links);
        let is_above_one = |name: &String| {
            let device = links.iter().find(|link| link.name == *name);
            device.is_some_and(|device| is_above(device.index, &guarded(config, links), links))
        };
        let by_another = |name| !names.is_empty() && !names.contains(name) && !is_above_one(name);
        // The kernel drops what comes from a wire to ::1 before any rule (`ip6_rcv_core`).
        let address = self.address.map(|network| network.addr());
        let is_local = address.is_some_and(|address| address.is_ipv6() && address.is_loopback());
        !is_local && !self.interface.as_ref().is_some_and(by_another)
    }

    /// Returns the rule for those packets alone that come to its chain; `None`: it matches none of them.
    fn under(&self, demand: Demand) -> Option<Self> {
        let own = Demand {
            address: self.address,
            to_host: self.to_host,
        };
        let Demand { address, to_host } = demand.and(own)?;
        Some(Self {
            address,
            to_host,
            ..self.clone()
        })
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
            (None, Some(ports)) => format!("port {ports} of this host"),
            (None, None) => "the same port of this host".to_owned(),
        }
    }
}

/// Returns a protocol by its name in a rule; `None`: it has no ports that a gate protects.
fn protocol_of(name: &str) -> Option<Protocol> {
    match name {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
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
