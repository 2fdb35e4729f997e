//! UDP datagrams.

use crate::{
    BOTH,
    Expected::{Answer, Silence},
    Row, V4, V6, frame, row,
    tcp::set_traffic_class,
};

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    // Around the longest quotations: 548 bytes and 1232, with headers.
    for length in [
        0, 1, 2, 3, 4, 8, 61, 62, 63, 64, 100, 519, 520, 521, 1183, 1184, 1185, 1400, 1452,
    ] {
        rows.push(row(
            format!("{length} bytes"),
            BOTH,
            Answer,
            move |family, port| {
                let payload: Vec<u8> = (1..=u8::MAX).cycle().take(length).collect();
                frame::udp(family, port, &payload, |_, _, _| {})
            },
        ));
    }
    for traffic in [1, 2, 3, 0x10, 0x1e, 0xb8, 0xfc, 0xff] {
        rows.push(row(
            format!("traffic class {traffic:02x}"),
            BOTH,
            Answer,
            move |family, port| {
                frame::udp(family, port, b"abc", |frame, at, _| {
                    set_traffic_class(frame, at, traffic);
                })
            },
        ));
    }
    rows.extend([
        row("shorter than its packet", BOTH, Answer, |family, port| {
            frame::udp(family, port, b"abcdefgh", |frame, _, at| frame[at + 5] = 11)
        }),
        row("padding of the link", BOTH, Answer, |family, port| {
            let mut frame = frame::udp(family, port, b"abc", |_, _, _| {});
            frame.extend([0x5a; 15]);
            frame
        }),
        row("longer than its packet", BOTH, Silence, |family, port| {
            frame::udp(family, port, b"abc", |frame, _, at| frame[at + 5] = 12)
        }),
        row("shorter than its header", BOTH, Silence, |family, port| {
            frame::udp(family, port, b"abc", |frame, _, at| frame[at + 5] = 7)
        }),
        row("a wrong checksum", BOTH, Silence, |family, port| {
            let mut frame = frame::udp(family, port, &[3; 301], |_, _, _| {});
            *frame.last_mut().expect("not empty") ^= 1;
            frame
        }),
        row("a wrong header checksum", V4, Silence, |family, port| {
            let mut frame = frame::udp(family, port, b"abc", |_, _, _| {});
            frame[24] ^= 0x10;
            frame
        }),
        row("no checksum", V4, Answer, |family, port| {
            unsummed(family, port, 34)
        }),
        row("no checksum", V6, Silence, |family, port| {
            unsummed(family, port, 54)
        }),
        row("from port 0", BOTH, Answer, |family, port| {
            frame::udp(family, port, b"abc", |frame, _, at| {
                frame[at..at + 2].fill(0);
            })
        }),
        row(
            "a first fragment of its own",
            V4,
            Silence,
            |family, port| frame::udp(family, port, b"abc", |frame, at, _| frame[at + 6] |= 0x20),
        ),
        row("a flow label", V6, Answer, |family, port| {
            frame::udp(family, port, b"abc", |frame, at, _| frame[at + 2] = 0x77)
        }),
    ]);
    rows
}

fn unsummed(family: knockgate_tests::lab::Family, port: u16, transport: usize) -> Vec<u8> {
    let mut frame = frame::udp(family, port, b"abc", |_, _, _| {});
    frame[transport + 6..transport + 8].fill(0);
    frame
}
