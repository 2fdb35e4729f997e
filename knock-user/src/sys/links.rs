//! The interfaces of this network namespace and their addresses (rtnetlink).

use std::{
    ffi::CString,
    io,
    net::{IpAddr, Ipv4Addr},
};

use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::netlink::{self, attributes, number, text};

/// Of `linux/rtnetlink.h`.
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;

/// Attributes of links (`linux/if_link.h`).
mod link {
    pub const ADDRESS: u16 = 1;
    pub const BROADCAST: u16 = 2;
    pub const NAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const LINK: u16 = 5;
    pub const MASTER: u16 = 10;
    pub const INFO: u16 = 18;
    pub const INFO_KIND: u16 = 1;
    pub const INFO_DATA: u16 = 2;
    pub const IPVLAN_MODE: u16 = 1;
    pub const PROMISCUITY: u16 = 30;
    pub const LINK_NAMESPACE: u16 = 37;
    pub const XDP: u16 = 43;
    pub const XDP_DRIVER_PROGRAM: u16 = 5;
    pub const XDP_GENERIC_PROGRAM: u16 = 6;
    pub const XDP_HARDWARE_PROGRAM: u16 = 7;
    pub const PARENT_BUS: u16 = 57;
}

/// Attributes of addresses (`linux/if_addr.h`).
mod address {
    pub const ADDRESS: u16 = 1;
    pub const LOCAL: u16 = 2;
    pub const BROADCAST: u16 = 4;
    pub const FLAGS: u16 = 8;
    /// Of IPv6, `IFA_F_TEMPORARY`; the same bit says that an IPv4 address is not its network's first.
    pub const SECONDARY: u32 = 1;
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `ARPHRD_…` of `linux/if_arp.h`.
    pub link_type: u16,
    pub is_up: bool,
    pub mac: Option<[u8; 6]>,
    /// Where everyone on the link is addressed; of a tunnel, its other end.
    pub broadcast: Vec<u8>,
    pub mtu: u32,
    /// Kind of virtual interface, as `ip link show type` names it; `None` for hardware.
    pub kind: Option<String>,
    /// The mode of an ipvlan or ipvtap, `IPVLAN_MODE_…` of `linux/if_link.h`.
    pub ipvlan_mode: Option<u16>,
    /// Index of the interface that it is on top of, or of a veth's other end.
    pub lower: Option<u32>,
    /// The lower interface is in another network namespace, so its index means nothing here.
    pub lower_elsewhere: bool,
    /// Index of the bridge, bond or the like that it is a port of.
    pub master: Option<u32>,
    /// Number of users, such as a bridge, that have asked for packets to every MAC address.
    pub promiscuity: u32,
    /// The bus that its hardware is on (since Linux 5.14).
    pub bus: Option<String>,
    /// Id of the XDP program in the driver, or in hardware.
    pub native_program: Option<u32>,
    /// Id of the generic XDP program.
    pub generic_program: Option<u32>,
    /// Read by [`with_addresses`] alone.
    pub addresses: Vec<Address>,
}

/// An IP address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub ip: IpAddr,
    /// Bits of its network's prefix.
    pub prefix: u8,
    /// Where every host of the network is addressed, as configured.
    pub broadcast: Option<Ipv4Addr>,
    /// A privacy address, which is replaced from time to time (RFC 8981).
    pub is_temporary: bool,
}

/// Kinds of devices that share a lower device under MAC addresses of their own, or under its own.
pub const SHARING: [&str; 4] = ["macvlan", "macvtap", "ipvlan", "ipvtap"];
/// Those of them that share its MAC address.
const IPVLANS: [&str; 2] = ["ipvlan", "ipvtap"];
/// The mode of an ipvlan in which it gets packets from the firewall's hook for input, `IPVLAN_MODE_L3S` of `linux/if_link.h`.
pub const IPVLAN_L3S: u16 = 2;

/// Bound on the devices below a device; the kernel allows eight.
pub const DEEPEST: u32 = 16;

/// Returns whether packets that come by one of the interfaces `lower` may be handed to device `upper` as they are, apart from
/// VLAN tags: because it is a VLAN of theirs, shares them, or has them as ports. All are indices.
pub fn is_above(upper: u32, lower: &[u32], links: &[Link]) -> bool {
    is_within_above(upper, lower, links, DEEPEST)
}

fn is_within_above(upper: u32, lower: &[u32], links: &[Link], depth: u32) -> bool {
    if depth == 0 {
        return false;
    }
    let device = links.iter().find(|link| link.index == upper);
    let ports = links.iter().filter(|port| port.master == Some(upper));
    let mut below = device
        .and_then(Link::gets_packets_of)
        .into_iter()
        .chain(ports.map(|port| port.index));
    below.any(|index| lower.contains(&index) || is_within_above(index, lower, links, depth - 1))
}

impl Link {
    /// Returns the index of the interface from which this one gets packets as they are. One of another network namespace has
    /// none here.
    fn gets_packets_of(&self) -> Option<u32> {
        let kind = self.kind.as_deref().unwrap_or_default();
        let is_on_top = kind == "vlan" || SHARING.contains(&kind);
        self.lower.filter(|_| is_on_top && !self.lower_elsewhere)
    }
}

/// Returns all interfaces, by index.
pub fn all() -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    let any = IfInfo::default().bytes();
    netlink::list(NETLINK_ROUTE, RTM_GETLINK, &any, |reply| {
        links.extend(read_link(reply));
    })?;
    links.sort_by_key(|link: &Link| link.index);
    Ok(links)
}

/// Returns all interfaces with their IP addresses.
pub fn with_addresses() -> io::Result<Vec<Link>> {
    let mut links = all()?;
    let any = [0; IfAddr::LENGTH];
    netlink::list(NETLINK_ROUTE, RTM_GETADDR, &any, |reply| {
        if let Some((index, address)) = read_address(reply)
            && let Some(link) = links.iter_mut().find(|link| link.index == index)
        {
            link.addresses.push(address);
        }
    })?;
    Ok(links)
}

/// Returns the interface with this index, if there is one.
pub fn with_index(index: u32) -> io::Result<Option<Link>> {
    let request = IfInfo { index }.bytes();
    let mut found = None;
    let answered = netlink::ask(NETLINK_ROUTE, RTM_GETLINK, 0, &request, |reply| {
        found = read_link(reply);
    });
    match answered {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
        Ok(_) if found.is_none() => Err(io::ErrorKind::InvalidData.into()),
        Ok(_) => Ok(found),
    }
}

/// Returns the index of the interface with this name, if there is one.
pub fn index_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with a zero byte; the call only reads it.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// `struct ifinfomsg`, as far as it is used. In a request, index 0 stands for any interface.
#[derive(Default)]
struct IfInfo {
    index: u32,
}

impl IfInfo {
    const LENGTH: usize = 16;
    const TYPE: usize = 2;
    const INDEX: usize = 4;
    const FLAGS: usize = 8;

    fn bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[Self::INDEX..Self::FLAGS].copy_from_slice(&self.index.to_ne_bytes());
        bytes
    }
}

/// `struct ifaddrmsg`.
struct IfAddr;

impl IfAddr {
    const LENGTH: usize = 8;
    const PREFIX: usize = 1;
    const INDEX: usize = 4;
}

/// Returns `None` for a message that is too short to be one.
fn read_link(payload: &[u8]) -> Option<Link> {
    let flags = number(payload.get(IfInfo::FLAGS..)?)?;
    let mut read = Link {
        index: number(payload.get(IfInfo::INDEX..)?)?,
        link_type: u16::from_ne_bytes(*payload.get(IfInfo::TYPE..)?.first_chunk()?),
        is_up: flags & libc::IFF_UP.cast_unsigned() != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(payload.get(IfInfo::LENGTH..)?) {
        match kind {
            link::ADDRESS => read.mac = value.try_into().ok(),
            link::BROADCAST => read.broadcast = value.to_vec(),
            link::NAME => read.name = text(value),
            link::MTU => read.mtu = number(value)?,
            link::LINK => read.lower = number(value),
            link::LINK_NAMESPACE => read.lower_elsewhere = true,
            link::MASTER => read.master = number(value),
            link::PROMISCUITY => read.promiscuity = number(value)?,
            link::PARENT_BUS => read.bus = Some(text(value)),
            link::INFO => {
                let info = |wanted| attributes(value).find(|(info, _)| *info == wanted);
                read.kind = info(link::INFO_KIND).map(|(_, kind)| text(kind));
                if IPVLANS.contains(&read.kind.as_deref().unwrap_or_default()) {
                    let data = info(link::INFO_DATA).map(|(_, data)| data);
                    read.ipvlan_mode = data.and_then(ipvlan_mode);
                }
            }
            link::XDP => {
                for (kind, value) in attributes(value) {
                    match kind {
                        link::XDP_DRIVER_PROGRAM | link::XDP_HARDWARE_PROGRAM => {
                            read.native_program = number(value);
                        }
                        link::XDP_GENERIC_PROGRAM => read.generic_program = number(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(read)
}

/// Reads what an ipvlan says of itself.
fn ipvlan_mode(data: &[u8]) -> Option<u16> {
    let (_, mode) = attributes(data).find(|(kind, _)| *kind == link::IPVLAN_MODE)?;
    mode.try_into().ok().map(u16::from_ne_bytes)
}

/// Returns an address with the index of its interface; `None` where it is of another family than IP.
fn read_address(payload: &[u8]) -> Option<(u32, Address)> {
    let (mut local, mut peer, mut broadcast) = (None, None, None);
    let mut flags = 0;
    for (kind, value) in attributes(payload.get(IfAddr::LENGTH..)?) {
        match kind {
            // Of a point-to-point link, the other is the peer's.
            address::LOCAL => local = netlink::ip(value),
            address::ADDRESS => peer = netlink::ip(value),
            address::BROADCAST => {
                broadcast = value.first_chunk().copied().map(Ipv4Addr::from_octets);
            }
            address::FLAGS => flags = number(value)?,
            _ => {}
        }
    }
    let ip = local.or(peer)?;
    let read = Address {
        ip,
        prefix: *payload.get(IfAddr::PREFIX)?,
        broadcast,
        is_temporary: ip.is_ipv6() && flags & address::SECONDARY != 0,
    };
    Some((number(payload.get(IfAddr::INDEX..)?)?, read))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn packets_are_handed_up_by_vlans_shared_devices_and_ports() {
        let link = |index, kind: &str, lower, master| Link {
            index,
            kind: (!kind.is_empty()).then(|| kind.to_owned()),
            lower,
            master,
            ..Link::default()
        };
        let elsewhere = Link {
            lower_elsewhere: true,
            ..link(15, "vlan", Some(1), None)
        };
        let links = [
            link(1, "", None, None),
            link(2, "vlan", Some(1), None),
            link(3, "macvlan", Some(2), None),
            link(4, "veth", Some(1), Some(6)),
            link(5, "", None, Some(7)),
            link(6, "bridge", None, None),
            link(7, "bond", None, None),
            link(8, "vlan", Some(7), Some(6)),
            link(9, "vxlan", Some(1), None),
            // The kernel makes no such ring, but a list that is read in parts may have one.
            link(10, "vlan", Some(11), None),
            link(11, "vlan", Some(10), None),
            elsewhere,
        ];
        let above = |lower: u32| -> Vec<u32> {
            let indices = links.iter().map(|link| link.index);
            indices
                .filter(|upper| is_above(*upper, &[lower], &links))
                .collect()
        };
        assert_eq!(above(1), [2, 3], "neither a veth's other end nor a tunnel");
        assert_eq!(above(5), [6, 7, 8]);
        assert_eq!(above(4), [6]);
        assert_eq!(above(3), [0; 0]);
    }

    /// The numbers of other kinds' attributes mean something else.
    #[test]
    fn the_mode_of_an_ipvlan_is_read() {
        let read = |kind: &str, data: &[u8]| {
            let info = [
                netlink::attribute(link::INFO_KIND, kind.as_bytes()),
                netlink::attribute(link::INFO_DATA, data),
            ];
            let mut message = IfInfo { index: 3 }.bytes().to_vec();
            message.extend(netlink::attribute(link::INFO, &info.concat()));
            let link = read_link(&message).expect("it is one");
            assert_eq!(link.kind.as_deref(), Some(kind));
            link.ipvlan_mode
        };
        let flags = netlink::attribute(2, &[0, 0]);
        let mode = netlink::attribute(link::IPVLAN_MODE, &IPVLAN_L3S.to_ne_bytes());
        let data = [flags.clone(), mode].concat();
        assert_eq!(read("ipvlan", &data), Some(IPVLAN_L3S));
        assert_eq!(read("ipvtap", &data), Some(IPVLAN_L3S));
        assert_eq!(read("vlan", &data), None);
        assert_eq!(read("ipvlan", &flags), None);
        assert_eq!(read("ipvlan", &[]), None);
    }

    #[test]
    fn loopback_is_found_with_its_addresses() {
        let links = with_addresses().expect("anyone may ask");
        let loopback = links.iter().find(|link| link.name == "lo");
        let loopback = loopback.expect("every namespace has it");
        assert_eq!(loopback.index, 1);
        assert_eq!(loopback.kind, None);
        assert_eq!(loopback.bus, None);
        assert_eq!(loopback.master, None);
        assert!(loopback.mtu > 0);
        let addresses: Vec<IpAddr> = loopback.addresses.iter().map(|of| of.ip).collect();
        assert!(
            addresses.contains(&Ipv4Addr::LOCALHOST.into())
                || addresses.contains(&Ipv6Addr::LOCALHOST.into())
                || !loopback.is_up,
            "{addresses:?}"
        );
    }

    #[test]
    fn an_interface_is_found_by_its_index_and_its_name() {
        assert_eq!(index_of("lo"), Some(1));
        assert_eq!(index_of("nosuchdevice0"), None);
        let loopback = with_index(1).expect("anyone may ask");
        assert_eq!(loopback.map(|link| link.name).as_deref(), Some("lo"));
        assert_eq!(with_index(0x7fff_fff0).expect("anyone may ask"), None);
    }
}
