//! Where to knock: one host and its addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use anyhow::{Context as _, bail};
use tokio::net::lookup_host;

/// Which addresses of a host may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Both families, in the order of the system's resolver.
    Any,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// A host as the user named it, and its addresses in the order in which they are tried; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    addresses: Vec<SocketAddr>,
}

/// One address of a [`Target`]. All knocks of a sequence and the connection after them go to the same one,
/// since a gate knows a client by its source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address<'a> {
    host: &'a str,
    address: SocketAddr,
}

impl Target {
    /// Looks `host` up, a name or an address (IPv6 with or without brackets, with or without a zone), and
    /// takes the addresses that `family` admits.
    ///
    /// # Errors
    /// When the name has no address, none of that family, or only link-local ones without their link.
    pub async fn resolve(host: &str, family: Family) -> anyhow::Result<Self> {
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        let found = lookup_host((bare, 0)).await.with_context(|| {
            let advice = zone_advice(bare)
                .unwrap_or_else(|| "check its spelling, or give the address itself".to_owned());
            format!("cannot find the address of {host:?}; {advice}")
        })?;
        let (mut addresses, mut other_family) = (Vec::new(), false);
        for address in found.map(canonical) {
            if !family.admits(&address) {
                other_family = true;
            } else if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            let (missing, other, flag) = match family {
                Family::V4 if other_family => ("an IPv4", "IPv6", "-4"),
                Family::V6 if other_family => ("an IPv6", "IPv4", "-6"),
                _ => {
                    bail!("{host:?} has no address; check its spelling, or give the address itself")
                }
            };
            bail!("{host:?} does not have {missing} address, only {other}; leave {flag} out");
        }
        let without_link = addresses.iter().find_map(lacks_zone);
        addresses.retain(|address| lacks_zone(address).is_none());
        if let (true, Some(address)) = (addresses.is_empty(), without_link) {
            let whose = if bare.parse() == Ok(address) {
                format!("{address} is")
            } else {
                format!("{host:?} has only {address}, which is")
            };
            bail!(
                "{whose} a link-local address, which is valid on one link alone; add the interface that \
                 leads there, such as {address}%eth0 (`ip -brief link` lists the interfaces)"
            );
        }
        Ok(Self {
            host: bare.to_owned(),
            addresses,
        })
    }

    /// A host with these addresses.
    #[cfg(test)]
    pub(super) fn of(host: &str, addresses: Vec<SocketAddr>) -> Self {
        let host = host.to_owned();
        Self { host, addresses }
    }

    /// The addresses in the order in which they are tried.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = Address<'_>> {
        self.addresses.iter().map(|&address| Address {
            host: &self.host,
            address,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addresses().next() {
            Some(only) if self.addresses.len() == 1 => only.fmt(f),
            _ => f.write_str(&self.host),
        }
    }
}

impl Address<'_> {
    /// The address alone.
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// The address with `port`, and with its scope where an IPv6 address has one.
    pub(super) fn socket(&self, port: u16) -> SocketAddr {
        let mut address = self.address;
        address.set_port(port);
        address
    }
}

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, address } = self;
        let without_zone = host.split_once('%').map_or(*host, |(address, _)| address);
        if without_zone.parse() == Ok(address.ip()) {
            f.write_str(host)
        } else {
            write!(f, "{host} ({})", address.ip())
        }
    }
}

impl Family {
    fn admits(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// `::ffff:192.0.2.1` leaves the machine as IPv4, so it is IPv4 here.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The address where it is link-local and nothing says on which link.
fn lacks_zone(address: &SocketAddr) -> Option<Ipv6Addr> {
    match address {
        SocketAddr::V6(address) => Some(address)
            .filter(|address| address.ip().is_unicast_link_local() && address.scope_id() == 0)
            .map(SocketAddrV6::ip)
            .copied(),
        SocketAddr::V4(_) => None,
    }
}

/// What to do about a host that could not be looked up, where it is an address with a zone.
fn zone_advice(host: &str) -> Option<String> {
    let (address, zone) = host.split_once('%')?;
    let ip: IpAddr = address.parse().ok()?;
    Some(match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => format!(
            "there is no interface {zone:?}; `ip -brief link` lists this machine's interfaces"
        ),
        _ => format!("only link-local addresses (fe80::/10) have a zone; write {address}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_taken_as_they_are() {
        for (host, family, shown) in [
            ("127.0.0.1", Family::Any, "127.0.0.1"),
            ("127.0.0.1", Family::V4, "127.0.0.1"),
            ("::1", Family::V6, "::1"),
            ("[::1]", Family::Any, "::1"),
            (
                "::ffff:127.0.0.1",
                Family::V4,
                "::ffff:127.0.0.1 (127.0.0.1)",
            ),
        ] {
            let target = Target::resolve(host, family).await.expect(host);
            assert_eq!(target.to_string(), shown);
            let addresses: Vec<_> = target.addresses().collect();
            assert_eq!(addresses.len(), 1, "{addresses:?}");
            assert_eq!(addresses[0].to_string(), shown);
            assert_eq!(addresses[0].socket(22).port(), 22);
        }
    }

    #[tokio::test]
    async fn a_scope_is_kept_for_every_port() {
        for host in ["fe80::1%lo", "[fe80::1%lo]"] {
            let target = Target::resolve(host, Family::Any)
                .await
                .expect("lo exists everywhere");
            let address = target.addresses().next().expect("its address");
            let SocketAddr::V6(address) = address.socket(22) else {
                panic!("{target} is not IPv6");
            };
            assert_ne!(address.scope_id(), 0);
            assert_eq!(target.to_string(), "fe80::1%lo");
        }
    }

    #[tokio::test]
    async fn a_link_local_address_needs_its_link() {
        for (host, message) in [
            ("fe80::1", "fe80::1 is a link-local address"),
            ("[fe80::1]", "such as fe80::1%eth0"),
            (
                "fe80::1%no-such-link",
                "there is no interface \"no-such-link\"",
            ),
            ("2001:db8::1%lo", "write 2001:db8::1"),
            ("192.0.2.1%lo", "write 192.0.2.1"),
        ] {
            let error = Target::resolve(host, Family::Any)
                .await
                .expect_err(host)
                .to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[tokio::test]
    async fn a_host_without_an_address_of_the_family_is_refused() {
        for (host, family, message) in [
            (
                "127.0.0.1",
                Family::V6,
                "\"127.0.0.1\" does not have an IPv6 address, only IPv4; leave -6 out",
            ),
            (
                "::1",
                Family::V4,
                "\"::1\" does not have an IPv4 address, only IPv6; leave -4 out",
            ),
            ("::ffff:127.0.0.1", Family::V6, "only IPv4"),
            (
                "no such host",
                Family::Any,
                "cannot find the address of \"no such host\"",
            ),
            ("", Family::Any, "cannot find the address of \"\""),
        ] {
            let error = Target::resolve(host, family)
                .await
                .expect_err(host)
                .to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
