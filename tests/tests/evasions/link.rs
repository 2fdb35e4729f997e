//! Link headers, tags and padding.

use knockgate_tests::lab::{CLIENT_MAC, HOST_MAC};
use netlab::packet::Tag;

use crate::{
    ANY, BOTH, DATAGRAM,
    Fate::{Dropped, Malformed, Served},
    Row, SYN, edited, frame, row,
};

const EVERYONE: [u8; 6] = [0xff; 6];
const GROUP: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 1];
const SERVICE_PRIORITY: Tag = Tag::service(0);
const VLAN: Tag = Tag::vlan(7);

pub fn rows() -> Vec<Row> {
    let tags: [(&str, _, &[Tag]); 8] = [
        ("priority tag", Served, &[Tag::PRIORITY]),
        ("service priority tag", Served, &[SERVICE_PRIORITY]),
        ("two priority tags", Served, &[Tag::PRIORITY; 2]),
        (
            "a service priority tag and another",
            Served,
            &[SERVICE_PRIORITY, Tag::PRIORITY],
        ),
        ("three priority tags", Malformed, &[Tag::PRIORITY; 3]),
        ("ten priority tags", Malformed, &[SERVICE_PRIORITY; 10]),
        // The host has no device in that VLAN.
        ("VLAN tag", Dropped, &[VLAN]),
        (
            "VLAN tag inside a priority tag",
            Dropped,
            &[Tag::PRIORITY, VLAN],
        ),
    ];
    let tagged = tags.into_iter().map(|(what, fate, tags)| {
        row(what, BOTH, ANY, fate, move |packet| {
            let tags = tags.iter();
            vec![frame(&tags.fold(packet, |packet, &tag| packet.tagged(tag)))]
        })
    });
    let mut rows = vec![
        row("plain", BOTH, ANY, Served, |packet| vec![frame(&packet)]),
        edited("a byte of padding", BOTH, ANY, Served, |frame| {
            frame.push(0);
        }),
        edited("a frame full of padding", BOTH, ANY, Served, |frame| {
            frame.resize(1514, 0x16);
        }),
        // With a broadcast or multicast MAC address, the host accepts datagrams, but no connections.
        row("broadcast frame", BOTH, DATAGRAM, Served, |packet| {
            vec![packet.frame(CLIENT_MAC, EVERYONE)]
        }),
        row("broadcast frame", BOTH, SYN, Dropped, |packet| {
            vec![packet.frame(CLIENT_MAC, EVERYONE)]
        }),
        row("multicast frame", BOTH, DATAGRAM, Served, |packet| {
            vec![packet.frame(CLIENT_MAC, GROUP)]
        }),
        row(
            "frame to another MAC address",
            BOTH,
            ANY,
            Dropped,
            |packet| vec![packet.frame(CLIENT_MAC, [2, 0, 0, 0, 0, 9])],
        ),
        row(
            "frame from the host's own MAC address",
            BOTH,
            ANY,
            Served,
            |packet| vec![packet.frame(HOST_MAC, HOST_MAC)],
        ),
        row(
            "IP in IEEE 802.3 with LLC and SNAP",
            BOTH,
            ANY,
            Dropped,
            |packet| {
                let mut frame = frame(&packet);
                let length = u16::try_from(frame.len() - 14 + 8).expect("a short frame");
                let header = [&length.to_be_bytes()[..], &[0xaa, 0xaa, 3, 0, 0, 0]].concat();
                frame.splice(12..12, header);
                vec![frame]
            },
        ),
        edited(
            "the other family's ethertype",
            BOTH,
            ANY,
            Dropped,
            |frame| {
                let other = if frame[12] == 0x08 {
                    [0x86, 0xdd]
                } else {
                    [0x08, 0x00]
                };
                frame[12..14].copy_from_slice(&other);
            },
        ),
    ];
    rows.extend(behind_others());
    rows.extend(tagged);
    rows
}

/// Headers before IP that only a host with a special device would remove.
fn behind_others() -> impl Iterator<Item = Row> {
    // The bytes in place of the ethertypes of IPv4 and of IPv6.
    let headers: [(_, [&[u8]; 2]); 8] = [
        (
            "an old ethertype of tags",
            [&[0x91, 0, 0, 7, 8, 0], &[0x91, 0, 0, 7, 0x86, 0xdd]],
        ),
        (
            "another old ethertype of tags",
            [&[0x92, 0, 0, 0, 8, 0], &[0x92, 0, 0, 0, 0x86, 0xdd]],
        ),
        (
            "a tag of congestion",
            [&[0x89, 0xa2, 0, 0, 8, 0], &[0x89, 0xa2, 0, 0, 0x86, 0xdd]],
        ),
        (
            "MPLS's label for it",
            [&[0x88, 0x47, 0, 0, 0x01, 64], &[0x88, 0x47, 0, 0, 0x21, 64]],
        ),
        (
            "PPPoE",
            [
                &[0x88, 0x64, 0x11, 0, 0, 1, 0, 90, 0, 0x21],
                &[0x88, 0x64, 0x11, 0, 0, 1, 0, 110, 0, 0x57],
            ],
        ),
        (
            "HSR's tag",
            [
                &[0x89, 0x2f, 0, 90, 0, 1, 8, 0],
                &[0x89, 0x2f, 0, 110, 0, 1, 0x86, 0xdd],
            ],
        ),
        (
            "MACsec's tag",
            [
                &[0x88, 0xe5, 0, 0, 0, 0, 0, 1, 8, 0],
                &[0x88, 0xe5, 0, 0, 0, 0, 0, 1, 0x86, 0xdd],
            ],
        ),
        (
            "a header of PPP alone",
            [&[0x88, 0x0b, 0, 0x21], &[0x88, 0x0b, 0, 0x57]],
        ),
    ];
    headers.into_iter().map(|(what, [v4, v6])| {
        row(what, BOTH, ANY, Dropped, move |packet| {
            let mut frame = frame(&packet);
            let header = if packet.is_ipv4() { v4 } else { v6 };
            frame.splice(12..14, header.iter().copied());
            vec![frame]
        })
    })
}
