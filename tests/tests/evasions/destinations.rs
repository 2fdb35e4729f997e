//! The same port of the same host, at other addresses.

use std::net::IpAddr;

use knockgate_tests::lab::{CLIENT_MAC, Family};

use crate::{
    ANY, BOTH, DATAGRAM,
    Fate::{self, Dropped, Served},
    Row, SYN, V4, V6, frame, row,
};

const EVERYONE: [u8; 6] = [0xff; 6];

pub fn rows() -> Vec<Row> {
    let v4 = [
        ("10.77.0.9", Served, Served),
        // UDP accepts broadcast and multicast destinations, TCP does not.
        ("255.255.255.255", Served, Dropped),
        ("10.77.255.255", Served, Dropped),
        ("224.0.0.1", Served, Dropped),
        // A multicast group that the host has not joined, loopback, another host.
        ("239.1.2.3", Dropped, Dropped),
        ("127.0.0.1", Dropped, Dropped),
        ("10.77.0.200", Dropped, Dropped),
    ];
    let v6 = [
        ("fd77::9", Served, Served),
        // The host's link-local address.
        ("fe80::ff:fe00:1", Served, Served),
        // All nodes, and the host's solicited-node group.
        ("ff02::1", Served, Dropped),
        ("ff02::1:ff00:1", Served, Dropped),
        ("ff01::1", Dropped, Dropped),
        ("ff02::1:2:3", Dropped, Dropped),
        ("::1", Dropped, Dropped),
        ("fd77::200", Dropped, Dropped),
        // The host's IPv4 address as an IPv4-mapped one.
        ("::ffff:10.77.0.1", Dropped, Dropped),
    ];
    let v4 = v4.into_iter().map(|row| (V4, row));
    let v6 = v6.into_iter().map(|row| (V6, row));
    let mut rows: Vec<Row> = v4
        .chain(v6)
        .flat_map(|(family, (to, datagram, syn))| {
            [(DATAGRAM, datagram), (SYN, syn)].map(|(probes, fate): (_, Fate)| {
                row(format!("to {to}"), family, probes, fate, move |packet| {
                    let to = to.parse().expect("well-formed");
                    vec![frame(&packet.sent_to(to))]
                })
            })
        })
        .collect();
    rows.push(row(
        "from the unspecified address to itself",
        V4,
        DATAGRAM,
        Served,
        |packet| {
            let nowhere = [0; 4].into();
            vec![frame(&packet.sent_from(nowhere).sent_to(nowhere))]
        },
    ));
    rows.push(row(
        "broadcast, in fragments",
        V4,
        DATAGRAM,
        Served,
        |packet| {
            let packet = packet.sent_to([255; 4].into());
            packet.fragments(CLIENT_MAC, EVERYONE, &[8, 24])
        },
    ));
    rows.push(row(
        "to all nodes, in fragments",
        V6,
        DATAGRAM,
        Served,
        |packet| {
            let all: IpAddr = "ff02::1".parse().expect("well-formed");
            packet
                .sent_to(all)
                .fragments(CLIENT_MAC, [0x33, 0x33, 0, 0, 0, 1], &[8, 24])
        },
    ));
    rows.push(row(
        "to its other address, in fragments",
        BOTH,
        ANY,
        Served,
        |packet| {
            let family = if packet.is_ipv4() {
                Family::V4
            } else {
                Family::V6
            };
            packet.sent_to(family.other_host_address()).fragments(
                CLIENT_MAC,
                knockgate_tests::lab::HOST_MAC,
                &[24],
            )
        },
    ));
    rows
}
