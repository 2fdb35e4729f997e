//! IPv4's header: options and other fields.

use crate::{
    ANY, DATAGRAM,
    Fate::{self, Dropped, Served},
    Row, SYN, V4, edited, frame, row, sum_header,
};

/// The client, the host, and the host's other address.
const CLIENT: [u8; 4] = [10, 77, 1, 2];
const HOST: [u8; 4] = [10, 77, 0, 1];
const OTHER: [u8; 4] = [10, 77, 0, 9];

pub fn rows() -> Vec<Row> {
    let route = |kind, pointer, hop: [u8; 4]| [&[1, kind, 7, pointer][..], &hop].concat();
    let options: [(&str, Fate, Vec<u8>); 16] = [
        ("no operation", Served, vec![1; 4]),
        ("end of list", Served, vec![0; 4]),
        ("ten words of no operation", Served, vec![1; 40]),
        (
            "end of list, then nonsense",
            Served,
            vec![0, 0xff, 0xff, 0xff],
        ),
        ("unknown option", Served, vec![0x5e, 4, 1, 2]),
        ("record route", Served, [&[7, 39, 4][..], &[0; 37]].concat()),
        (
            "record route, full",
            Served,
            [&[7, 7, 8][..], &CLIENT, &[0]].concat(),
        ),
        (
            "time stamp",
            Served,
            [&[68, 36, 5, 0][..], &[0; 32]].concat(),
        ),
        (
            "time stamp with addresses",
            Served,
            [&[68, 36, 5, 1][..], &[0; 32]].concat(),
        ),
        ("router alert", Served, vec![148, 4, 0, 0]),
        ("security", Served, [&[130, 11][..], &[0; 10]].concat()),
        ("stream identifier", Served, vec![136, 4, 0, 1]),
        (
            "loose source route, at its end",
            Served,
            route(131, 8, CLIENT),
        ),
        (
            "strict source route, at its end",
            Served,
            route(137, 8, CLIENT),
        ),
        (
            "an option that is longer than the header",
            Dropped,
            vec![7, 40, 4, 0],
        ),
        (
            "two source routes",
            Dropped,
            [route(131, 8, CLIENT), route(137, 8, CLIENT)].concat(),
        ),
    ];
    let with_options = options.into_iter().map(|(what, fate, options)| {
        row(what, V4, ANY, fate, move |packet| {
            vec![frame(&packet.with_options(&options))]
        })
    });
    let mut rows = vec![
        by_way_of(OTHER, HOST),
        by_way_of(HOST, OTHER),
        edited("no hops left", V4, ANY, Served, |frame| frame[22] = 0),
        edited(
            "every bit of the type of service",
            V4,
            ANY,
            Served,
            |frame| {
                frame[15] = 0xff;
            },
        ),
        edited("don't fragment", V4, ANY, Served, |frame| frame[20] |= 0x40),
        edited("the reserved bit", V4, ANY, Served, |frame| {
            frame[20] |= 0x80;
        }),
        edited("identification zero", V4, ANY, Served, |frame| {
            frame[18..20].fill(0);
        }),
        edited("a header of four words", V4, ANY, Dropped, |frame| {
            frame[14] = 0x44;
        }),
        edited("no header at all", V4, ANY, Dropped, |frame| {
            frame[14] = 0x40;
        }),
        edited(
            "a header of fifteen words over the ports",
            V4,
            ANY,
            Dropped,
            |frame| {
                frame[14] = 0x4f;
            },
        ),
        edited("version 6", V4, ANY, Dropped, |frame| frame[14] = 0x65),
        edited(
            "a length that ends before the transport header",
            V4,
            ANY,
            Dropped,
            |frame| {
                frame[16..18].copy_from_slice(&[0, 22]);
            },
        ),
        edited("a length beyond the frame", V4, ANY, Dropped, |frame| {
            frame[16] = 4;
        }),
        row("a wrong header checksum", V4, ANY, Dropped, |packet| {
            let mut frame = frame(&packet);
            frame[24] ^= 1;
            vec![frame]
        }),
        edited("a wrong UDP checksum", V4, DATAGRAM, Dropped, |frame| {
            frame[40] ^= 1;
        }),
        edited("no UDP checksum", V4, DATAGRAM, Served, |frame| {
            frame[40..42].fill(0);
        }),
        edited(
            "a UDP length beyond the packet",
            V4,
            DATAGRAM,
            Dropped,
            |frame| frame[38] = 4,
        ),
        edited("a UDP length of nothing", V4, DATAGRAM, Dropped, |frame| {
            frame[38..40].fill(0);
        }),
        edited("a wrong TCP checksum", V4, SYN, Dropped, |frame| {
            frame[50] ^= 1;
        }),
        edited("a TCP header of four words", V4, SYN, Dropped, |frame| {
            frame[46] = 0x40;
        }),
        edited(
            "a TCP header beyond the packet",
            V4,
            SYN,
            Dropped,
            |frame| {
                frame.truncate(14 + 40);
                frame[16..18].copy_from_slice(&[0, 40]);
                frame[46] = 0xf0;
            },
        ),
    ];
    for (what, source) in [
        ("from the host itself", HOST),
        ("from its loopback", [127, 0, 0, 1]),
        ("from everyone", [255; 4]),
        ("from a group", [224, 0, 0, 1]),
    ] {
        rows.push(row(what, V4, ANY, Dropped, move |packet| {
            vec![frame(&packet.sent_from(source.into()))]
        }));
    }
    rows.extend(with_options);
    rows
}

/// Returns a row with a loose source route through one address of the host to another: the host itself changes the
/// destination.
fn by_way_of(first: [u8; 4], last: [u8; 4]) -> Row {
    let what = format!("loose source route to {last:?} by {first:?}");
    row(what, V4, ANY, Served, move |packet| {
        let options = [&[1, 131, 7, 4][..], &last].concat();
        let mut frame = frame(&packet.sent_to(last.into()).with_options(&options));
        frame[30..34].copy_from_slice(&first);
        sum_header(&mut frame);
        vec![frame]
    })
}
