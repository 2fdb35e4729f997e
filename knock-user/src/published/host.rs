//! What this host must be known by to tell where a published port is guarded.

use std::{fs, net::IpAddr};

use ipnet::IpNet;

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
    /// With `addresses = "host"`, packets for other hosts are not guarded: a guarded interface forwards them, or takes them as a
    /// bridge does.
    pub lets_others_by: bool,
}

impl Host {
    /// Reads the facts for a configuration.
    pub fn of(config: &Config) -> Self {
        // Without an answer, only rules for the guarded interfaces themselves count.
        let links = links::all().unwrap_or_default();
        let guarded = guarded(config, &links);
        let forwards = |name: &str| {
            ["ipv4", "ipv6"].iter().any(|family| {
                let path = format!("/proc/sys/net/{family}/conf/{name}/forwarding");
                fs::read_to_string(path).is_ok_and(|value| value.trim() != "0")
            })
        };
        let lets_others_by = match config.interfaces.as_slice() {
            [] => forwards("all"),
            names => names.iter().any(|name| forwards(name)),
        } || is_bridged(&guarded, &links);
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
            lets_others_by,
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
