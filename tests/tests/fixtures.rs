//! The fixture table, on every system under test: each row is one behaviour, for its families, on Ethernet and, except
//! for rows about the link header itself, on links without one.

use std::collections::HashMap;

use knock_user::{config::Config, datapath::Framing};
use knockgate_tests::{
    datagram::Datagram,
    fixtures::{self, Fixture},
    lab::Family,
    system::{Hosted, Modelled, Program, SystemUnderTest},
};

const FRAMINGS: [Framing; 2] = [Framing::Ethernet, Framing::BareIp];

#[test]
fn rows_hold_on_the_host() {
    for framing in FRAMINGS {
        for (row, family) in rows(framing) {
            row.run(family, &mut Hosted::on(&row.config(family), framing));
        }
    }
}

#[test]
fn rows_hold_in_the_kernel() {
    for framing in FRAMINGS {
        rows_hold(framing, |config| Program::load_for(config, framing));
    }
}

#[test]
fn rows_hold_in_the_kernel_at_tcx() {
    for framing in FRAMINGS {
        rows_hold(framing, |config| Program::load_at_tcx(config, framing));
    }
}

/// A packet that the kernel has merged of several is counted as these.
#[test]
fn merged_packets_are_counted_as_what_they_are() {
    let config = fixtures::all()
        .next()
        .expect("there are rows")
        .config(Family::V4);
    let Some(mut program) = Program::load_at_tcx(&config, Framing::Ethernet) else {
        return;
    };
    let frame = "udp 198.51.100.10:4000 > 192.0.2.1:443 payload=240"
        .parse::<Datagram>()
        .expect("well-formed")
        .frame();
    program.forget();
    let headers = 14 + 20 + 8;
    let payload = frame.len() - headers;
    assert!(payload > 0, "something to be merged");
    program.take_merged(&frame, 3, 1000);
    let tally = program.tally();
    let counted: (u64, u64) = tally
        .packets
        .iter()
        .fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    assert_eq!(counted, (3, (frame.len() + 2 * headers) as u64));
}

/// Wherever a frame is cut, from one of which nothing but the Ethernet header is in the first buffer to one in one
/// piece.
#[test]
fn rows_hold_in_the_kernel_for_frames_in_several_buffers() {
    for first in [14, 36, 4000] {
        rows_hold(Framing::Ethernet, |config| {
            Program::load_scattered(config, first)
        });
    }
}

fn rows_hold(framing: Framing, load: impl Fn(&Config) -> Option<Program>) {
    // Rows with the same configuration share a program, since loading takes longest. One program at a time, since
    // each has as many descriptors as tables.
    let mut rows_of: HashMap<_, Vec<(&Fixture, Family)>> = HashMap::new();
    for (row, family) in rows(framing) {
        let names_a_family = row.config.contains("\"{");
        let key = (row.config, names_a_family.then_some(family));
        rows_of.entry(key).or_default().push((row, family));
    }
    for rows in rows_of.values() {
        let (first, family) = rows[0];
        let Some(mut program) = load(&first.config(family)) else {
            return;
        };
        for &(row, family) in rows {
            row.run(family, &mut program);
        }
    }
}

/// A host removes a priority tag on any link, and processes what follows it.
#[test]
fn a_tag_without_a_link_header_is_malformed() {
    let config = fixtures::all()
        .next()
        .expect("there are rows")
        .config(Family::V4);
    tags_are_malformed(&mut Hosted::on(&config, Framing::BareIp));
    tags_are_malformed(&mut Modelled::on(&config, Framing::BareIp));
}

#[test]
fn a_tag_without_a_link_header_is_malformed_in_the_kernel() {
    let config = fixtures::all()
        .next()
        .expect("there are rows")
        .config(Family::V4);
    if let Some(mut program) = Program::load_for(&config, Framing::BareIp) {
        tags_are_malformed(&mut program);
    }
    if let Some(mut program) = Program::load_at_tcx(&config, Framing::BareIp) {
        tags_are_malformed(&mut program);
    }
}

fn tags_are_malformed(system: &mut dyn SystemUnderTest) {
    let packet = |line: &str| line.parse::<Datagram>().expect("well-formed").bare();
    let packet_v4 = packet("udp 198.51.100.10:4000 > 192.0.2.1:443");
    let packet_v6 = packet("udp [2001:db8::a]:4000 > [2001:db8::1]:443");
    for (tag, inner) in [
        (&[0x00, 0, 0x08, 0][..], &packet_v4),
        (&[0x40, 0, 0x08, 0], &packet_v4),
        (&[0x60, 0, 0x08, 0], &packet_v4),
        (&[0xf0, 0, 0x86, 0xdd], &packet_v6),
        (&[0x60, 0, 0x86, 0xdd], &packet_v6),
        (&[0x60, 0, 0x81, 0, 0x20, 0, 0x86, 0xdd], &packet_v6),
        (&[0x00, 0, 0x88, 0xa8, 0, 0, 0x08, 0], &packet_v4),
    ] {
        let before = system.tally();
        assert!(!system.judge(&[tag, &inner[..]].concat()), "{tag:02x?}");
        assert_eq!(system.tally().since(&before), "malformed", "{tag:02x?}");
    }
    // IPv6 with flow labels that look like tags.
    for label in [[0x08, 0], [0x86, 0xdd], [0x81, 0], [0x88, 0xa8]] {
        let mut packet = packet_v6.clone();
        packet[2..4].copy_from_slice(&label);
        assert!(system.judge(&packet), "{label:02x?}");
    }
}

/// The model, with which the oracle compares, agrees with the table.
#[test]
fn rows_hold_in_the_model() {
    for framing in FRAMINGS {
        for (row, family) in rows(framing) {
            let config = row.config(family);
            row.run(family, &mut Modelled::on(&config, framing));
        }
    }
}

/// Returns the rows for links of this kind.
fn rows(framing: Framing) -> Vec<(&'static Fixture, Family)> {
    let all = fixtures::all();
    let all = all.flat_map(|row| row.families.iter().map(move |&family| (row, family)));
    let (kept, left_out): (Vec<_>, Vec<_>) =
        all.partition(|(row, family)| framing == Framing::Ethernet || row.is_same_bare(*family));
    // Otherwise nobody would notice rows that are left out by mistake.
    assert!(left_out.len() * 5 < kept.len(), "{left_out:#?}");
    kept
}
