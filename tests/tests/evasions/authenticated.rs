//! Authenticated knocks in odd packets: what the program finds in each is one whole knock or none.
//!
//! A knock is the first 64 bytes behind a UDP header that goes to the right port and says that it has 64 to 256 bytes of
//! payload, all of them in one frame. What a host would do with the packet afterwards does not matter: whoever sealed it
//! has proved that.

use std::net::IpAddr;

use knock_common::Reason;
use knock_user::{config::Config, datapath::Framing};
use knockgate_tests::{
    lab::{Family, Source::A},
    model::frame::{Contents, read, read_bare},
    sealed::Sealed,
    system::{Program, SystemUnderTest},
};
use netlab::packet::{
    Extension::{AtomicFragment, Authentication, DestinationOptions, HopByHop, Routing},
    Packet, SYN, Tag,
};

use crate::{
    BOTH, DATAGRAM,
    Fate::{Dropped, Served},
    Row, V4, V6, fragments, frame, ipv4, ipv6, link, row,
    target::{Probe, unframed},
};

const PORT: u16 = 41_641;

const CONFIG: &str = r#"
    interfaces = ["eth0"]
    open_ports = []
    limits = { sources = 16384, grants = 16, sessions = 64, keys = 6 }
    [knock]
    ports = ["41641/udp"]
    [[gate]]
    name = "a"
    protect = ["22/tcp"]
"#;

/// The rows whose result is written down: [`Served`] if they have a knock, [`Dropped`] if they have none.
fn rows() -> Vec<Row> {
    let mut rows = vec![
        whole("plain", |packet| packet),
        whole("a priority tag", |packet| packet.tagged(Tag::PRIORITY)),
        whole("a tag in a tag", |packet| {
            packet.tagged(Tag::service(3)).tagged(Tag::vlan(7))
        }),
        none("three tags", |packet| {
            let tagged = packet.tagged(Tag::service(3)).tagged(Tag::vlan(7));
            tagged.tagged(Tag::vlan(8))
        }),
        whole("no checksum", Packet::without_checksum),
    ];
    for options in [4, 20, 40] {
        let what = format!("{options} bytes of options");
        rows.push(row(what, V4, DATAGRAM, Served, move |packet| {
            vec![frame(&packet.with_options(&vec![1; options]))]
        }));
    }
    let chain = |headers: usize| {
        let links = [
            HopByHop(0),
            Routing(0),
            DestinationOptions(2),
            AtomicFragment,
            Authentication(1),
        ];
        move |packet| {
            let chain = links.iter().cycle().take(headers);
            vec![frame(&chain.fold(packet, |packet: Packet, link| {
                packet.with_extension(*link)
            }))]
        }
    };
    for headers in [1, 3, 8] {
        let what = format!("{headers} extension headers");
        rows.push(row(what, V6, DATAGRAM, Served, chain(headers)));
    }
    rows.push(row(
        "nine extension headers",
        V6,
        DATAGRAM,
        Dropped,
        chain(9),
    ));
    rows.extend(in_fragments());
    rows.extend(of_other_lengths());
    rows.extend(of_other_protocols());
    rows
}

fn whole(what: &str, change: impl Fn(Packet) -> Packet + 'static) -> Row {
    row(what, BOTH, DATAGRAM, Served, move |packet| {
        vec![frame(&change(packet))]
    })
}

fn none(what: &str, change: impl Fn(Packet) -> Packet + 'static) -> Row {
    row(what, BOTH, DATAGRAM, Dropped, move |packet| {
        vec![frame(&change(packet))]
    })
}

/// The UDP header has 8 bytes, and the message ends 72 bytes behind its beginning.
fn in_fragments() -> Vec<Row> {
    let cuts: [(_, &[usize], _); 6] = [
        ("cut behind the message", &[72], Served),
        ("cut behind the message and once more", &[72, 96], Served),
        ("cut within the last word of the message", &[64], Dropped),
        ("cut in the middle of the message", &[40], Dropped),
        ("cut behind the UDP header", &[8], Dropped),
        (
            "cut everywhere",
            &[8, 16, 24, 32, 40, 48, 56, 64, 72],
            Dropped,
        ),
    ];
    let mut rows = Vec::new();
    for (what, cuts, fate) in cuts {
        rows.push(row(what, BOTH, DATAGRAM, fate, move |packet| {
            fragments::cut(&packet, cuts)
        }));
        let what = format!("{what}, the last first");
        rows.push(row(what, BOTH, DATAGRAM, fate, move |packet| {
            fragments::cut(&packet, cuts).into_iter().rev().collect()
        }));
    }
    rows
}

fn of_other_lengths() -> Vec<Row> {
    let says = |what: &str, length: u16, fate| {
        row(what, BOTH, DATAGRAM, fate, move |packet| {
            let mut frame = frame(&packet);
            let udp = if packet.is_ipv4() { 34 } else { 54 };
            frame[udp + 4..udp + 6].copy_from_slice(&length.to_be_bytes());
            vec![frame]
        })
    };
    let ends = |what: &str, missing: usize, fate| {
        row(what, BOTH, DATAGRAM, fate, move |packet| {
            let mut frame = frame(&packet);
            // What `payload` adds behind the message.
            frame.truncate(frame.len() - PADDING - missing);
            vec![frame]
        })
    };
    vec![
        says("a datagram of 64 bytes", 72, Served),
        says("a datagram of 63 bytes", 71, Dropped),
        says("a datagram of 256 bytes", 264, Served),
        says("a datagram of 257 bytes", 265, Dropped),
        says("a datagram of nothing", 8, Dropped),
        says("a datagram without a length", 0, Dropped),
        ends("a frame that ends with the message", 0, Served),
        ends("a frame that ends before its last byte", 1, Dropped),
        ends("a frame that ends with the UDP header", 64, Dropped),
    ]
}

fn of_other_protocols() -> Vec<Row> {
    let protocol = |what: &str, number: u8| {
        row(what, BOTH, DATAGRAM, Dropped, move |packet| {
            let mut frame = frame(&packet);
            frame[if packet.is_ipv4() { 23 } else { 20 }] = number;
            vec![frame]
        })
    };
    let behind = |what: &str, header: &'static [u8]| {
        row(what, BOTH, DATAGRAM, Dropped, move |packet| {
            let mut frame = frame(&packet);
            frame.splice(12..12, header.iter().copied());
            vec![frame]
        })
    };
    vec![
        protocol("as IPv4 in IP", 4),
        protocol("as IPv6 in IP", 41),
        protocol("as UDP-Lite", 136),
        protocol("as an encrypted payload", 50),
        behind("behind an old ethertype of tags", &[0x91, 0, 0, 7]),
        behind("behind a label of MPLS", &[0x88, 0x47, 0, 0, 0x01, 64]),
        behind("behind a length and LLC", &[0, 120, 0xaa, 0xaa, 3, 0, 0, 0]),
        row("as a segment", BOTH, DATAGRAM, Dropped, |packet| {
            let sent = frame(&packet);
            let family = if packet.is_ipv4() {
                Family::V4
            } else {
                Family::V6
            };
            let (from, to) = ends(family);
            let payload = &sent[sent.len() - 64 - PADDING..];
            vec![frame(&Packet::tcp(from, to, SYN).with_payload(payload))]
        }),
    ]
}

/// Bytes behind the message.
const PADDING: usize = 40;

#[test]
fn each_has_a_whole_knock_or_none() {
    let Some(mut program) = Program::load(&config()) else {
        return;
    };
    try_rows(&mut program, &rows(), true);
    let others = [link::rows(), ipv4::rows(), ipv6::rows(), fragments::rows()];
    let others: Vec<Row> = others.into_iter().flatten().collect();
    try_rows(&mut program, &others, false);
}

#[test]
fn each_has_a_whole_knock_or_none_without_link_headers() {
    let Some(mut program) = Program::load_for(&config(), Framing::BareIp) else {
        return;
    };
    let others = [ipv4::rows(), ipv6::rows(), fragments::rows()];
    let others: Vec<Row> = others.into_iter().flatten().collect();
    try_rows(&mut program, &others, false);
}

fn config() -> Config {
    Config::parse(CONFIG, "evasions").expect("valid").0
}

/// Sends the frames of each row, with a knock of its own. Their results are those of the rows if `written`, or else those of
/// the model's reader, which says of each frame whether it has the message.
fn try_rows(program: &mut Program, rows: &[Row], written: bool) {
    program.forget();
    let (mut wrong, mut opened, mut tried) = (Vec::new(), 0, 0_i64);
    for row in rows
        .iter()
        .filter(|row| row.probes.contains(&Probe::Datagram))
    {
        for &family in row.families {
            tried += 1;
            let message = Sealed::new("alice", tried).message(program.slowed());
            let sent = (row.frames)(packet(family, &message, tried));
            let sent: Vec<Vec<u8>> = match program.framing() {
                Framing::Ethernet => sent,
                Framing::BareIp => sent.iter().map(|frame| unframed(frame).to_vec()).collect(),
            };
            let whole = sent
                .iter()
                .filter(|frame| has(program.framing(), frame, &message));
            let whole = whole.count();
            if written {
                assert_eq!(whole > 0, row.fate == Served, "{} ({family:?})", row.what);
            }
            let before = program.tally();
            let passed = sent.iter().filter(|frame| program.judge(frame)).count();
            let after = program.tally();
            let moved = after.since(&before);
            let counted = |name: &str| {
                let mut words = moved
                    .split(' ')
                    .map(|word| word.split_once('*').unwrap_or(("1", word)));
                let word = words.find(|(_, what)| *what == format!("authenticated:{name}"));
                word.map_or(0, |(times, _)| times.parse().expect("a number"))
            };
            // One knock, and every other frame that has it is the same knock again.
            let expected = [whole.min(1), whole.saturating_sub(1), 0];
            if [counted("opened"), counted("duplicate"), counted("replay")] != expected {
                wrong.push(format!(
                    "{} ({family:?}), {whole} times whole: {moved}",
                    row.what
                ));
            }
            // To a closed port, and so on to the host, unless nobody could read to which.
            let malformed = after.packets[Reason::Malformed as usize].0
                - before.packets[Reason::Malformed as usize].0;
            assert_eq!(passed as u64 + malformed, sent.len() as u64, "{}", row.what);
            opened += usize::from(whole > 0);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let tried = usize::try_from(tried).expect("few rows");
    assert!(opened >= 20 && opened < tried, "{opened} of {tried}");
    assert!(program.grants().len() >= 2, "one for each family");
}

/// Returns whether a frame has the whole message, by the rules.
fn has(framing: Framing, frame: &[u8], message: &[u8; 64]) -> bool {
    let contents = match framing {
        Framing::Ethernet => read(frame),
        Framing::BareIp => read_bare(frame),
    };
    match contents {
        Contents::Segment(segment) => {
            segment.port.number == PORT && segment.message == Some(*message)
        }
        _ => false,
    }
}

fn ends(family: Family) -> ((IpAddr, u16), (IpAddr, u16)) {
    ((family.address(A), 40_000), (family.host(), PORT))
}

fn packet(family: Family, message: &[u8], number: i64) -> Packet {
    let payload = [message, &[0x55; PADDING]].concat();
    let number = u32::try_from(number).expect("few rows");
    let (from, to) = ends(family);
    Packet::udp(from, to, &payload).identified(number)
}
