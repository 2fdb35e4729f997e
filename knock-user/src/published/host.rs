//! What this host must be known by to tell where a published port is guarded.

use std::{fs, net::IpAddr, path::Path};

use ipnet::IpNet;

use super::Family;
use crate::{
    config::Config,
    datapath::is_bridged,
    sys::{
        links::{self, Link, is_above},
        routes::{self, LocalRoute},
    },
};

/// Facts about this host. With the default nothing is known, and so nothing is guarded for sure.
#[derive(Debug, Clone, Default)]
pub struct Host {
    pub links: Vec<Link>,
    /// Its own addresses without loopback ones, and the networks that are routed to it; `None`: they cannot be read.
    pub own: Option<Vec<IpNet>>,
    /// Families of which no packets for other hosts pass: no guarded interface forwards them, or takes them as a bridge does. With
    /// `addresses = "host"`, every destination is guarded then.
    pub ends_others: Vec<Family>,
}

impl Host {
    /// Reads the facts for a configuration.
    pub fn of(config: &Config) -> Self {
        let links = links::all();
        let is_known = links.is_ok();
        // Without an answer, only rules for the guarded interfaces themselves count.
        let links = links.unwrap_or_default();
        let guarded = if config.interfaces.is_empty() {
            // Those that a command will name.
            links.iter().map(|link| link.index).collect()
        } else {
            guarded(config, &links)
        };
        let is_off = |folder: &str, name: &str| {
            let of = |name: &str| {
                fs::read_to_string(format!("/proc/sys/net/{folder}/conf/{name}/forwarding"))
            };
            // What an interface will have that is not there yet.
            let value = of(name).or_else(|_| of("default"));
            value.map_or_else(
                |_| !Path::new("/proc/sys/net").join(folder).exists(),
                |value| value.trim() == "0",
            )
        };
        let all_off = |folder: &str| match config.interfaces.as_slice() {
            [] => is_off(folder, "all") && is_off(folder, "default"),
            names => names.iter().all(|name| is_off(folder, name)),
        };
        let mut ends_others = Vec::new();
        if is_known && !is_bridged(&guarded, &links) {
            ends_others.extend(all_off("ipv4").then_some(Family::V4));
            ends_others.extend(all_off("ipv6").then_some(Family::V6));
        }
        let own = routes::local().ok().map(|routes| {
            let is_elsewhere = |route: &LocalRoute| {
                let is_link_local = match route.destination {
                    IpAddr::V4(_) => false,
                    IpAddr::V6(ip) => ip.is_unicast_link_local(),
                };
                let device = route.device.unwrap_or_default();
                is_link_local && !guarded.contains(&device) && !is_above(device, &guarded, &links)
            };
            let counts = |route: &&LocalRoute| {
                // A route for every address is a proxy's, for packets that a mark leads to a table of its own.
                let is_special = route.is_anycast || route.prefix == 0;
                !is_special && !route.destination.is_loopback() && !is_elsewhere(route)
            };
            let counted = routes.iter().filter(counts);
            counted
                .filter_map(|route| IpNet::new(route.destination, route.prefix).ok())
                .collect()
        });
        Self {
            links,
            own,
            ends_others,
        }
    }
}

/// Returns the indices of the guarded interfaces.
pub fn guarded(config: &Config, links: &[Link]) -> Vec<u32> {
    let guarded = links
        .iter()
        .filter(|link| config.interfaces.contains(&link.name));
    guarded.map(|link| link.index).collect()
}
