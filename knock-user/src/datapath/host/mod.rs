//! What the kernel program must know of this host: its addresses, and, to answer as one of its closed ports would,
//! links and settings of the network namespace.

mod bridged;
mod checksums;
mod reply_settings;

pub use bridged::is_any as is_bridged;

use std::{collections::BTreeMap, fs, io, net::IpAddr};

use knock_common::{
    keys::ScopedAddress,
    reject::{Link as LinkRow, LinkKey, ReplySettings, address_kind},
};

use super::{
    compile::{address_key, rejects},
    tables::{MOST_ADDRESSES, MOST_BONDED, MOST_LINKS},
};
use crate::{
    config::Config,
    sys::{
        links::{self, Address, Link},
        routes::{self, LocalRoute},
    },
};

/// Addresses, links and reply settings of this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostState {
    /// How its closed ports reply; read only where some gate rejects.
    pub reply_settings: Option<ReplySettings>,
    /// By interface and VLAN ids, outer first; read only where some gate rejects.
    pub links: BTreeMap<(u32, [u16; 2]), LinkRow>,
    /// The kind of each address, one of [`address_kind`].
    pub addresses: BTreeMap<IpAddr, u32>,
    /// A guarded interface forwards packets by their MAC addresses, as a bridge's port or below a macvlan, so that
    /// other hosts' addresses are behind it.
    pub bridged: bool,
    /// Whole networks are routed to this host, so that it has addresses which are not among `addresses`.
    pub has_networks: bool,
    /// The guarded bond that an interface is in, both by index.
    pub bonds: BTreeMap<u32, u32>,
}

impl HostState {
    /// Reads the state for the interfaces in `guarded`, by index and present name. `secret` makes flow labels
    /// unpredictable.
    pub fn read(config: &Config, guarded: &[(u32, String)], secret: u64) -> io::Result<Self> {
        Self::read_with(config, guarded, secret, &routes::local()?)
    }

    /// As [`HostState::read`], with the routes to this host as they were read before.
    pub fn read_with(
        config: &Config,
        guarded: &[(u32, String)],
        secret: u64,
        routes: &[LocalRoute],
    ) -> io::Result<Self> {
        let vlans = vlans(&fs::read_to_string("/proc/net/vlan/config").unwrap_or_default());
        let all = links::with_addresses()?;
        let is_guarded = |name: &str| {
            // Packets of a VLAN device come by the guarded interface below it.
            guarded.iter().any(|(_, guarded)| guarded == name)
                || vlans.iter().any(|vlan| vlan.name == name)
        };
        let mut addresses = addresses(&all, is_guarded);
        add_routed(&mut addresses, routes, |device| {
            let link = all.iter().find(|link| link.index == device);
            link.is_some_and(|link| is_guarded(&link.name))
        });
        let has_networks = routes.iter().any(is_network);
        let indices: Vec<u32> = guarded.iter().map(|(index, _)| *index).collect();
        let bridged = is_bridged(&indices, &all);
        let bonds = bonds(&indices, &all);
        if !rejects(config) {
            return Ok(Self {
                addresses,
                bridged,
                has_networks,
                bonds,
                ..Self::default()
            });
        }
        let mac_of = |name: &str| all.iter().find(|link| link.name == name)?.mac;
        let mut rows = BTreeMap::new();
        for (index, name) in guarded {
            let index = *index;
            let partial = checksums::may_be_left_out(index, &all);
            for (device, tags) in stacked(name, &vlans) {
                let link = LinkRow {
                    // An interface without a link header has none.
                    mac: mac_of(device).unwrap_or_default(),
                    hop_limit: reply_settings::hop_limit(device),
                    partial: u8::from(partial),
                };
                rows.insert((index, tags), link);
            }
        }
        Ok(Self {
            reply_settings: Some(reply_settings::read(secret)),
            links: rows,
            addresses,
            bridged,
            has_networks,
            bonds,
        })
    }

    /// Returns the rows of the table of links.
    pub fn link_rows(&self) -> impl Iterator<Item = (LinkKey, LinkRow)> {
        let key = |(interface, vlans): &(u32, [u16; 2])| LinkKey {
            interface: *interface,
            vlans: *vlans,
        };
        self.links
            .iter()
            .take(MOST_LINKS)
            .map(move |(of, link)| (key(of), *link))
    }

    /// Returns the rows of the table of bonds.
    pub fn bond_rows(&self) -> impl Iterator<Item = (u32, u32)> {
        let rows = self.bonds.iter().take(MOST_BONDED);
        rows.map(|(interface, bond)| (*interface, *bond))
    }

    /// Returns the rows of the table of addresses. Where these are all that the host has, one says so, or that other hosts' are
    /// behind a guarded interface. Without either, the routes alone decide about an address that is not in the table.
    pub fn address_rows(&self) -> impl Iterator<Item = (ScopedAddress, u32)> {
        let note = if self.bridged {
            ScopedAddress::BRIDGED
        } else {
            ScopedAddress::COMPLETE
        };
        let are_all = self.addresses.len() <= MOST_ADDRESSES && !self.has_networks;
        let note = are_all.then_some((note, address_kind::OWN));
        self.addresses
            .iter()
            .take(MOST_ADDRESSES)
            .map(move |(address, kind)| (address_key(*address), *kind))
            .chain(note)
    }
}

/// Returns the interfaces that are in a guarded bond, each with its bond. All are indices.
pub fn bonds(guarded: &[u32], links: &[Link]) -> BTreeMap<u32, u32> {
    let is_bond = |index: u32| {
        let link = links.iter().find(|link| link.index == index);
        link.is_some_and(|link| link.kind.as_deref() == Some("bond"))
    };
    let of = |link: &Link| {
        let master = link.master?;
        (guarded.contains(&master) && is_bond(master)).then_some((link.index, master))
    };
    links.iter().filter_map(of).collect()
}

/// A VLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Vlan {
    name: String,
    id: u16,
    on: String,
}

/// Reads `/proc/net/vlan/config`, which is not there where no VLAN has been made.
fn vlans(text: &str) -> Vec<Vlan> {
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim);
        let (name, id, on) = (cells.next()?, cells.next()?, cells.next()?);
        Some(Vlan {
            name: name.to_owned(),
            id: id.parse().ok()?,
            on: on.to_owned(),
        })
    };
    text.lines().filter_map(row).collect()
}

/// An interface and the devices of up to two tags on it, with these tags, outer first.
fn stacked<'v>(name: &'v str, vlans: &'v [Vlan]) -> Vec<(&'v str, [u16; 2])> {
    let mut devices = vec![(name, [0, 0])];
    for outer in vlans.iter().filter(|vlan| vlan.on == name) {
        devices.push((outer.name.as_str(), [outer.id, 0]));
        for inner in vlans.iter().filter(|vlan| vlan.on == outer.name) {
            devices.push((inner.name.as_str(), [outer.id, inner.id]));
        }
    }
    devices
}

/// Returns the host's own addresses and the broadcast addresses of its networks, each with its [`address_kind`]. An address
/// that is valid on one link alone counts only where that link `is_guarded`.
fn addresses(links: &[Link], is_guarded: impl Fn(&str) -> bool) -> BTreeMap<IpAddr, u32> {
    let mut addresses = BTreeMap::new();
    for link in links {
        for address in &link.addresses {
            let is_elsewhere = is_link_local(address.ip) && !is_guarded(&link.name);
            if address.ip.is_loopback() || is_elsewhere {
                continue;
            }
            addresses.insert(address.ip, address_kind::OWN);
            // The last address of a network reaches all its hosts, whether or not it is configured as broadcast.
            let configured = address.broadcast.map(IpAddr::from);
            for broadcast in last(address).into_iter().chain(configured) {
                addresses
                    .entry(broadcast)
                    .or_insert(address_kind::BROADCAST);
            }
        }
    }
    addresses
}

/// Adds the addresses that only routes make this host's own, and anycast addresses, of which interfaces are not said to have
/// any. `is_guarded`: of an interface's index.
fn add_routed(
    addresses: &mut BTreeMap<IpAddr, u32>,
    routes: &[LocalRoute],
    is_guarded: impl Fn(u32) -> bool,
) {
    for route in routes.iter().filter(|route| route.is_single()) {
        let ip = route.destination;
        let is_elsewhere = is_link_local(ip) && !route.device.is_some_and(&is_guarded);
        if !ip.is_loopback() && !is_elsewhere {
            // As at a broadcast address, a closed port does not answer with a reset.
            let kind = if route.is_anycast {
                address_kind::BROADCAST
            } else {
                address_kind::OWN
            };
            addresses.entry(ip).or_insert(kind);
        }
    }
}

/// Returns whether a route makes more addresses this host's own than the table can list.
fn is_network(route: &LocalRoute) -> bool {
    // Part of 127.0.0.0/8, which the program guards without the table.
    let is_loopback = route.destination.is_loopback() && route.prefix >= 8;
    !route.is_single() && !is_loopback
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Returns the last address of an IPv4 network that has more than two.
fn last(address: &Address) -> Option<IpAddr> {
    let IpAddr::V4(ip) = address.ip else {
        return None;
    };
    let hosts = u32::MAX.checked_shr(address.prefix.into()).unwrap_or(0);
    (hosts > 1).then(|| IpAddr::V4((ip.to_bits() | hosts).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_of_a_network_reaches_all_its_hosts() {
        let last_of = |ip: &str, prefix| {
            last(&Address {
                ip: ip.parse().expect("an address"),
                prefix,
                broadcast: None,
                is_temporary: false,
            })
            .map(|ip| ip.to_string())
        };
        assert_eq!(last_of("192.0.2.7", 24).as_deref(), Some("192.0.2.255"));
        assert_eq!(last_of("192.0.2.5", 30).as_deref(), Some("192.0.2.7"));
        assert_eq!(last_of("192.0.2.7", 31), None);
        assert_eq!(last_of("192.0.2.7", 32), None);
        assert_eq!(last_of("2001:db8::7", 64), None);
    }

    #[test]
    fn a_note_says_whether_an_unknown_address_is_anothers() {
        let state = |count: u32, bridged| HostState {
            addresses: (0..count)
                .map(|number| (IpAddr::V4(number.into()), address_kind::OWN))
                .collect(),
            bridged,
            ..HostState::default()
        };
        let notes = |state: &HostState| {
            let keys = state.address_rows().map(|(key, _)| key);
            keys.filter(|key| key.address().is_none())
                .collect::<Vec<_>>()
        };
        let most = u32::try_from(MOST_ADDRESSES).expect("few");
        assert_eq!(notes(&state(most, false)), [ScopedAddress::COMPLETE]);
        assert_eq!(notes(&state(most, true)), [ScopedAddress::BRIDGED]);
        // Those for which there is no room are guarded by the routes alone, so nothing is to be taken for another host's.
        for bridged in [false, true] {
            assert_eq!(notes(&state(most + 1, bridged)), []);
            let with_networks = HostState {
                has_networks: true,
                ..state(most, bridged)
            };
            assert_eq!(notes(&with_networks), []);
        }
    }

    fn route(network: &str) -> LocalRoute {
        let (destination, prefix) = network.split_once('/').expect("a network");
        LocalRoute {
            destination: destination.parse().expect("an address"),
            prefix: prefix.parse().expect("a number"),
            device: Some(1),
            is_anycast: false,
        }
    }

    #[test]
    fn a_network_of_this_host_is_more_than_the_table_lists() {
        let networks = |all: &[&str]| all.iter().filter(|of| is_network(&route(of))).count();
        let own = [
            "127.0.0.0/8",
            "127.0.0.1/32",
            "192.0.2.7/32",
            "::1/128",
            "2001:db8::7/128",
        ];
        assert_eq!(networks(&own), 0);
        let whole = [
            "203.0.113.0/24",
            "192.0.2.6/31",
            "0.0.0.0/0",
            "2001:db8::/127",
            "::/0",
        ];
        assert_eq!(networks(&whole), whole.len());
    }

    #[test]
    fn addresses_that_only_routes_make_own_are_known() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let by = |device, network| LocalRoute {
            device: Some(device),
            ..route(network)
        };
        let anycast = |network| LocalRoute {
            is_anycast: true,
            ..route(network)
        };
        let routes = [
            route("192.0.2.7/32"),
            route("127.0.0.1/32"),
            route("203.0.113.0/24"),
            anycast("2001:db8::/128"),
            anycast("2001:db8::1/128"),
            by(2, "fe80::2/128"),
            by(3, "fe80::3/128"),
        ];
        let mut addresses = BTreeMap::from([(ip("2001:db8::1"), address_kind::OWN)]);
        add_routed(&mut addresses, &routes, |device| device == 2);
        let (own, shared) = (address_kind::OWN, address_kind::BROADCAST);
        let expected = [
            (ip("192.0.2.7"), own),
            (ip("2001:db8::"), shared),
            (ip("2001:db8::1"), own),
            (ip("fe80::2"), own),
        ];
        assert_eq!(addresses, BTreeMap::from(expected));
    }

    #[test]
    fn only_guarded_bonds_count() {
        let link = |index, kind: Option<&str>, master| Link {
            index,
            kind: kind.map(Into::into),
            master,
            ..Link::default()
        };
        let links = [
            link(1, Some("bond"), None),
            link(2, Some("bond"), None),
            link(3, Some("bridge"), None),
            link(4, None, Some(1)),
            link(5, Some("veth"), Some(1)),
            link(6, None, Some(2)),
            link(7, None, Some(3)),
        ];
        assert_eq!(bonds(&[1, 3, 6], &links), BTreeMap::from([(4, 1), (5, 1)]));
    }

    #[test]
    fn vlans_are_known_with_what_they_stand_on() {
        let text = "VLAN Dev name    | VLAN ID\n\
                    Name-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                    eth0.7         | 7  | eth0\n\
                    inner          | 9  | eth0.7\n\
                    eth1.7         | 7  | eth1\n";
        let vlans = vlans(text);
        assert_eq!(
            stacked("eth0", &vlans),
            [("eth0", [0, 0]), ("eth0.7", [7, 0]), ("inner", [7, 9])]
        );
    }
}
