//! What the kernel program must know of this host: its addresses, and, to answer as a closed port of it
//! would, links and settings of the network namespace.

use std::{collections::BTreeMap, ffi::CStr, fs, io, mem::MaybeUninit, net::IpAddr, ptr};

use knock_common::{
    address::{V4, V6},
    keys::ScopedAddress,
    reject::{Link, LinkKey, ReplySettings, address_kind, labels},
};

use super::{bridged, checksums, kernel_version};
use crate::{
    config::{Config, Deny},
    sys,
};

/// Room in the table of addresses; those beyond it are not answered for, and where there are more, flows to
/// any address are remembered.
pub(super) const MOST_ADDRESSES: usize = 4095;
/// Links: interfaces and the VLANs on them.
pub(super) const MOST_LINKS: usize = 4096;
/// Destinations whose ICMP errors are counted.
pub(super) const DESTINATIONS: usize = 16_384;

/// Type 3 of ICMP and 1 of `ICMPv6`, both "destination unreachable" (RFC 792, RFC 4443).
const UNREACHABLE4: u32 = 3;
const UNREACHABLE6: u32 = 1;

/// This host, and how its closed ports show it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    pub settings: Option<ReplySettings>,
    pub links: BTreeMap<(u32, [u16; 2]), Link>,
    /// By [`address_kind`].
    pub addresses: BTreeMap<IpAddr, u32>,
    /// A guarded interface hands packets on by their MAC addresses, so that others' addresses are behind it:
    /// of a bridge's port, or below a macvlan.
    pub bridged: bool,
}

/// Does any gate of this configuration answer?
pub fn rejects(config: &Config) -> bool {
    config.gates.iter().any(|gate| gate.deny == Deny::Reject)
}

impl Surroundings {
    /// Reads them for the interfaces in `guarded`, by index and present name; links and settings only where a gate
    /// answers. `secret` makes flow labels unpredictable.
    pub fn read(config: &Config, guarded: &[(u32, String)], secret: u64) -> io::Result<Self> {
        let vlans = vlans(&fs::read_to_string("/proc/net/vlan/config").unwrap_or_default());
        let (addresses, macs) = interfaces(|name| {
            // A device on top of a guarded interface has its packets by it.
            guarded.iter().any(|(_, guarded)| guarded == name)
                || vlans.iter().any(|vlan| vlan.name == name)
        })?;
        let devices = sys::link::all()?;
        let indices: Vec<u32> = guarded.iter().map(|(index, _)| *index).collect();
        let bridged = bridged::is_any(&indices, &devices);
        if !rejects(config) {
            return Ok(Self {
                addresses,
                bridged,
                ..Self::default()
            });
        }
        let mut links = BTreeMap::new();
        for (index, name) in guarded {
            let index = *index;
            let partial = checksums::may_be_left_out(index, &devices);
            for (device, tags) in stacked(name, &vlans) {
                // Without a link header there is none.
                let mac = macs.get(device).copied().unwrap_or_default();
                let link = Link {
                    mac,
                    hop_limit: setting(&format!("ipv6/conf/{device}/hop_limit")).unwrap_or(64),
                    partial: u8::from(partial),
                };
                links.insert((index, tags), link);
            }
        }
        Ok(Self {
            settings: Some(settings(secret)),
            links,
            addresses,
            bridged,
        })
    }

    pub fn link_rows(&self) -> impl Iterator<Item = (LinkKey, Link)> {
        let key = |(interface, vlans): &(u32, [u16; 2])| LinkKey {
            interface: *interface,
            vlans: *vlans,
        };
        self.links
            .iter()
            .take(MOST_LINKS)
            .map(move |(of, link)| (key(of), *link))
    }

    /// With the note that these are all, where they are.
    pub fn address_rows(&self) -> impl Iterator<Item = (ScopedAddress, u32)> {
        let complete = self.addresses.len() <= MOST_ADDRESSES && !self.bridged;
        let note = complete.then_some((ScopedAddress::COMPLETE, address_kind::OWN));
        let key = |address: &IpAddr| match address {
            IpAddr::V4(address) => ScopedAddress::new(V4::from(*address)),
            IpAddr::V6(address) => ScopedAddress::new(V6::from(*address)),
        };
        self.addresses
            .iter()
            .take(MOST_ADDRESSES)
            .map(move |(address, kind)| (key(address), *kind))
            .chain(note)
    }
}

/// A number that nobody can guess.
pub fn secret() -> anyhow::Result<u64> {
    getrandom::u64().map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))
}

fn settings(secret: u64) -> ReplySettings {
    let milliseconds = |name: &str| {
        setting::<u64>(name)
            .unwrap_or(1000)
            .saturating_mul(1_000_000)
    };
    let number = |name: &str, default| setting::<u32>(name).unwrap_or(default);
    let auto = number("ipv6/auto_flowlabels", 1);
    let mut labelling = 0;
    // Linux's IP6_AUTO_FLOW_LABEL_OPTOUT and _FORCED.
    if auto == 1 || auto == 3 {
        labelling |= labels::AUTO;
    }
    if number("ipv6/flowlabel_state_ranges", 0) != 0 {
        labelling |= labels::STATELESS;
    }
    // FLOWLABEL_REFLECT_TCP_RESET.
    if number("ipv6/flowlabel_reflect", 0) & 2 != 0 {
        labelling |= labels::REFLECT;
    }
    let mask4 = number("ipv4/icmp_ratemask", 6168);
    let mask6 = text("ipv6/icmp/ratemask").unwrap_or_else(|| "0-1,3-127".to_owned());
    let limited = u8::from(mask4 >> UNREACHABLE4 & 1 != 0)
        | u8::from(is_in_ranges(&mask6, UNREACHABLE6)) << 1;
    ReplySettings {
        interval4: milliseconds("ipv4/icmp_ratelimit"),
        interval6: milliseconds("ipv6/icmp/ratelimit"),
        per_second: number("ipv4/icmp_msgs_per_sec", 1000),
        burst: number("ipv4/icmp_msgs_burst", 50),
        tick: tick(),
        secret,
        ttl: setting("ipv4/ip_default_ttl").unwrap_or(64),
        labels: labelling,
        limited,
        known: 1,
        strict: u8::from(kernel_version::is_at_least(6, 7)),
        zero: [0; 3],
    }
}

fn text(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/net/{name}")).ok()?;
    Some(text.trim().to_owned())
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    text(name)?.parse().ok()
}

/// Is `number` among ranges such as `0-1,3-127`?
fn is_in_ranges(ranges: &str, number: u32) -> bool {
    ranges.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = (first.trim().parse::<u32>(), last.trim().parse::<u32>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&number))
    })
}

/// Length of the kernel's timer tick, ns: the coarse clock moves by it.
pub(super) fn tick() -> u64 {
    let mut resolution = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call fills the structure where it succeeds; this clock always exists.
    let resolution = unsafe {
        if libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, resolution.as_mut_ptr()) != 0 {
            return 4_000_000;
        }
        resolution.assume_init()
    };
    u64::try_from(resolution.tv_nsec).unwrap_or(4_000_000)
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

type Addresses = BTreeMap<IpAddr, u32>;
type Macs = BTreeMap<String, [u8; 6]>;

/// Addresses that are this host's or everyone's, and the MAC addresses of its devices. An address that
/// holds on one link alone counts only where `is_guarded`.
fn interfaces(is_guarded: impl Fn(&str) -> bool) -> io::Result<(Addresses, Macs)> {
    let mut list = ptr::null_mut();
    // SAFETY: the call writes a list there, which is freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut addresses, mut macs) = (Addresses::new(), Macs::new());
    let mut next = list;
    // SAFETY: each entry of the list, until it ends, points to the next.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: the name is a string of the list's.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy();
        // SAFETY: addresses of the list are whole, or null.
        let own = unsafe { address(entry.ifa_addr) };
        // SAFETY: as above. Only a device that can send to everyone has this field.
        let broadcast = unsafe { address(entry.ifa_ifu) }
            .filter(|_| entry.ifa_flags & libc::IFF_BROADCAST.cast_unsigned() != 0);
        // SAFETY: as above.
        let mask = unsafe { address(entry.ifa_netmask) };
        match own {
            Some(Address::Ip(ip)) if ip.is_loopback() => {}
            Some(Address::Ip(IpAddr::V6(ip)))
                if ip.is_unicast_link_local() && !is_guarded(&name) => {}
            Some(Address::Ip(ip)) => {
                addresses.insert(ip, address_kind::OWN);
                // Everyone is at the network's last address, whether or not one has been set.
                for all in last(ip, mask)
                    .into_iter()
                    .chain(broadcast.and_then(Address::ip))
                {
                    addresses.entry(all).or_insert(address_kind::BROADCAST);
                }
            }
            Some(Address::Mac(mac)) => {
                macs.insert(name.into_owned(), mac);
            }
            None => {}
        }
    }
    // SAFETY: from `getifaddrs`, and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok((addresses, macs))
}

enum Address {
    Ip(IpAddr),
    Mac([u8; 6]),
}

impl Address {
    fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip),
            Self::Mac(_) => None,
        }
    }
}

/// The last address of an IPv4 network that has one to spare.
fn last(address: IpAddr, mask: Option<Address>) -> Option<IpAddr> {
    let (IpAddr::V4(address), Some(IpAddr::V4(mask))) = (address, mask?.ip()) else {
        return None;
    };
    let hosts = !mask.to_bits();
    (hosts > 1).then(|| IpAddr::V4((address.to_bits() | hosts).into()))
}

/// # Safety
///
/// The pointer is null or points to a whole socket address of the family that it names.
unsafe fn address(of: *const libc::sockaddr) -> Option<Address> {
    // SAFETY: the caller's promise.
    let family = i32::from(unsafe { of.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: the family says so.
            let v4 = unsafe { ptr::read_unaligned(of.cast::<libc::sockaddr_in>()) };
            Some(Address::Ip(v4.sin_addr.s_addr.to_ne_bytes().into()))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says so.
            let v6 = unsafe { ptr::read_unaligned(of.cast::<libc::sockaddr_in6>()) };
            Some(Address::Ip(v6.sin6_addr.s6_addr.into()))
        }
        libc::AF_PACKET => {
            // SAFETY: the family says so.
            let link = unsafe { ptr::read_unaligned(of.cast::<libc::sockaddr_ll>()) };
            let mac = *link.sll_addr.first_chunk()?;
            (link.sll_halen == 6).then_some(Address::Mac(mac))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_kernel_writes_them() {
        assert!(is_in_ranges("0-1,3-127", 1));
        assert!(!is_in_ranges("0-1,3-127", 2));
        assert!(is_in_ranges("2", 2));
        assert!(!is_in_ranges("", 1));
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
