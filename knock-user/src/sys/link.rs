//! The network devices of this network namespace (rtnetlink).

use std::io;

use rtnetlink::{
    packet_core::{NLM_F_DUMP, NLM_F_REQUEST},
    sys::protocols::NETLINK_ROUTE,
};

use super::query::{self, Netlink};

/// `RTM_GETLINK` of `linux/rtnetlink.h`, attributes of `linux/if_link.h`.
const GET_LINK: u16 = 18;
const BROADCAST: u16 = 2;
const NAME: u16 = 3;
const MTU: u16 = 4;
const LINK: u16 = 5;
const MASTER: u16 = 10;
const INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const PROMISCUITY: u16 = 30;
const LINK_NAMESPACE: u16 = 37;
const PARENT_BUS: u16 = 57;
/// Bytes of `struct ifinfomsg`, and where the link type and the index are in it.
const FIXED: usize = 16;
const TYPE: usize = 2;
const INDEX: usize = 4;

/// A network device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `ARPHRD_…` of `linux/if_arp.h`.
    pub link_type: u16,
    /// Where everyone on the link is addressed; of a tunnel, its other end.
    pub broadcast: Vec<u8>,
    pub mtu: u32,
    /// As `ip link show type` names it; hardware has none.
    pub kind: Option<String>,
    /// The device that it stands on, or a veth's other end, by its index.
    pub lower: Option<u32>,
    /// That one is in another network namespace, where the index is not one of this list's.
    pub lower_elsewhere: bool,
    /// The bridge, bond or the like that it is a port of.
    pub master: Option<u32>,
    /// How many have asked that it takes packets for every MAC address, a bridge among them.
    pub promiscuity: u32,
    /// The bus that its hardware is on (since Linux 5.14).
    pub bus: Option<String>,
}

/// All of them.
pub fn all() -> io::Result<Vec<Link>> {
    let request = query::message(GET_LINK, NLM_F_REQUEST | NLM_F_DUMP, &[0; FIXED]);
    let replies = Netlink::open(NETLINK_ROUTE)?.ask(&request)?;
    let links = replies.iter().filter_map(|reply| read(reply));
    Ok(links.collect())
}

/// `None` for a message that is too short to be one.
fn read(payload: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(*payload.get(INDEX..)?.first_chunk()?);
    let link_type = u16::from_ne_bytes(*payload.get(TYPE..)?.first_chunk()?);
    let mut link = Link {
        index,
        link_type,
        ..Link::default()
    };
    for (attribute, value) in query::attributes(payload.get(FIXED..)?) {
        let number = || Some(u32::from_ne_bytes(*value.first_chunk()?));
        match attribute {
            BROADCAST => link.broadcast = value,
            NAME => link.name = query::text(&value),
            MTU => link.mtu = number()?,
            LINK => link.lower = number(),
            LINK_NAMESPACE => link.lower_elsewhere = true,
            MASTER => link.master = number(),
            PROMISCUITY => link.promiscuity = number()?,
            PARENT_BUS => link.bus = Some(query::text(&value)),
            INFO => {
                let mut infos = query::attributes(&value);
                link.kind = infos
                    .find(|(info, _)| *info == INFO_KIND)
                    .map(|(_, kind)| query::text(&kind));
            }
            _ => {}
        }
    }
    Some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found() {
        let links = all().expect("anyone may ask");
        let loopback = links.iter().find(|link| link.name == "lo");
        let loopback = loopback.expect("every namespace has it");
        assert_eq!(loopback.index, 1);
        assert_eq!(loopback.bus, None);
        assert_eq!(loopback.master, None);
        assert!(loopback.mtu > 0);
    }
}
