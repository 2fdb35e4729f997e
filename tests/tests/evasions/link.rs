//! What stands before IP, and behind it.

use knockgate_tests::{
    lab::{CLIENT_MAC, GATE_MAC},
    packet::Tag,
};

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
        // No device of this host has that VLAN.
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
        // To a link-layer address of many the host takes datagrams, not connections.
        row("broadcast frame", BOTH, DATAGRAM, Served, |packet| {
            vec![packet.frame(CLIENT_MAC, EVERYONE)]
        }),
        row("broadcast frame", BOTH, SYN, Dropped, |packet| {
            vec![packet.frame(CLIENT_MAC, EVERYONE)]
        }),
        row("multicast frame", BOTH, DATAGRAM, Served, |packet| {
            vec![packet.frame(CLIENT_MAC, GROUP)]
        }),
        row("someone else's frame", BOTH, ANY, Dropped, |packet| {
            vec![packet.frame(CLIENT_MAC, [2, 0, 0, 0, 0, 9])]
        }),
        row(
            "frame from the gate's own address",
            BOTH,
            ANY,
            Served,
            |packet| vec![packet.frame(GATE_MAC, GATE_MAC)],
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
        edited("an old ethertype of tags", BOTH, ANY, Dropped, |frame| {
            frame.splice(12..12, [0x91, 0x00, 0, 0]);
        }),
    ];
    rows.extend(tagged);
    rows
}
