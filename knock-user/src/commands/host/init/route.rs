//! The interface of the default route.

use std::fs;

use anyhow::bail;

/// Returns the interface of the default route, of IPv4 if there is one, else of IPv6.
///
/// The error lists the host's interfaces, one of which has to be given instead.
pub(super) fn default_interface() -> anyhow::Result<String> {
    // A kernel without one of the families does not have its table.
    let table = |path| fs::read_to_string(path).unwrap_or_default();
    let interface = default_v4(&table("/proc/net/route"))
        .or_else(|| default_v6(&table("/proc/net/ipv6_route")));
    if let Some(interface) = interface {
        return Ok(interface);
    }
    let devices = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let known = match interfaces(&devices).as_slice() {
        [] => String::new(),
        names => format!(" (this host has {})", names.join(", ")),
    };
    bail!(
        "there is no default route to tell which interface to guard: name it with -i IFACE{known}"
    )
}

// From include/uapi/linux/route.h.
const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;

/// Columns: interface, destination, gateway, flags, references, use, metric (decimal), mask, …
fn default_v4(table: &str) -> Option<String> {
    best(table.lines().skip(1).filter_map(|line| {
        let words = line.split_whitespace().collect::<Vec<_>>();
        let [
            interface,
            "00000000",
            _,
            flags,
            _,
            _,
            metric,
            "00000000",
            ..,
        ] = words.as_slice()
        else {
            return None;
        };
        usable(flags).then_some((metric.parse().ok()?, (*interface).to_owned()))
    }))
}

/// Columns: destination, its length, source, its length, next hop, metric (hexadecimal), references,
/// use, flags, interface.
fn default_v6(table: &str) -> Option<String> {
    best(table.lines().filter_map(|line| {
        let words = line.split_whitespace().collect::<Vec<_>>();
        let [_, "00", _, "00", _, metric, _, _, flags, interface] = words.as_slice() else {
            return None;
        };
        usable(flags).then_some((
            u32::from_str_radix(metric, 16).ok()?,
            (*interface).to_owned(),
        ))
    }))
}

/// Returns the interface with the lowest metric, the first of several.
fn best(routes: impl Iterator<Item = (u32, String)>) -> Option<String> {
    routes
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, interface)| interface)
}

fn usable(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & RTF_UP != 0 && flags & RTF_REJECT == 0)
}

/// Returns the names in `/proc/net/dev`, without the loopback interface.
fn interfaces(devices: &str) -> Vec<&str> {
    let names = devices
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()));
    names.filter(|name| *name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_with_the_lowest_metric_wins() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            dead0\t00000000\t00000000\t0200\t0\t0\t1\t00000000\t0\t0\t0\n\
            half0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_v4(table).as_deref(), Some("eth0"));
        assert_eq!(default_v4("Iface\tDestination\n"), None);
    }

    #[test]
    fn an_ipv6_default_route_is_found_and_the_unreachable_one_is_not() {
        let nowhere = "00000000000000000000000000000000";
        let route = |metric: &str, flags: &str, interface: &str| {
            format!(
                "{nowhere} 00 {nowhere} 00 {nowhere} {metric} 00000001 00000000 {flags} {interface}\n"
            )
        };
        let unreachable = route("ffffffff", "00200200", "lo");
        assert_eq!(default_v6(&unreachable), None);
        let table = unreachable
            + &route("00000400", "00450003", "eth1")
            + &route("00000100", "00450003", "eth0");
        assert_eq!(default_v6(&table).as_deref(), Some("eth0"));
    }

    #[test]
    fn interfaces_are_named_without_the_loopback() {
        let devices = "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  eth0: 1 2\nveth1a: 0 0\n";
        assert_eq!(interfaces(devices), ["eth0", "veth1a"]);
    }
}
