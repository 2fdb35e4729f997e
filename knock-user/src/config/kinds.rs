//! The kinds of value that are written as strings: how each is read, and the message where it cannot be.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Listen,
    hook::{EVENT_KEYS, Piece, pieces},
};
use crate::{
    keys::KeyName,
    values::{Port, nearest, parse_duration, parse_name},
};

/// A kind of value that is written as a string.
pub(super) struct Kind<T> {
    /// The code of the finding when the string cannot be read.
    pub(super) code: &'static str,
    /// What it is, with an example; follows "must be" in messages.
    pub(super) expected: &'static str,
    pub(super) parse: fn(&str) -> Result<T, String>,
    /// Returns what to write in place of a bare number.
    pub(super) for_number: Option<fn(&str) -> String>,
}

pub(super) const DURATION: Kind<Duration> = Kind {
    code: "bad-duration",
    expected: "a duration such as \"30s\"",
    parse: parse_duration,
    for_number: Some(|number| format!("\"{number}s\"")),
};

pub(super) const PORT: Kind<Port> = Kind {
    code: "bad-port",
    expected: "a port such as \"22/tcp\"",
    parse: Port::from_str,
    for_number: Some(|number| format!("\"{number}/tcp\" or \"{number}/udp\"")),
};

pub(super) const NETWORK: Kind<IpNet> = Kind {
    code: "bad-network",
    expected: "a network such as \"192.0.2.0/24\"",
    parse: parse_network,
    for_number: None,
};

pub(super) const ADDRESS: Kind<IpAddr> = Kind {
    code: "bad-address",
    expected: "an address such as \"192.0.2.1\"",
    parse: parse_address,
    for_number: None,
};

pub(super) const LISTEN: Kind<Listen> = Kind {
    code: "bad-listen",
    expected: "\"off\", an address with a port such as \"127.0.0.1:9464\", or \"unix:\" and a path",
    parse: Listen::from_str,
    for_number: Some(|number| format!("\"127.0.0.1:{number}\"")),
};

pub(super) const INTERFACE: Kind<String> = Kind {
    code: "bad-interface",
    expected: "an interface name such as \"eth0\"",
    parse: parse_interface,
    for_number: None,
};

pub(super) const NAME: Kind<String> = Kind {
    code: "bad-name",
    expected: "a name such as \"ssh\"",
    parse: parse_name,
    for_number: Some(|number| format!("\"{number}\"")),
};

pub(super) const KEY_NAME: Kind<KeyName> = Kind {
    code: "bad-key",
    expected: "a key such as \"alice/laptop\"",
    parse: KeyName::from_str,
    for_number: Some(|number| format!("\"{number}\"")),
};

pub(super) const FOLDER: Kind<PathBuf> = Kind {
    code: "bad-folder",
    expected: "a folder such as \"/etc/knockgate/keys\"",
    parse: parse_folder,
    for_number: None,
};

pub(super) const FILE: Kind<PathBuf> = Kind {
    code: "bad-file",
    expected: "a file such as \"/etc/knockgate/fleet/host.pem\"",
    parse: parse_file,
    for_number: None,
};

pub(super) const ENDPOINT: Kind<String> = Kind {
    code: "bad-endpoint",
    expected: "an etcd member such as \"https://etcd1:2379\"",
    parse: parse_endpoint,
    for_number: None,
};

pub(super) const NEXT: Kind<PathBuf> = Kind {
    code: "bad-next",
    expected: "\"none\", or the path of a pinned program such as \"/sys/fs/bpf/balancer/program\"",
    parse: |text| parse_pin(text, "program"),
    for_number: None,
};

pub(super) const ARGUMENT: Kind<String> = Kind {
    code: "bad-argument",
    expected: "a program or an argument such as \"{source}\"",
    parse: parse_argument,
    for_number: Some(|number| format!("\"{number}\"")),
};

/// Reads an argument of a hook, whose placeholders must be keys of events.
fn parse_argument(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err(format!(
            "{text:?} has a NUL character, which no argument can contain"
        ));
    }
    for piece in pieces(text) {
        let Piece::Placeholder(name) = piece else {
            continue;
        };
        if EVENT_KEYS.contains(&name) {
            continue;
        }
        let advice = if let Some(near) = nearest(name, EVENT_KEYS) {
            format!("did you mean {{{near}}}?")
        } else {
            let all = EVENT_KEYS.map(|key| format!("{{{key}}}"));
            format!(
                "the placeholders are {}; for the text itself, write {{ {name} }}",
                all.join(" ")
            )
        };
        return Err(format!("unknown placeholder {{{name}}}; {advice}"));
    }
    Ok(text.to_owned())
}

fn parse_folder(text: &str) -> Result<PathBuf, String> {
    absolute(text).ok_or_else(|| {
        format!("{text:?} must be the absolute path of a folder, since commands are given from any folder")
    })
}

/// Reads the path of a file. The message does not quote it: it may be a key that was pasted in place of its file.
fn parse_file(text: &str) -> Result<PathBuf, String> {
    let message = "write the absolute path of a file, since commands are given from any folder";
    absolute(text).ok_or_else(|| message.to_owned())
}

fn absolute(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    (path.is_absolute() && !text.contains('\0')).then_some(path)
}

/// Reads `https://HOST:PORT`, with a name or an address as the host. A port is always written: etcd's is not that of https.
fn parse_endpoint(text: &str) -> Result<String, String> {
    let Some(authority) = text.strip_prefix("https://") else {
        let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
        return Err(format!(
            "{text:?} must begin with https://, since the fleet trusts no member that does not prove who it is: write \
             \"https://{bare}\""
        ));
    };
    let unfit = || {
        let host = authority.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        let host = if host.is_empty() || host.contains('[') {
            "etcd1"
        } else {
            host
        };
        format!(
            "{text:?} must be a host and a port, and nothing else: write it like \"https://{host}:2379\""
        )
    };
    let (host, port) = authority.rsplit_once(':').ok_or_else(unfit)?;
    let is_port =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
    let within = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_host = if let Some(address) = within {
        address.parse::<Ipv6Addr>().is_ok()
    } else {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        (1..=253).contains(&host.len()) && host.bytes().all(known)
    };
    if is_port && is_host {
        Ok(text.to_owned())
    } else {
        Err(unfit())
    }
}

/// Reads the path at which `what` is pinned.
pub(crate) fn parse_pin(text: &str, what: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.contains('\0') || path.file_name().is_none() {
        return Err(format!(
            "{text:?} must be the absolute path of a pinned {what}, such as \"/sys/fs/bpf/{what}\""
        ));
    }
    Ok(path)
}

/// Reads the name of an interface, by the kernel's rules.
pub(crate) fn parse_interface(text: &str) -> Result<String, String> {
    let refused = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if !(1..=15).contains(&text.len()) || matches!(text, "." | "..") || text.contains(refused) {
        return Err(format!(
            "{text:?} cannot be the name of an interface (1 to 15 characters, no space, / or :); \
             `ip -brief link` lists this host's"
        ));
    }
    Ok(text.to_owned())
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    if let Some(fault) = mapped_fault(text, Some(32)) {
        return Err(fault);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let full = IpNet::from(address);
        return Err(format!(
            "{text:?} has no prefix length: write {full} for this address alone"
        ));
    }
    let network = text.parse::<IpNet>().map_err(|_| network_fault(text))?;
    let cut = network.trunc();
    if network != cut {
        let alone = IpNet::from(network.addr());
        return Err(format!(
            "{text:?} has bits set beyond its prefix length: write {cut} for the network, \
             or {alone} for the address alone"
        ));
    }
    Ok(network)
}

fn network_fault(text: &str) -> String {
    // In a list of networks a single address needs its prefix length too.
    if let Some(fault) = zone_fault(text, Some("128")) {
        return fault;
    }
    let longest = text.split_once('/').and_then(|(address, _)| {
        let v4 = address.parse::<Ipv4Addr>().ok().map(|_| 32);
        v4.or_else(|| address.parse::<Ipv6Addr>().ok().map(|_| 128))
    });
    match longest {
        Some(bits) => format!("{text:?} must end with a prefix length from /0 to /{bits}"),
        None => format!("{text:?} is not a network: write it like 192.0.2.0/24 or 2001:db8::/32"),
    }
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    if let Some(fault) = mapped_fault(text, None) {
        return Err(fault);
    }
    text.parse().map_err(|_| match text.parse::<IpNet>() {
        Ok(network) => format!(
            "{text:?} is a network: write {} without a prefix length",
            network.addr()
        ),
        Err(_) => zone_fault(text, None).unwrap_or_else(|| {
            format!("{text:?} is not an address: write it like 192.0.2.1 or 2001:db8::1")
        }),
    })
}

/// Returns what to write instead of an IPv4-mapped IPv6 address (RFC 4291 2.5.5.2) or a network of such.
///
/// Programs show the IPv4 ends of their IPv6 sockets so, but IPv4 packets do not hold that form. A single address gets the prefix
/// length `length_of_one`.
pub(crate) fn mapped_fault(text: &str, length_of_one: Option<u8>) -> Option<String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?.checked_sub(96)?)),
        None => (text, length_of_one),
    };
    let address = address.parse::<Ipv6Addr>().ok()?.to_ipv4_mapped()?;
    let network = length.and_then(|length| Ipv4Net::new(address, length).ok());
    let instead = network.map_or_else(
        || address.to_string(),
        |network| network.trunc().to_string(),
    );
    Some(format!(
        "{text:?} is in a form that IPv4 packets do not hold: write {instead}"
    ))
}

/// Returns what to write instead of an address with a zone, such as `fe80::1%eth0` or `fe80::1%eth0/64`.
///
/// A zone names the interface by which this machine reaches an address; it is not part of a packet. A single
/// address gets the prefix length `length_of_one`.
pub(crate) fn zone_fault(text: &str, length_of_one: Option<&str>) -> Option<String> {
    let (address, rest) = text.split_once('%')?;
    let ip: Ipv6Addr = address.parse().ok()?;
    let (zone, length) = match rest.split_once('/') {
        Some((zone, length)) => (zone, Some(length)),
        None => (rest, length_of_one),
    };
    let network = length
        .and_then(|length| Ipv6Net::new(ip, length.parse().ok()?).ok())
        .map(|network| network.trunc());
    let without = network.map_or_else(|| ip.to_string(), |network| network.to_string());
    Some(format!(
        "{text:?} has a zone, which a packet does not hold: write {without}, without %{zone}"
    ))
}
