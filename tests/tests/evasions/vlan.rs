//! VLANs in which the host has devices, which remove the tags before the services get the packets.

use std::{net::IpAddr, time::Duration};

use knockgate_tests::{
    attempt::{self, Outcome},
    lab::{CLIENT_INTERFACE, WAN},
    need::kernel_has,
    network::{add_address, ip},
};
use netlab::{Netns, packet::Tag};

use crate::{
    ANY, BOTH,
    Fate::{Dropped, Malformed, Served},
    Row, frame, row,
    target::{TCP_SERVICE, Target},
};

/// Name of a device, the device below it, the protocol of its tag, and the VLAN id.
const DEVICES: [[&str; 4]; 5] = [
    ["seven", "", "802.1Q", "7"],
    ["five", "", "802.1ad", "5"],
    ["five.seven", "five", "802.1Q", "7"],
    ["five.seven.nine", "five.seven", "802.1Q", "9"],
    ["seven.nine", "seven", "802.1Q", "9"],
];

/// Devices with addresses, and their networks: the host is the first in each, the client the second.
const CLIENTS: [(&str, [&str; 2]); 3] = [
    ("seven", ["10.78.0.", "fd78::"]),
    ("five.seven", ["10.79.0.", "fd79::"]),
    ("seven.nine", ["10.80.0.", "fd80::"]),
];

/// Makes the devices at both ends. Returns whether the kernel has such devices.
pub fn join(target: &Target) -> bool {
    let ends = [
        (&target.lab.host, WAN, "1"),
        (&target.lab.client, CLIENT_INTERFACE, "2"),
    ];
    for (netns, interface, number) in ends {
        for device in &DEVICES {
            if !add(netns, interface, device) {
                return false;
            }
        }
        for (device, [v4, v6]) in CLIENTS {
            add_address(netns, device, &format!("{v4}{number}/24"));
            add_address(netns, device, &format!("{v6}{number}/64"));
        }
    }
    true
}

fn add(netns: &Netns, interface: &str, [name, within, protocol, id]: &[&str; 4]) -> bool {
    let within = if within.is_empty() {
        interface
    } else {
        *within
    };
    let link = format!("link add link {within} name {name} type vlan protocol {protocol} id {id}");
    let added = kernel_has("VLAN devices", netns, &link);
    if added {
        ip(netns, &format!("link set {name} up"));
    }
    added
}

pub fn rows() -> Vec<Row> {
    const PRIORITY: Tag = Tag::PRIORITY;
    const SERVICE_PRIORITY: Tag = Tag::service(0);
    const SEVEN: Tag = Tag::vlan(7);
    const NINE: Tag = Tag::vlan(9);
    const FIVE: Tag = Tag::service(5);
    const ELSEWHERE: Tag = Tag::service(7);
    let rows: [(_, &[Tag]); 19] = [
        (Served, &[SEVEN]),
        (Served, &[FIVE]),
        (Served, &[FIVE, SEVEN]),
        (Served, &[SEVEN, NINE]),
        (Served, &[PRIORITY, SEVEN]),
        (Served, &[SEVEN, PRIORITY]),
        (Served, &[FIVE, PRIORITY]),
        (Served, &[SEVEN, SERVICE_PRIORITY]),
        (Served, &[SERVICE_PRIORITY, FIVE]),
        // More tags than are read.
        (Malformed, &[FIVE, SEVEN, NINE]),
        (Malformed, &[PRIORITY, FIVE, SEVEN]),
        (Malformed, &[FIVE, PRIORITY, SEVEN]),
        (Malformed, &[FIVE, SEVEN, PRIORITY]),
        (Malformed, &[PRIORITY, SEVEN, PRIORITY]),
        (Malformed, &[SEVEN, PRIORITY, PRIORITY]),
        // VLANs in which the host has no device.
        (Dropped, &[NINE]),
        (Dropped, &[SEVEN, FIVE]),
        (Dropped, &[PRIORITY, NINE]),
        (Dropped, &[ELSEWHERE]),
    ];
    let rows = rows.into_iter().map(|(fate, tags)| {
        row(format!("{tags:x?}"), BOTH, ANY, fate, move |packet| {
            let tags = tags.iter();
            vec![frame(&tags.fold(packet, |packet, &tag| packet.tagged(tag)))]
        })
    });
    let fragments = row("fragments in two VLANs", BOTH, ANY, Served, |packet| {
        crate::fragments::cut(&packet.tagged(FIVE).tagged(SEVEN), &[24])
    });
    rows.chain([fragments]).collect()
}

/// Connects from the client in each VLAN to the host's address there.
#[track_caller]
pub fn expect_clients(target: &Target, connected: bool) {
    for (to, from) in clients() {
        // One SYN is enough if none may pass.
        let wait = Duration::from_millis(if connected { 60_000 } else { 300 });
        let attempt = target
            .lab
            .client
            .run(|| attempt::connect((from, 0).into(), (to, TCP_SERVICE).into(), wait));
        let outcome = attempt.map_or_else(|outcome| outcome, |_| Outcome::Open);
        let expected = if connected {
            Outcome::Open
        } else {
            Outcome::Silent
        };
        assert_eq!(outcome, expected, "{from} in a VLAN");
    }
}

/// Knocks from the client in each VLAN.
pub fn clients_knock(target: &Target) {
    for (to, from) in clients() {
        target.lab.client.run(|| {
            attempt::datagram((from, 0).into(), (to, 7000).into());
            attempt::syn((from, 0).into(), (to, 8443).into());
            attempt::datagram((from, 0).into(), (to, 9301).into());
        });
    }
}

/// Returns the addresses of host and client in each VLAN, for both families.
fn clients() -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let networks = CLIENTS.into_iter().flat_map(|(_, networks)| networks);
    networks.map(|network| {
        let address = |number: u8| {
            let address = format!("{network}{number}");
            address.parse().expect("well-formed")
        };
        (address(1), address(2))
    })
}
