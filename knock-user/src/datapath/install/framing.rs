//! What packets of an interface begin with, if a program there sees any. It decides which entry of the program reads them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::sys::{
    ethtool,
    links::{self, IPVLAN_L3S, Link},
};

/// Link types, of `linux/if_arp.h`.
mod link_type {
    pub const ETHERNET: u16 = 1;
    pub const PPP: u16 = 512;
    pub const RAW_IP: u16 = 519;
    pub const TUNNEL: u16 = 768;
    pub const TUNNEL6: u16 = 769;
    pub const LOOPBACK: u16 = 772;
    pub const SIT: u16 = 776;
    pub const GRE: u16 = 778;
    pub const GRE6: u16 = 823;
    pub const NONE: u16 = 65_534;
}

/// What packets of an interface begin with, as an XDP program is shown them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Framing {
    Ethernet,
    /// Their IP header.
    BareIp,
}

impl Framing {
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Ethernet => Self::BareIp,
            Self::BareIp => Self::Ethernet,
        }
    }

    /// Returns the name of the entry that reads them, in the object and in the kernel's list of programs.
    pub const fn entry(self) -> &'static str {
        match self {
            Self::Ethernet => "knockgate",
            Self::BareIp => "knockgate_ip",
        }
    }
}

/// Kinds of interface without a link header, by link type and by the name of the kernel's driver: XDP programs are shown
/// every packet of theirs from its IP header on.
///
/// Left out: `xfrm` and `vti`, whose packets come with the link header of the interface below; HDLC, whose packets come
/// with its own; and every kind that has not been examined.
const BARE_IP: [(u16, &[&str]); 8] = [
    (
        link_type::NONE,
        &["tun", "wireguard", "ovpn", "gtp", "bareudp", "qmi_wwan"],
    ),
    (link_type::PPP, &["ppp"]),
    (link_type::RAW_IP, &["rmnet", "qmi_wwan"]),
    (link_type::TUNNEL, &["ipip"]),
    (link_type::TUNNEL6, &["ip6tnl"]),
    (link_type::SIT, &["sit"]),
    (link_type::GRE, &["gre"]),
    (link_type::GRE6, &["ip6gre"]),
];

/// Returns the index of an interface, or an error that says that there is none.
pub fn index_of(name: &str) -> Result<u32> {
    links::index_of(name)
        .ok_or_else(|| anyhow!("there is no interface `{name}`; `ip link` lists the interfaces"))
}

/// Returns what packets of the interface `index` begin with. Fails where no entry of the program reads such packets,
/// or is shown any.
pub fn framing(name: &str, index: u32) -> Result<Framing> {
    let links = links::all().context("cannot ask the kernel about the interface")?;
    match links.iter().find(|link| link.index == index) {
        Some(link) => framing_of(link),
        None => bail!("there is no interface `{name}` any more"),
    }
}

/// Returns the interfaces of this host whose packets no entry of the program reads, or is shown, and why.
pub fn unreadable() -> Result<BTreeMap<String, String>> {
    let links = links::all()?;
    let errors = links
        .iter()
        .filter_map(|link| Some((link.name.clone(), framing_of(link).err()?.to_string())));
    Ok(errors.collect())
}

/// As [`framing`], of an interface as the kernel has described it.
pub fn framing_of(link: &Link) -> Result<Framing> {
    let Link {
        name, link_type, ..
    } = link;
    refuse_bypassed(link)?;
    if [link_type::ETHERNET, link_type::LOOPBACK].contains(link_type) {
        return Ok(Framing::Ethernet);
    }
    // A GRE interface without a fixed peer shows the outer IP header before every packet (`ipgre_header_ops` in the
    // kernel).
    if *link_type == link_type::GRE && !is_one_host(&link.broadcast) {
        bail!(
            "the interface {name} cannot be guarded: its packets come with the header of the tunnel, as it has no \
             `remote` or one that is a group; give it the address of its other end"
        );
    }
    // Hardware has a driver and no kind.
    let kind = link.kind.clone().or_else(|| ethtool::driver(name).ok());
    let kind = kind.unwrap_or_else(|| "unknown".to_owned());
    let is_bare = BARE_IP
        .iter()
        .any(|(known, kinds)| known == link_type && kinds.contains(&kind.as_str()));
    if is_bare {
        return Ok(Framing::BareIp);
    }
    bail!(
        "the interface {name} cannot be guarded: packets of its kind ({kind}, link type {link_type}) are neither \
         Ethernet nor bare IP as far as an XDP program can see, so what is guarded could not be told from the rest"
    )
}

/// Refuses an interface that the kernel only writes into packets (`skb->dev`) which it has received by another one: no
/// program on it, whether XDP or TCX, is shown any of them. Of a VRF that is `vrf_ip_rcv`, of an ipvlan in mode l3s
/// `ipvlan_nf_input`.
fn refuse_bypassed(link: &Link) -> Result<()> {
    let name = &link.name;
    if link.kind.as_deref() == Some("vrf") {
        bail!(
            "the interface {name} cannot be guarded: it is a VRF, and the kernel shows packets only to programs on its member \
             interfaces; guard these instead, which `ip link show master {name}` lists"
        );
    }
    if link.ipvlan_mode == Some(IPVLAN_L3S) {
        bail!(
            "the interface {name} cannot be guarded: it is an ipvlan in mode l3s, and the kernel shows packets only to programs \
             on the interface below it; guard that one"
        );
    }
    Ok(())
}

/// Returns whether it is the IPv4 address of one host.
fn is_one_host(address: &[u8]) -> bool {
    matches!(*address, [first, ..] if address.len() == 4 && first != 0 && first < 224)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_read_by_its_link_type_and_driver() {
        for (link_type, kind, expected) in [
            (link_type::ETHERNET, "veth", Some(Framing::Ethernet)),
            (link_type::ETHERNET, "tun", Some(Framing::Ethernet)),
            (link_type::LOOPBACK, "unknown", Some(Framing::Ethernet)),
            (link_type::NONE, "tun", Some(Framing::BareIp)),
            (link_type::NONE, "wireguard", Some(Framing::BareIp)),
            (link_type::PPP, "ppp", Some(Framing::BareIp)),
            (link_type::RAW_IP, "rmnet", Some(Framing::BareIp)),
            (link_type::TUNNEL, "ipip", Some(Framing::BareIp)),
            (link_type::TUNNEL6, "ip6tnl", Some(Framing::BareIp)),
            (link_type::SIT, "sit", Some(Framing::BareIp)),
            (link_type::NONE, "xfrm", None),
            (link_type::TUNNEL, "vti", None),
            (link_type::TUNNEL6, "vti6", None),
            (link_type::GRE, "gre", Some(Framing::BareIp)),
            (link_type::GRE6, "ip6gre", Some(Framing::BareIp)),
            (link_type::PPP, "hdlc", None),
            (32, "ipoib", None),
            (803, "mac80211_hwsim", None),
        ] {
            let framing = framing_of(&interface(link_type, kind, &[192, 0, 2, 1]));
            if let Err(error) = &framing {
                let said = error.to_string();
                assert!(said.contains("x0") && said.contains(kind), "{said}");
            }
            assert_eq!(framing.ok(), expected, "{link_type:?} {kind}");
        }
        for remote in [&[][..], &[0; 4], &[239, 1, 2, 3]] {
            assert!(
                framing_of(&interface(link_type::GRE, "gre", remote)).is_err(),
                "{remote:?}"
            );
        }
    }

    #[test]
    fn devices_past_which_packets_go_are_refused() {
        let ethernet = |kind, mode| Link {
            ipvlan_mode: mode,
            ..interface(link_type::ETHERNET, kind, &[0xff; 6])
        };
        for (kind, mode, advice) in [
            ("vrf", None, Some("`ip link show master x0` lists")),
            ("ipvlan", Some(0), None),
            ("ipvlan", Some(1), None),
            ("ipvlan", Some(2), Some("guard that one")),
            ("ipvtap", Some(2), Some("guard that one")),
        ] {
            match (framing_of(&ethernet(kind, mode)), advice) {
                (Ok(framing), None) => assert_eq!(framing, Framing::Ethernet, "{kind}"),
                (Err(error), Some(advice)) => {
                    let said = error.to_string();
                    assert!(
                        said.contains("x0 cannot") && said.ends_with(advice),
                        "{said}"
                    );
                }
                (framing, _) => panic!("{kind} in mode {mode:?}: {framing:?}"),
            }
        }
    }

    fn interface(link_type: u16, kind: &str, remote: &[u8]) -> Link {
        Link {
            name: "x0".to_owned(),
            link_type,
            kind: Some(kind.to_owned()),
            broadcast: remote.to_vec(),
            ..Link::default()
        }
    }
}
