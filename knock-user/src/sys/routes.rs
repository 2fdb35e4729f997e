//! Routes of this network namespace that lead to this host itself (rtnetlink).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::netlink::{self, attributes, number};

/// Of `linux/rtnetlink.h`.
const RTM_GETROUTE: u16 = 26;

/// Types of routes (`linux/rtnetlink.h`).
mod route_type {
    pub const LOCAL: u8 = 2;
    pub const ANYCAST: u8 = 4;
}

/// Attributes of routes (`linux/rtnetlink.h`).
mod attribute {
    pub const DESTINATION: u16 = 1;
    pub const DEVICE: u16 = 4;
}

/// Of `linux/socket.h`.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A route by which packets are delivered on this host, in whichever table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalRoute {
    /// The first address of the network.
    pub destination: IpAddr,
    /// Bits of its prefix.
    pub prefix: u8,
    /// Index of the interface whose address it is, or of `lo`.
    pub device: Option<u32>,
    /// It leads to several hosts of a network, of which this is one.
    pub is_anycast: bool,
}

impl LocalRoute {
    /// Returns whether the route is for a single address.
    pub const fn is_single(&self) -> bool {
        self.prefix == if self.destination.is_ipv4() { 32 } else { 128 }
    }
}

/// Returns the routes to this host itself. The kernel goes through all its routes, which takes about a tenth of a second for a
/// million.
pub fn local() -> io::Result<Vec<LocalRoute>> {
    // The kernel never delivers a packet by an anycast route of IPv4.
    let mut routes = of_type(AF_INET, route_type::LOCAL)?;
    // Without IPv6 the kernel would take the question for one about every protocol.
    if Path::new("/proc/net/if_inet6").exists() {
        routes.extend(of_type(AF_INET6, route_type::LOCAL)?);
        routes.extend(of_type(AF_INET6, route_type::ANYCAST)?);
    }
    Ok(routes)
}

fn of_type(family: u8, kind: u8) -> io::Result<Vec<LocalRoute>> {
    let mut request = [0; Message::LENGTH];
    request[Message::FAMILY] = family;
    request[Message::TYPE] = kind;
    let mut routes = Vec::new();
    netlink::list_matching(NETLINK_ROUTE, RTM_GETROUTE, &request, |reply| {
        routes.extend(read(reply));
    })?;
    Ok(routes)
}

/// `struct rtmsg`.
struct Message;

impl Message {
    const LENGTH: usize = 12;
    const FAMILY: usize = 0;
    const PREFIX: usize = 1;
    const TYPE: usize = 7;
}

/// Returns `None` for a route that leads elsewhere.
fn read(payload: &[u8]) -> Option<LocalRoute> {
    let is_anycast = match *payload.get(Message::TYPE)? {
        route_type::LOCAL => false,
        route_type::ANYCAST => true,
        _ => return None,
    };
    // A route for every address has no destination.
    let mut destination: IpAddr = match *payload.get(Message::FAMILY)? {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut device = None;
    for (kind, value) in attributes(payload.get(Message::LENGTH..)?) {
        match kind {
            attribute::DESTINATION => destination = netlink::ip(value)?,
            attribute::DEVICE => device = number(value),
            _ => {}
        }
    }
    Some(LocalRoute {
        destination,
        prefix: *payload.get(Message::PREFIX)?,
        device,
        is_anycast,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: u8, prefix: u8, kind: u8, destination: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; Message::LENGTH];
        bytes[Message::FAMILY] = family;
        bytes[Message::PREFIX] = prefix;
        bytes[Message::TYPE] = kind;
        if !destination.is_empty() {
            bytes.extend(netlink::attribute(attribute::DESTINATION, destination));
        }
        bytes.extend(netlink::attribute(attribute::DEVICE, &1_u32.to_ne_bytes()));
        bytes
    }

    #[test]
    fn routes_to_this_host_are_read() {
        let route = |destination: &str, prefix, is_anycast| LocalRoute {
            destination: destination.parse().expect("an address"),
            prefix,
            device: Some(1),
            is_anycast,
        };
        let network = message(AF_INET, 24, route_type::LOCAL, &[203, 0, 113, 0]);
        assert_eq!(read(&network), Some(route("203.0.113.0", 24, false)));
        let all = message(AF_INET6, 0, route_type::LOCAL, &[]);
        assert_eq!(read(&all), Some(route("::", 0, false)));
        let anycast = message(AF_INET6, 128, route_type::ANYCAST, &[0; 16]);
        assert_eq!(read(&anycast), Some(route("::", 128, true)));
        let unicast = 1;
        let elsewhere = message(AF_INET, 24, unicast, &[203, 0, 113, 0]);
        assert_eq!(read(&elsewhere), None);
        assert_eq!(read(&network[..Message::LENGTH - 1]), None);
    }

    #[test]
    fn addresses_of_this_host_have_routes() {
        let links = super::super::links::with_addresses().expect("anyone may ask");
        let routes = local().expect("anyone may ask");
        let of_loopback = links.iter().filter(|link| link.index == 1 && link.is_up);
        for address in of_loopback.flat_map(|link| &link.addresses) {
            let has_it = |route: &LocalRoute| route.is_single() && route.destination == address.ip;
            assert!(routes.iter().any(has_it), "{address:?}: {routes:?}");
        }
    }
}
