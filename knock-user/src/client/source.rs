//! For which address an authenticated knock opens: the one that this machine has, or the one that the host sees.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::wire::udp_socket;

/// How the address is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressRule {
    /// This machine's own, unless it is private and the host's is not.
    #[default]
    Auto,
    /// The one from which the host sees the packet come.
    Observed,
    /// This one, and in the other family this machine's own.
    Is(IpAddr),
}

impl FromStr for AddressRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "observed" => Ok(Self::Observed),
            _ => text.parse().map(|ip: IpAddr| Self::Is(ip.to_canonical())).map_err(|_| {
                format!("{text:?} is no address: write auto, observed or an address such as 198.51.100.7")
            }),
        }
    }
}

/// The addresses for which a packet opens: at least one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Opens {
    /// The one from which the host sees it come.
    pub(super) observed: bool,
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

impl Opens {
    fn observed() -> Self {
        Self {
            observed: true,
            ..Self::default()
        }
    }

    /// Lists an address, in place of another one of its family.
    fn and(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.v4 = Some(address),
            IpAddr::V6(address) => self.v6 = Some(address),
        }
        self
    }

    fn listed(address: IpAddr) -> Self {
        Self::default().and(address)
    }
}

impl fmt::Display for Opens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let observed = self
            .observed
            .then(|| "the address that the host sees".to_owned());
        let v4 = self.v4.map(|address| address.to_string());
        let v6 = self.v6.map(|address| address.to_string());
        let all: Vec<String> = [observed, v4, v6].into_iter().flatten().collect();
        f.write_str(&all.join(" and "))
    }
}

/// A way to the host: from which address of this machine, to which of the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) own: IpAddr,
    pub(super) host: IpAddr,
}

impl Way {
    /// Returns whether the host sees another address than this machine's own, as far as can be told here.
    fn is_translated(self) -> bool {
        is_private(self.own) && !is_private(self.host)
    }
}

/// Decides for which address a packet opens.
pub(super) fn choose(rule: AddressRule, way: Way) -> Opens {
    match rule {
        AddressRule::Auto if way.is_translated() => Opens::observed(),
        AddressRule::Auto => Opens::listed(way.own),
        AddressRule::Observed => Opens::observed(),
        AddressRule::Is(address) => Opens::listed(way.own).and(address),
    }
}

/// Decides for which addresses a packet opens that is to open for one of each family, and whether it must go the `other` way:
/// only on the way that it goes does the host see an address that this machine does not know.
///
/// # Errors
/// A message where the host sees unknown addresses of both families.
pub(super) fn choose_both(
    rule: AddressRule,
    way: Way,
    other: Way,
) -> Result<(Opens, bool), String> {
    let observed = Opens::observed();
    let known = match (rule, way.is_translated(), other.is_translated()) {
        (AddressRule::Is(address), ..) => {
            (Opens::listed(way.own).and(other.own).and(address), false)
        }
        (AddressRule::Observed, _, false) | (AddressRule::Auto, true, false) => {
            (observed.and(other.own), false)
        }
        (AddressRule::Auto, false, false) => (Opens::listed(way.own).and(other.own), false),
        (AddressRule::Auto | AddressRule::Observed, false, true) => (observed.and(way.own), true),
        (AddressRule::Auto | AddressRule::Observed, true, true) => {
            return Err(format!(
                "--both needs to know this machine's address of one family as the host sees it, and {} and {} are both \
                 private, behind NAT: give one with --address, or leave --both out",
                way.own, other.own
            ));
        }
    };
    Ok(known)
}

/// Returns the address from which this machine sends to `to`. Nothing is sent.
pub(super) fn own_address(to: SocketAddr) -> io::Result<IpAddr> {
    Ok(udp_socket(to)?.local_addr()?.ip().to_canonical())
}

/// Returns whether an address means something in its own network alone: outside, NAT shows another one.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                // Carrier-grade NAT (RFC 6598), and the client's side of DS-Lite and 464XLAT (RFC 7335).
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
        }
        IpAddr::V6(address) => {
            address.is_unique_local() || address.is_loopback() || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn listed(addresses: &[&str]) -> Opens {
        let none = Opens::default();
        addresses
            .iter()
            .fold(none, |opens, text| opens.and(ip(text)))
    }

    fn way(own: &str, host: &str) -> Way {
        let [own, host] = [own, host].map(ip);
        Way { own, host }
    }

    #[test]
    fn a_private_address_is_listed_only_for_a_host_that_sees_it() {
        for (own, host, opens) in [
            ("198.51.100.7", "192.0.2.1", listed(&["198.51.100.7"])),
            ("2001:db8::7", "2001:db8::1", listed(&["2001:db8::7"])),
            ("10.0.0.7", "192.0.2.1", Opens::observed()),
            ("172.16.0.7", "192.0.2.1", Opens::observed()),
            ("192.168.1.7", "192.0.2.1", Opens::observed()),
            ("100.64.0.7", "192.0.2.1", Opens::observed()),
            ("100.127.255.7", "192.0.2.1", Opens::observed()),
            ("192.0.0.2", "192.0.2.1", Opens::observed()),
            ("fd00::7", "2001:db8::1", Opens::observed()),
            ("100.128.0.7", "192.0.2.1", listed(&["100.128.0.7"])),
            ("192.0.1.2", "192.0.2.1", listed(&["192.0.1.2"])),
            ("172.32.0.7", "192.0.2.1", listed(&["172.32.0.7"])),
            ("10.0.0.7", "192.168.1.1", listed(&["10.0.0.7"])),
            ("fd00::7", "fd00::1", listed(&["fd00::7"])),
            ("fe80::7", "fe80::1", listed(&["fe80::7"])),
            ("127.0.0.1", "127.0.0.1", listed(&["127.0.0.1"])),
        ] {
            assert_eq!(
                choose(AddressRule::Auto, way(own, host)),
                opens,
                "{own} to {host}"
            );
        }
    }

    #[test]
    fn what_is_asked_for_is_done() {
        for (rule, opens) in [
            ("observed", Opens::observed()),
            ("203.0.113.9", listed(&["203.0.113.9"])),
            ("::ffff:203.0.113.9", listed(&["203.0.113.9"])),
            ("2001:db8::9", listed(&["10.0.0.7", "2001:db8::9"])),
        ] {
            let rule: AddressRule = rule.parse().expect(rule);
            assert_eq!(choose(rule, way("10.0.0.7", "192.0.2.1")), opens);
        }
        for text in ["", "Auto", "10.0.0.0/8", "host.example"] {
            let error = text.parse::<AddressRule>().expect_err(text);
            assert!(error.contains("auto, observed or an address"), "{error}");
        }
    }

    #[test]
    fn one_packet_opens_for_both_families_unless_the_host_sees_two_unknown_addresses() {
        let public_v4 = way("198.51.100.7", "192.0.2.1");
        let nat_v4 = way("10.0.0.7", "192.0.2.1");
        let public_v6 = way("2001:db8::7", "2001:db8::1");
        let nat_v6 = way("fd00::7", "2001:db8::1");
        let both = listed(&["198.51.100.7", "2001:db8::7"]);
        let seen_and_v6 = Opens::observed().and(public_v6.own);
        let seen_and_v4 = Opens::observed().and(public_v4.own);
        let given = AddressRule::Is(ip("203.0.113.9"));
        for (rule, way, other, chosen) in [
            (AddressRule::Auto, public_v4, public_v6, (both, false)),
            (AddressRule::Auto, public_v6, public_v4, (both, false)),
            // Over IPv4, where the host sees what NAT made of it.
            (AddressRule::Auto, nat_v4, public_v6, (seen_and_v6, false)),
            (AddressRule::Auto, public_v6, nat_v4, (seen_and_v6, true)),
            (
                AddressRule::Observed,
                public_v4,
                public_v6,
                (seen_and_v6, false),
            ),
            (
                AddressRule::Observed,
                public_v6,
                public_v4,
                (seen_and_v4, false),
            ),
            (
                AddressRule::Observed,
                public_v6,
                nat_v4,
                (seen_and_v6, true),
            ),
            (
                given,
                nat_v4,
                public_v6,
                (listed(&["203.0.113.9", "2001:db8::7"]), false),
            ),
        ] {
            assert_eq!(
                choose_both(rule, way, other),
                Ok(chosen),
                "{rule:?} {way:?} {other:?}"
            );
        }
        for rule in [AddressRule::Auto, AddressRule::Observed] {
            let error = choose_both(rule, nat_v4, nat_v6).expect_err("nothing is known");
            assert!(error.contains("10.0.0.7 and fd00::7"), "{error}");
        }
        assert_eq!(
            seen_and_v6.to_string(),
            "the address that the host sees and 2001:db8::7"
        );
    }

    #[test]
    fn the_own_address_is_that_of_the_way_there() {
        for address in ["127.0.0.1:9", "[::1]:9"] {
            let to: SocketAddr = address.parse().expect("an address");
            assert_eq!(own_address(to).expect("a route"), to.ip());
        }
    }
}
