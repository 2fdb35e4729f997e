//! A host to which the guarded host forwards.

use std::{
    net::{IpAddr, TcpStream},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use knockgate_tests::{
    attempt::Outcome,
    lab::{Family, Source::A},
    network::{add_address, ip, set},
    run::wait_until,
    scenario::Scenario,
    service::Services,
};
use netlab::Netns;

/// A host with a TCP service on port 22, and the way to it through the host of a scenario.
pub struct Behind {
    server: IpAddr,
    network: &'static str,
    _services: Services,
    _netns: Netns,
}

impl Behind {
    /// Makes one, with nothing guarded meanwhile.
    pub fn of(scenario: &Scenario) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let behind = Netns::create(&format!("kg{}-behind{number}", process::id()));
        let behind = behind.unwrap_or_else(|error| panic!("{error}"));
        let services = Services::start(&behind, &[22], &[]);
        let (guarded, client) = (&scenario.lab.host, &scenario.lab.client);
        let (lan, router, server, network, host) = match scenario.family {
            Family::V4 => (
                "lan4",
                "10.78.0.1",
                "10.78.0.2",
                "10.78.0.0/24",
                "10.77.0.1",
            ),
            Family::V6 => ("lan6", "fd78::1", "fd78::2", "fd78::/64", "fd77::1"),
        };
        let (name, far) = (guarded.name(), behind.name());
        ip(
            guarded,
            &format!("link add {lan} netns {name} type veth peer eth0 netns {far}"),
        );
        let (_, length) = network.split_once('/').expect("a prefix length");
        for (netns, interface, address) in [(guarded, lan, router), (&behind, "eth0", server)] {
            ip(netns, &format!("link set {interface} up"));
            add_address(netns, interface, &format!("{address}/{length}"));
        }
        let anywhere = if scenario.family == Family::V4 {
            "default"
        } else {
            "::/0"
        };
        ip(&behind, &format!("route add {anywhere} via {router}"));
        ip(client, &format!("route add {network} via {host}"));
        set(
            guarded,
            &["ipv4/ip_forward", "ipv6/conf/all/forwarding"],
            "1",
        );
        let behind = Self {
            server: server.parse().expect("an address"),
            network,
            _services: services,
            _netns: behind,
        };
        // The instance of the other family may still be up.
        scenario.knockgate("down --all").exits(0);
        // New links need some time.
        wait_until("the host forwards", || behind.connect(scenario).is_ok());
        behind
    }

    /// Returns the network that it is in.
    pub fn network(&self) -> &'static str {
        self.network
    }

    /// Connects to its service.
    pub fn connect(&self, scenario: &Scenario) -> Result<TcpStream, Outcome> {
        self.connect_within(scenario, Duration::from_secs(20))
    }

    /// As [`Behind::connect`], and waits no longer than this.
    pub fn connect_within(
        &self,
        scenario: &Scenario,
        patience: Duration,
    ) -> Result<TcpStream, Outcome> {
        scenario.connect(A, self.server, 22, patience)
    }
}
