//! TCP segments, with every combination of flags.

use knockgate_tests::need::linux;
use netlab::packet::{ACK, FIN, RST, SYN};

use crate::{
    BOTH,
    Expected::{Answer, AsHost, OnlyHost, Silence},
    Row, V4, V6, frame, row,
};

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for flags in 0..=u8::MAX {
        let expected = if flags & RST == 0 { Answer } else { Silence };
        rows.push(row(
            format!("flags {flags:08b}"),
            BOTH,
            expected,
            move |family, port| frame::tcp(family, port, flags, |_, _, _| {}),
        ));
    }
    for reserved in 1..16 {
        rows.push(edited(
            format!("reserved bits {reserved:04b}"),
            SYN,
            Answer,
            move |frame, _, at| {
                frame[at + 12] |= reserved;
            },
        ));
    }
    // Odd and even, around the steps in which checksums are computed, and the longest.
    for length in [
        1, 2, 3, 4, 5, 43, 44, 45, 63, 64, 65, 127, 128, 1000, 1439, 1440,
    ] {
        for flags in [SYN, ACK, FIN, SYN | FIN, 0] {
            rows.push(edited(
                format!("{length} bytes of data, flags {flags:08b}"),
                flags,
                Answer,
                move |frame, _, _| frame.extend((1..=u8::MAX).cycle().take(length)),
            ));
        }
    }
    rows.extend(options());
    rows.extend(nonsense());
    rows
}

fn options() -> Vec<Row> {
    let nmap = [
        3, 3, 10, 1, 2, 4, 5, 0xb4, 8, 10, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 4, 2,
    ];
    let mut signed = vec![19, 18];
    signed.extend([0xaa; 16]);
    let padded = [&[1, 1][..], &signed].concat();
    let behind = [&[2, 4, 5, 0xb4][..], &signed, &[1, 1]].concat();
    let last = [&[1; 22][..], &signed].concat();
    // A signature that does not fit into the header, or is behind the end of the list.
    let ended = [&[0, 1][..], &signed].concat();
    let cut = [&[1; 23][..], &signed[..17]].concat();
    let odd = [&[19, 16][..], &[0; 18]].concat();
    let broken = [&[5, 1][..], &signed].concat();
    // Since Linux 6.7 there is no answer to malformed options. What kernels do about a code (RFC 5925) also depends on
    // whether they were built to check it.
    let malformed = if linux() >= (6, 7) { Silence } else { Answer };
    let mut code = vec![29, 16];
    code.extend([0xaa; 14]);
    let rows: [(&str, Vec<u8>, crate::Expected); 18] = [
        ("nmap's options", nmap.to_vec(), Answer),
        ("forty bytes of padding", vec![1; 40], Answer),
        ("a list of options that ends", vec![0; 4], Answer),
        ("a signature", padded, Silence),
        ("a signature behind a segment size", behind, Silence),
        ("a signature at the end", last, Silence),
        ("a signature behind the end of the list", ended, Answer),
        ("a signature that is cut off", cut, AsHost),
        ("a code", [&code[..], &[1; 8]].concat(), AsHost),
        ("a code at the end", [&[1; 24][..], &code].concat(), AsHost),
        ("two codes", [&code[..], &code, &[1; 8]].concat(), AsHost),
        (
            "a short code at the end",
            [&[1; 35][..], &[29, 5, 0, 0, 0xaa]].concat(),
            AsHost,
        ),
        (
            "a code of no bytes",
            [&[29, 4, 0, 0][..], &[1; 20]].concat(),
            AsHost,
        ),
        (
            "an option longer than all, in the last five bytes",
            [&[1; 35][..], &[5, 6, 0, 0, 0]].concat(),
            AsHost,
        ),
        (
            "an option longer than all",
            [&[1; 8][..], &[5, 33], &[0; 30]].concat(),
            malformed,
        ),
        (
            "an option longer than all, at the end",
            [&[1; 16][..], &[5, 5]].concat(),
            Answer,
        ),
        ("a signature of another length", odd, malformed),
        (
            "a signature behind an option of no length",
            broken,
            malformed,
        ),
    ];
    rows.into_iter()
        .map(|(what, options, expected)| {
            edited(what, SYN, expected, move |frame, _, at| {
                let mut options = options.clone();
                options.resize(options.len().next_multiple_of(4), 0);
                frame[at + 12] = u8::try_from(4 * (20 + options.len())).expect("few options");
                frame.extend(options);
            })
        })
        .collect()
}

fn nonsense() -> Vec<Row> {
    let mut rows = vec![
        edited("a header of four words", SYN, Silence, |frame, _, at| {
            frame[at + 12] = 4 << 4;
        }),
        edited(
            "a header longer than the packet",
            SYN,
            Silence,
            |frame, _, at| {
                frame[at + 12] = 6 << 4;
            },
        ),
        edited("from port 0", SYN, Answer, |frame, _, at| {
            frame[at..at + 2].fill(0);
        }),
        edited("time to live 1", SYN, Answer, |frame, at, _| {
            let hops = if frame[at] >> 4 == 4 { 8 } else { 7 };
            frame[at + hops] = 1;
        }),
        row("a wrong checksum", BOTH, Silence, |family, port| {
            let mut frame = frame::tcp(family, port, SYN, |_, _, _| {});
            let last = frame.len() - 4;
            frame[last + 1] ^= 0x40;
            frame
        }),
        row("a wrong last byte", BOTH, Silence, |family, port| {
            let mut frame = frame::tcp(family, port, ACK, |frame, _, _| frame.extend([7; 101]));
            *frame.last_mut().expect("not empty") ^= 1;
            frame
        }),
        row("padding of the link", BOTH, Answer, |family, port| {
            let mut frame = frame::tcp(family, port, SYN, |_, _, _| {});
            frame.extend([0x5a; 9]);
            frame
        }),
        row(
            "less than the packet says",
            BOTH,
            Silence,
            |family, port| {
                let mut frame = frame::tcp(family, port, SYN, |frame, _, _| frame.extend([0; 8]));
                frame.pop();
                frame
            },
        ),
        row("a wrong header checksum", V4, Silence, |family, port| {
            let mut frame = frame::tcp(family, port, SYN, |_, _, _| {});
            frame[24] ^= 0x10;
            frame
        }),
        row("less than a header", V4, Silence, |family, port| {
            let mut frame = frame::tcp(family, port, SYN, |_, _, _| {});
            frame[17] = 39;
            frame::sum_header(&mut frame);
            frame
        }),
        edited_for(
            V4,
            "the reserved bit of fragments",
            Answer,
            |frame, at, _| {
                frame[at + 6] |= 0x80;
            },
        ),
        edited_for(
            V4,
            "a first fragment of its own",
            Silence,
            |frame, at, _| {
                frame[at + 6] |= 0x20;
            },
        ),
        edited_for(V6, "a flow label", Answer, |frame, at, _| {
            frame[at + 2] = 0x77;
        }),
        // Packets that only the host parses.
        row("options of IPv4", V4, OnlyHost, |family, port| {
            let mut frame = frame::tcp(family, port, SYN, |_, _, _| {});
            frame[14] = 0x46;
            frame.splice(34..34, [1, 1, 1, 0]);
            frame::settle(&mut frame);
            frame
        }),
        row("an atomic fragment", V6, OnlyHost, |family, port| {
            let mut frame = frame::tcp(family, port, SYN, |_, _, _| {});
            frame[20] = 44;
            frame[19] += 8;
            frame.splice(54..54, [6, 0, 0, 0, 0, 0, 0, 9]);
            frame
        }),
        row(
            "options for the destination",
            V6,
            OnlyHost,
            |family, port| {
                let mut frame = frame::tcp(family, port, SYN, |_, _, _| {});
                frame[20] = 60;
                frame[19] += 8;
                frame.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
                frame
            },
        ),
    ];
    for traffic in [1, 2, 3, 0x10, 0x1e, 0xb8, 0xfc, 0xff] {
        rows.push(edited(
            format!("traffic class {traffic:02x}"),
            SYN,
            Answer,
            move |frame, at, _| set_traffic_class(frame, at, traffic),
        ));
    }
    rows
}

/// Sets type of service, or traffic class.
pub fn set_traffic_class(frame: &mut [u8], network: usize, traffic: u8) {
    if frame[network] >> 4 == 4 {
        frame[network + 1] = traffic;
    } else {
        frame[network] = 0x60 | traffic >> 4;
        frame[network + 1] = traffic << 4 | frame[network + 1] & 15;
    }
}

fn edited(
    what: impl Into<String>,
    flags: u8,
    expected: crate::Expected,
    edit: impl Fn(&mut Vec<u8>, usize, usize) + 'static,
) -> Row {
    row(what, BOTH, expected, move |family, port| {
        frame::tcp(family, port, flags, &edit)
    })
}

fn edited_for(
    families: &'static [knockgate_tests::lab::Family],
    what: &str,
    expected: crate::Expected,
    edit: impl Fn(&mut Vec<u8>, usize, usize) + 'static,
) -> Row {
    Row {
        families,
        ..edited(what, SYN, expected, edit)
    }
}
