//! Network devices of this host, and their addresses.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
};

use rtnetlink::{
    packet_route::{
        RouteNetlinkMessage as Message,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    },
    sys::protocols::NETLINK_ROUTE,
};

pub use rtnetlink::packet_route::link::InfoKind as Kind;

use super::dump::dump;

/// A network device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    /// What kind of virtual device it is; `None` for hardware.
    pub kind: Option<Kind>,
    pub is_up: bool,
    pub addresses: Vec<Address>,
}

/// An address of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub ip: IpAddr,
    /// Where every host of the network is addressed.
    pub broadcast: Option<Ipv4Addr>,
    /// Made for privacy, and soon replaced by another (RFC 8981).
    pub is_temporary: bool,
}

/// All devices, by index.
pub fn devices() -> io::Result<BTreeMap<u32, Device>> {
    let mut devices = BTreeMap::new();
    let links = Message::GetLink(LinkMessage::default());
    dump(NETLINK_ROUTE, links, |message| {
        if let Message::NewLink(link) = message {
            devices.insert(link.header.index, device(link));
        }
    })?;
    let addresses = Message::GetAddress(AddressMessage::default());
    dump(NETLINK_ROUTE, addresses, |message| {
        if let Message::NewAddress(message) = message
            && let Some(device) = devices.get_mut(&message.header.index)
        {
            device.addresses.extend(address(&message));
        }
    })?;
    Ok(devices)
}

fn device(link: LinkMessage) -> Device {
    let mut device = Device {
        is_up: link.header.flags.contains(LinkFlags::Up),
        ..Device::default()
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name = name,
            LinkAttribute::LinkInfo(infos) => {
                device.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    device
}

fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut peer, mut broadcast) = (None, None, None);
    let mut is_temporary = false;
    for attribute in &message.attributes {
        match attribute {
            // Of a point-to-point link, the other is the peer's.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Broadcast(ip) => broadcast = Some(*ip),
            // IFA_F_TEMPORARY is the same bit; of IPv4 it says that an address is not the network's first.
            AddressAttribute::Flags(flags) => {
                is_temporary = flags.contains(AddressFlags::Secondary);
            }
            _ => {}
        }
    }
    let ip = local.or(peer)?;
    Some(Address {
        ip,
        broadcast,
        is_temporary: is_temporary && ip.is_ipv6(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn the_loopback_device_is_found_with_its_addresses() {
        let devices = devices().expect("the kernel answers");
        let loopback = &devices[&1];
        assert_eq!(loopback.name, "lo");
        assert_eq!(loopback.kind, None);
        let addresses: Vec<IpAddr> = loopback.addresses.iter().map(|of| of.ip).collect();
        assert!(
            addresses.contains(&Ipv4Addr::LOCALHOST.into())
                || addresses.contains(&Ipv6Addr::LOCALHOST.into())
                || !loopback.is_up,
            "{addresses:?}"
        );
    }
}
