//! Warnings about this host's interfaces, and the tunnels and addresses on them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    config::{
        draft::{Draft, DraftAddresses},
        host::HostFacts,
        source::{Findings, Located, Span},
    },
    sys::links::Link,
    values::{Protocol, nearest},
};

/// How many devices a message names.
const MOST_SHOWN: usize = 5;

/// Groups that every host joins by itself (RFC 1112, RFC 4291).
const ALL_HOSTS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_HOSTS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Warns of weaknesses of the interfaces to guard. Where the host's devices are not known, some are not looked for.
pub(super) fn lint(findings: &mut Findings<'_>, draft: &Draft, host: &HostFacts) {
    if let Some(devices) = &host.devices {
        interfaces(findings, draft, devices);
        tunnels(findings, draft, devices);
        addresses(findings, draft, devices);
    }
    source_routing(findings, draft, host);
    forwarding(findings, draft, host);
    unreadable(findings, draft, host);
}

fn interfaces(findings: &mut Findings<'_>, draft: &Draft, devices: &[Link]) {
    let names = || devices.iter().map(|device| device.name.as_str());
    for Located { value: name, span } in &draft.interfaces {
        if names().any(|present| present == name) {
            continue;
        }
        let near = nearest(name, names().filter(|present| *present != "lo"));
        let advice = near.map_or_else(
            || "`ip -brief link` lists this host's interfaces".to_owned(),
            |near| format!("did you mean \"{near}\"?"),
        );
        let message = format!(
            "this host has no interface {name} at present: no interface of that name is guarded until it appears; {advice}"
        );
        findings.warning("absent-interface", *span, message);
    }
}

/// Warns of interfaces that `up` refuses.
fn unreadable(findings: &mut Findings<'_>, draft: &Draft, host: &HostFacts) {
    for Located { value: name, span } in &draft.interfaces {
        if let Some(why) = host.unreadable.get(name) {
            findings.warning("unreadable-interface", *span, why.clone());
        }
    }
}

/// Warns of tunnels whose packets are unwrapped after they were judged.
fn tunnels(findings: &mut Findings<'_>, draft: &Draft, devices: &[Link]) {
    let Some(first) = draft.interfaces.first() else {
        return;
    };
    let guarded = |name: &str| draft.interfaces.iter().any(|of| of.value == name);
    let unwraps = |device: &&Link| {
        device.is_up
            && device.kind.as_deref().is_some_and(is_plain_tunnel)
            && !guarded(&device.name)
    };
    let tunnels: Vec<&Link> = devices.iter().filter(unwraps).collect();
    let shown = tunnels.iter().take(MOST_SHOWN).map(|device| {
        format!(
            "{} ({})",
            device.name,
            device.kind.as_deref().unwrap_or_default()
        )
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = match tunnels.len().saturating_sub(MOST_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if let Some(device) = tunnels.first() {
        let message = format!(
            "these tunnels unwrap packets after they were judged, and anyone can send such packets: \
             {shown}{more}; guard them too: add \"{}\" to `interfaces`",
            device.name
        );
        findings.warning("unguarded-tunnel", first.span, message);
    }
}

/// Warns of addresses of guarded interfaces that are easily forgotten in `addresses`.
fn addresses(findings: &mut Findings<'_>, draft: &Draft, devices: &[Link]) {
    let listed = draft.addresses.listed();
    let (Some(first), Some(last)) = (listed.first(), listed.last()) else {
        return;
    };
    let guarded = |ip: &IpAddr| listed.iter().any(|address| address.value == *ip);
    let mut gates = draft.gates.iter().filter(|gate| gate.protect_at.is_empty());
    // TCP works between single hosts only.
    let to_all = gates
        .clone()
        .flat_map(|gate| &gate.protect)
        .any(|port| port.value.protocol == Protocol::Udp);
    if !draft.gates.is_empty() && gates.next().is_none() {
        return;
    }
    // A router may list what is behind it. But where no address is this host's, its own have more likely been forgotten.
    let mut all = devices.iter().flat_map(|device| &device.addresses);
    let has_own = all.any(|address| guarded(&address.ip));
    let mut open = BTreeMap::new();
    for device in devices {
        if draft
            .interfaces
            .iter()
            .all(|name| name.value != device.name)
        {
            continue;
        }
        for address in &device.addresses {
            let is_local = match address.ip {
                IpAddr::V4(ip) => ip.is_link_local(),
                IpAddr::V6(ip) => ip.is_unicast_link_local(),
            };
            if is_local {
                open.insert(address.ip, "link-local");
            } else if address.is_temporary {
                open.insert(address.ip, "temporary");
            } else if !has_own {
                open.insert(address.ip, "this host's own");
            }
            if let Some(broadcast) = address.broadcast.filter(|_| to_all) {
                open.insert(broadcast.into(), "broadcast");
            }
        }
    }
    if to_all {
        open.insert(Ipv4Addr::BROADCAST.into(), "broadcast");
        open.insert(ALL_HOSTS_V4.into(), "every host");
        open.insert(ALL_HOSTS_V6.into(), "every host");
    }
    let left: Vec<String> = open
        .iter()
        .filter(|(ip, _)| !guarded(ip))
        .map(|(ip, what)| format!("{ip} ({what})"))
        .collect();
    if !left.is_empty() {
        let span = Span {
            start: first.span.start,
            end: last.span.end,
        };
        let message = format!(
            "the guarded ports stay open at addresses of this host that `addresses` does not list: {}; list them \
             too, or guard all of them with `addresses = \"host\"`",
            left.join(", ")
        );
        findings.warning("addresses-left-open", span, message);
    }
}

fn source_routing(findings: &mut Findings<'_>, draft: &Draft, host: &HostFacts) {
    for Located { value: name, span } in &draft.interfaces {
        let on = host.source_routing.get(name);
        for setting in on.into_iter().flatten() {
            let message = format!(
                "{setting} is on: a packet that arrives on {name} may get another destination, or be unwrapped, \
                 after it was judged; where nothing needs it, switch it off: `sysctl -w {setting}=0`"
            );
            findings.warning("source-routing", *span, message);
        }
    }
}

/// Warns of interfaces where IPv6 packets to other hosts are taken for this host's.
fn forwarding(findings: &mut Findings<'_>, draft: &Draft, host: &HostFacts) {
    if !matches!(draft.addresses, DraftAddresses::Host) {
        return;
    }
    for Located { value: name, span } in &draft.interfaces {
        if host.forwarding_unsaid.contains(name) {
            let message = format!(
                "net/ipv6/conf/{name}/forwarding is 0, so IPv6 packets to other hosts that arrive on {name} are guarded as if \
                 they were for this host, and the kernel forwards them all the same (`all/forwarding` or `force_forwarding` is \
                 1): at protected ports they are denied. Switch it on: `sysctl -w net/ipv6/conf/{name}/forwarding=1`, with \
                 `accept_ra` 2 where router advertisements are needed; or list the addresses"
            );
            findings.warning("ipv6-forwarding", *span, message);
        }
    }
}

/// Kinds of device that unwrap packets that anyone can make: those of `WireGuard` and `IPsec` are authenticated.
const PLAIN_TUNNELS: &[&str] = &[
    "ipip",
    "ip6tnl",
    "sit",
    "gre",
    "ip6gre",
    "gretap",
    "ip6gretap",
    "erspan",
    "ip6erspan",
    "vxlan",
    "geneve",
    "bareudp",
    "gtp",
    "amt",
];

fn is_plain_tunnel(kind: &str) -> bool {
    PLAIN_TUNNELS.contains(&kind)
}
