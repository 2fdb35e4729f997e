//! Where to knock: one host, one address for all of its knocks and for the connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};
use tokio::net::lookup_host;

/// Which addresses of a host may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Whichever the system's resolver puts first.
    Any,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// A host as the user named it, and the one address that stands for it.
///
/// A gate knows a client by its source address, so the knocks and the connection must not be spread over
/// several addresses or both families.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    address: SocketAddr,
}

impl Target {
    /// Looks `host` up, a name or an address (IPv6 with or without brackets), and takes the first address
    /// that `family` admits.
    ///
    /// # Errors
    /// When the name has no address, or none of that family.
    pub async fn resolve(host: &str, family: Family) -> anyhow::Result<Self> {
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        let addresses: Vec<SocketAddr> = lookup_host((bare, 0))
            .await
            .with_context(|| {
                format!("can't find the address of {host:?}; check its spelling, or give the address itself")
            })?
            .map(canonical)
            .collect();
        let Some(&address) = addresses.iter().find(|address| family.admits(address)) else {
            let (missing, other, flag) = match family {
                Family::V4 => ("an IPv4", "IPv6", "-4"),
                Family::V6 => ("an IPv6", "IPv4", "-6"),
                Family::Any => {
                    bail!("{host:?} has no address; check its spelling, or give the address itself")
                }
            };
            bail!("{host:?} doesn't have {missing} address, only {other}; leave {flag} out");
        };
        Ok(Self {
            host: bare.to_owned(),
            address,
        })
    }

    /// The address that stands for the host.
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

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, address } = self;
        if address.ip().to_string() == *host {
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
            assert_eq!(target.socket(22).port(), 22);
        }
    }

    #[tokio::test]
    async fn a_scope_is_kept_for_every_port() {
        let target = Target::resolve("fe80::1%lo", Family::Any)
            .await
            .expect("lo exists everywhere");
        let SocketAddr::V6(address) = target.socket(22) else {
            panic!("{target} is not IPv6");
        };
        assert_ne!(address.scope_id(), 0);
    }

    #[tokio::test]
    async fn a_host_without_an_address_of_the_family_is_refused() {
        for (host, family, message) in [
            (
                "127.0.0.1",
                Family::V6,
                "\"127.0.0.1\" doesn't have an IPv6 address, only IPv4; leave -6 out",
            ),
            (
                "::1",
                Family::V4,
                "\"::1\" doesn't have an IPv4 address, only IPv6; leave -4 out",
            ),
            ("::ffff:127.0.0.1", Family::V6, "only IPv4"),
            (
                "no such host",
                Family::Any,
                "can't find the address of \"no such host\"",
            ),
            ("", Family::Any, "can't find the address of \"\""),
        ] {
            let error = Target::resolve(host, family)
                .await
                .expect_err(host)
                .to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
