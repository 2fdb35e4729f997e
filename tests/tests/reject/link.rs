//! Tags, MAC addresses and IP addresses.

use std::net::IpAddr;

use knockgate_tests::lab::Family;
use netlab::packet::{ACK, SYN};

use crate::{
    BOTH,
    Expected::{self, Answer, AtMostHost, OnlyHost, Silence},
    Row, V4, V6, frame, row,
};

pub fn rows() -> Vec<Row> {
    let priority = [0x81, 0x00, 0x60, 0x00];
    let service = [0x88, 0xa8, 0xe0, 0x00];
    let vlan = [0x81, 0x00, 0x60, 0x05];
    let twice = [priority, priority].concat();
    let both = [service, priority].concat();
    let inside = [priority, vlan].concat();
    let mut rows = Vec::new();
    for (what, tags, expected) in [
        ("a priority", priority.to_vec(), Answer),
        ("a service's priority", service.to_vec(), Answer),
        ("two priorities", twice, Answer),
        ("two priorities of two kinds", both, Answer),
        // The host has no VLAN devices.
        ("a VLAN", vlan.to_vec(), Silence),
        ("a VLAN inside a priority", inside, Silence),
    ] {
        for length in [0, 1, 700] {
            let tags = tags.clone();
            rows.extend(either(
                &format!("{what}, {length} bytes"),
                BOTH,
                expected,
                length,
                move |frame| {
                    frame.splice(12..12, tags.clone());
                },
            ));
        }
    }
    for (what, mac) in [
        ("to everyone's MAC address", [0xff; 6]),
        ("to a group's MAC address", [0x01, 0x00, 0x5e, 0, 0, 1]),
        ("to another MAC address", [2, 0, 0, 0, 0, 0x77]),
    ] {
        rows.extend(either(what, BOTH, Silence, 3, move |frame| {
            frame[..6].copy_from_slice(&mac);
        }));
    }
    // The host answers to the MAC address that it knows for the source.
    rows.extend(either(
        "from a group's MAC address",
        BOTH,
        OnlyHost,
        3,
        |frame| frame[6] |= 1,
    ));
    rows.extend(destinations());
    rows.extend(sources());
    rows
}

fn destinations() -> Vec<Row> {
    let v4 = [
        ("10.77.0.9", Answer),
        ("255.255.255.255", Silence),
        ("10.77.255.255", Silence),
        ("10.77.0.0", Silence),
        ("224.0.0.1", Silence),
        ("239.1.2.3", Silence),
        ("127.0.0.1", Silence),
        ("10.77.0.200", Silence),
        ("198.51.100.1", Silence),
    ];
    let v6 = [
        ("fd77::9", Answer),
        ("ff02::1", Silence),
        ("ff02::1:ff00:1", Silence),
        ("ff0e::5", Silence),
        ("::1", Silence),
        ("fd77::200", Silence),
        // Not the answer of a closed port: the host reports that it has no route.
        ("::ffff:10.77.0.1", OnlyHost),
    ];
    let rows = v4
        .map(|row| (V4, row))
        .into_iter()
        .chain(v6.map(|row| (V6, row)));
    rows.flat_map(|(families, (to, expected))| {
        let address: IpAddr = to.parse().expect("well-formed");
        either(&format!("to {to}"), families, expected, 3, move |frame| {
            frame::readdress(frame, None, Some(address));
        })
    })
    .collect()
}

fn sources() -> Vec<Row> {
    let v4 = [
        ("10.77.1.3", Answer),
        ("0.0.0.0", Silence),
        ("0.1.2.3", Silence),
        ("127.0.0.1", Silence),
        ("224.0.0.1", Silence),
        ("255.255.255.255", Silence),
        ("10.77.0.1", Silence),
        ("10.77.0.9", Silence),
    ];
    let v6 = [
        ("fd77:0:0:2::2", Answer),
        ("::", Silence),
        ("::1", Silence),
        ("ff02::1", Silence),
        ("::ffff:10.77.1.2", Silence),
    ];
    let rows = v4
        .map(|row| (V4, row))
        .into_iter()
        .chain(v6.map(|row| (V6, row)));
    let mut rows: Vec<Row> = rows
        .flat_map(|(families, (from, expected))| from_source(families, from, expected))
        .collect();
    // With `rp_filter`, the host would not answer either. Linux 7.3 does not answer datagrams.
    let [segment, mut datagram] = from_source(V4, "10.77.255.255", OnlyHost);
    datagram.expected = AtMostHost;
    rows.extend([segment, datagram]);
    rows
}

fn from_source(families: &'static [Family], from: &str, expected: Expected) -> [Row; 2] {
    let address: IpAddr = from.parse().expect("well-formed");
    either(
        &format!("from {from}"),
        families,
        expected,
        3,
        move |frame| frame::readdress(frame, Some(address), None),
    )
}

/// Returns rows for a segment and a datagram of this length, changed by `edit`.
fn either(
    what: &str,
    families: &'static [Family],
    expected: Expected,
    length: usize,
    edit: impl Fn(&mut Vec<u8>) + Clone + 'static,
) -> [Row; 2] {
    let flags = if length == 0 { SYN } else { ACK };
    let segment = edit.clone();
    [
        row(
            format!("TCP {what}"),
            families,
            expected,
            move |family, port| {
                let mut frame = frame::tcp(family, port, flags, |frame, _, _| {
                    frame.extend(vec![9; length]);
                });
                segment(&mut frame);
                frame
            },
        ),
        row(
            format!("UDP {what}"),
            families,
            expected,
            move |family, port| {
                let mut frame = frame::udp(family, port, &vec![9; length], |_, _, _| {});
                edit(&mut frame);
                frame
            },
        ),
    ]
}
