//! Packets in fragments, which the host reassembles.

use std::ops::Range;

use knockgate_tests::lab::{CLIENT_MAC, HOST_MAC};
use netlab::packet::{
    Extension::{AtomicFragment, DestinationOptions, HopByHop, Routing},
    Packet, Tag,
};

use crate::{
    ANY, BOTH, DATAGRAM,
    Fate::{self, Dropped, Malformed, Served},
    Row, SYN, V4, V6, row, sum_header,
};

/// A port that is not protected, and where nothing listens.
const ELSEWHERE: [u8; 2] = 1234_u16.to_be_bytes();
/// The end of any packet.
const END: usize = usize::MAX;

pub fn rows() -> Vec<Row> {
    let mut rows = orders();
    rows.extend(overlaps());
    rows.extend(tiny());
    rows.extend(odd());
    rows.extend(chains());
    rows.extend(padded_chains());
    rows
}

/// Three fragments in every order, once and twice, and with one missing; each has a valid size.
fn orders() -> Vec<Row> {
    let orders: [(&[usize], Fate); 14] = [
        (&[0, 1, 2], Served),
        (&[0, 2, 1], Served),
        (&[1, 0, 2], Served),
        (&[1, 2, 0], Served),
        (&[2, 0, 1], Served),
        (&[2, 1, 0], Served),
        (&[0, 0, 1, 2], Served),
        (&[2, 1, 2, 1, 0], Served),
        (&[0, 1, 1, 2, 2], Served),
        (&[0, 1, 2, 0, 1, 2], Served),
        (&[0, 1], Dropped),
        (&[0, 2], Dropped),
        (&[1, 2], Dropped),
        (&[1, 1, 2, 2], Dropped),
    ];
    let rows = orders.into_iter().map(|(order, fate)| {
        row(
            format!("pieces {order:?} of three"),
            BOTH,
            ANY,
            fate,
            move |packet| {
                let pieces = cut(&packet, &[24, 40]);
                order.iter().map(|&piece| pieces[piece].clone()).collect()
            },
        )
    });
    rows.collect()
}

/// Linux drops a packet with overlapping fragments (RFC 5722), unless a fragment lies completely within an earlier
/// one, which it then ignores, whatever its contents.
fn overlaps() -> Vec<Row> {
    let overlap = |what: &str, fate, ranges: &'static [Range<usize>]| {
        row(what, BOTH, ANY, fate, move |packet| {
            let ranges = ranges.iter().cloned();
            ranges.map(|target| piece(&packet, target)).collect()
        })
    };
    vec![
        overlap(
            "the second over the first's end",
            Dropped,
            &[0..32, 24..END],
        ),
        overlap(
            "the first over the second's beginning",
            Dropped,
            &[24..END, 0..32],
        ),
        overlap(
            "a longer first over a shorter",
            Dropped,
            &[0..24, 0..32, 32..END],
        ),
        overlap(
            "a shorter first after a longer",
            Served,
            &[0..32, 0..24, 32..END],
        ),
        overlap("a piece within another", Served, &[0..32, 8..16, 32..END]),
        overlap(
            "a piece around another",
            Dropped,
            &[0..24, 32..40, 24..48, 40..END],
        ),
        overlap("a piece, and then the whole", Served, &[24..32, 0..END]),
        row("two ends", BOTH, ANY, Dropped, |packet| {
            let end = packet.length();
            vec![
                packet.piece(CLIENT_MAC, HOST_MAC, 24..40, false),
                piece(&packet, 0..24),
                piece(&packet, 24..end),
            ]
        }),
        row(
            "first to here, then to elsewhere",
            BOTH,
            ANY,
            Served,
            |packet| {
                let first = piece(&packet, 0..24);
                let other = to_elsewhere(first.clone());
                vec![first, other, piece(&packet, 24..END)]
            },
        ),
        row(
            "first to elsewhere, then to here",
            BOTH,
            ANY,
            Dropped,
            |packet| {
                let first = piece(&packet, 0..24);
                let other = to_elsewhere(first.clone());
                vec![other, first, piece(&packet, 24..END)]
            },
        ),
        row(
            "to elsewhere, and longer to here",
            BOTH,
            ANY,
            Dropped,
            |packet| {
                let other = to_elsewhere(piece(&packet, 0..24));
                vec![other, piece(&packet, 0..32), piece(&packet, 32..END)]
            },
        ),
        row(
            "the end, to elsewhere, then to here",
            BOTH,
            ANY,
            Dropped,
            |packet| {
                let first = piece(&packet, 0..24);
                let other = to_elsewhere(first.clone());
                vec![piece(&packet, 24..END), other, first]
            },
        ),
    ]
}

/// Fragments that end within TCP's header; UDP's header has eight bytes only.
fn tiny() -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, cuts) in [
        ("cut behind eight bytes", &[8][..]),
        ("cut behind sixteen bytes", &[16]),
        ("cut behind eight and sixteen bytes", &[8, 16]),
        ("cut behind every eight bytes", &[8, 16, 24, 32, 40]),
    ] {
        for (families, probes, fate) in [
            (BOTH, DATAGRAM, Served),
            (V4, SYN, Malformed),
            // For IPv6, Linux checks the first fragment itself (RFC 8200, section 4.5).
            (V6, SYN, Dropped),
        ] {
            rows.push(row(what, families, probes, fate, move |packet| {
                cut(&packet, cuts)
            }));
            let what = format!("{what}, the last first");
            rows.push(row(what, families, probes, fate, move |packet| {
                cut(&packet, cuts).into_iter().rev().collect()
            }));
        }
    }
    rows.push(row(
        "a tiny piece with the rest as padding",
        V4,
        SYN,
        Malformed,
        |packet| {
            let mut pieces = cut(&packet, &[8]);
            pieces[0].extend([0; 64]);
            pieces
        },
    ));
    rows.push(row("an empty piece first", BOTH, ANY, Served, |packet| {
        let mut pieces = cut(&packet, &[24]);
        pieces.insert(0, packet.piece(CLIENT_MAC, HOST_MAC, 0..0, true));
        pieces
    }));
    rows
}

fn odd() -> Vec<Row> {
    // IPv4 uses a fragment whose length is not a multiple of eight up to the last such multiple.
    let uneven = |packet: Packet| vec![piece(&packet, 0..28), piece(&packet, 24..END)];
    vec![
        row("an uneven piece", V4, ANY, Served, uneven),
        row("an uneven piece", V6, ANY, Dropped, uneven),
        row("don't fragment, on fragments", V4, ANY, Served, |packet| {
            patched(cut(&packet, &[24]), |frame| frame[20] |= 0x40)
        }),
        row(
            "the reserved bit, on fragments",
            V4,
            ANY,
            Served,
            |packet| patched(cut(&packet, &[24]), |frame| frame[20] |= 0x80),
        ),
        row(
            "reserved bits of the fragment header",
            V6,
            ANY,
            Served,
            |packet| {
                patched(cut(&packet, &[24]), |frame| {
                    frame[55] = 0xff;
                    frame[57] |= 0x06;
                })
            },
        ),
        row("options, on fragments", V4, ANY, Served, |packet| {
            cut(&packet.with_options(&[1; 40]), &[24])
        }),
        row(
            "options, on the first fragment alone",
            V4,
            ANY,
            Served,
            |packet| {
                let rest = piece(&packet, 24..END);
                vec![piece(&packet.with_options(&[1; 4]), 0..24), rest]
            },
        ),
        row("priority tags, on fragments", BOTH, ANY, Served, |packet| {
            cut(&packet.tagged(Tag::PRIORITY), &[24])
        }),
        row(
            "a priority tag, on the first fragment alone",
            BOTH,
            ANY,
            Served,
            |packet| {
                let rest = piece(&packet, 24..END);
                vec![piece(&packet.tagged(Tag::PRIORITY), 0..24), rest]
            },
        ),
        row(
            "later pieces of another protocol",
            V6,
            ANY,
            Served,
            |packet| {
                let mut pieces = cut(&packet, &[24, 40]);
                pieces[1][54] = 58;
                pieces[2][54] = 59;
                pieces
            },
        ),
        row(
            "a first piece of another protocol",
            V6,
            ANY,
            Dropped,
            |packet| {
                let mut pieces = cut(&packet, &[24, 40]);
                pieces[0][54] = 58;
                pieces
            },
        ),
        row(
            "one piece of another protocol",
            V4,
            ANY,
            Dropped,
            |packet| {
                let mut pieces = cut(&packet, &[24, 40]);
                pieces[1][23] = 1;
                sum_header(&mut pieces[1]);
                pieces
            },
        ),
    ]
}

/// Extension headers before and after the fragment header.
fn chains() -> Vec<Row> {
    let inside = |packet: Packet| {
        packet
            .with_extension(DestinationOptions(0))
            .with_extension(DestinationOptions(2))
            .with_headers_inside()
    };
    vec![
        row("a chain in every fragment", V6, ANY, Served, |packet| {
            let packet = packet
                .with_extension(HopByHop(0))
                .with_extension(DestinationOptions(2))
                .with_extension(Routing(0));
            cut(&packet, &[24])
        }),
        row(
            "a chain in the first fragment",
            V6,
            ANY,
            Served,
            move |packet| cut(&inside(packet), &[56]),
        ),
        row(
            "a chain in the first fragment, the last first",
            V6,
            ANY,
            Served,
            move |packet| cut(&inside(packet), &[56]).into_iter().rev().collect(),
        ),
        // Linux accepts these, though RFC 7112 forbids them, unless the first fragment contains the whole chain and
        // no byte of the transport header.
        row(
            "a chain cut between its headers",
            V6,
            ANY,
            Malformed,
            move |packet| cut(&inside(packet), &[8]),
        ),
        row(
            "a chain cut within a header",
            V6,
            ANY,
            Dropped,
            move |packet| cut(&inside(packet), &[16]),
        ),
        row(
            "a chain cut before its end",
            V6,
            ANY,
            Dropped,
            move |packet| cut(&inside(packet), &[32]),
        ),
        row("fragments of a fragment", V6, ANY, Dropped, |packet| {
            let packet = packet.with_extension(AtomicFragment);
            cut(&packet.with_headers_inside(), &[32])
        }),
    ]
}

/// The chain continues in the second fragment, while the padding of the first contains a different continuation:
/// neither TCP nor UDP, another port, or a later fragment.
fn padded_chains() -> Vec<Row> {
    let claims: [(&str, u8, &[u8]); 5] = [
        ("ICMPv6", 60, &[58, 0]),
        ("nothing", 60, &[59, 0]),
        ("a later fragment", 44, &[17, 0, 0, 0x80]),
        ("hop-by-hop options", 60, &[0, 0]),
        (
            "another port",
            60,
            &[
                17,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0x30,
                0x39,
                ELSEWHERE[0],
                ELSEWHERE[1],
            ],
        ),
    ];
    let rows = claims.into_iter().map(|(claim, next, padding)| {
        let (link, fate) = match next {
            44 => (AtomicFragment, Dropped),
            _ => (DestinationOptions(0), Malformed),
        };
        row(
            format!("padding that goes on to {claim}"),
            V6,
            ANY,
            fate,
            move |packet| {
                let packet = packet
                    .with_extension(DestinationOptions(0))
                    .with_extension(link)
                    .with_headers_inside();
                let mut pieces = cut(&packet, &[8]);
                pieces[0].extend(padding);
                pieces[0].extend([0; 64]);
                pieces
            },
        )
    });
    rows.collect()
}

pub fn cut(packet: &Packet, cuts: &[usize]) -> Vec<Vec<u8>> {
    packet.fragments(CLIENT_MAC, HOST_MAC, cuts)
}

/// Returns the fragment with these bytes; it is the last one if it reaches the end of the packet.
fn piece(packet: &Packet, range: Range<usize>) -> Vec<u8> {
    let end = range.end.min(packet.length());
    let more = end < packet.length();
    packet.piece(CLIENT_MAC, HOST_MAC, range.start..end, more)
}

/// Changes the destination port of a first fragment.
fn to_elsewhere(mut frame: Vec<u8>) -> Vec<u8> {
    let transport = if frame[12] == 0x08 { 34 } else { 62 };
    frame[transport + 2..transport + 4].copy_from_slice(&ELSEWHERE);
    frame
}

fn patched(mut frames: Vec<Vec<u8>>, patch: impl Fn(&mut Vec<u8>)) -> Vec<Vec<u8>> {
    for frame in &mut frames {
        patch(frame);
        sum_header(frame);
    }
    frames
}
