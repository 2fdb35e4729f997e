//! Attempts to evade a gate: frames sent over a real veth to a real service, on a host that reassembles fragments
//! itself.
//!
//! Each row is tried three times. Without knockgate, the service is reached if the [`Fate`] says so: this shows which
//! rows could reach it at all. With knockgate, no row reaches the service. With knockgate and a grant, the rows reach
//! it as without knockgate, except for malformed packets.
//!
//! Rows that need VLAN devices or security associations are skipped on a kernel without them; `cargo xtask kernels`
//! boots kernels that have them.
//!
//! [`target`] sends frames and observes the service. The rows are in [`link`], [`ipv4`], [`ipv6`], [`fragments`] and
//! [`destinations`]; in [`segments`] for hosts with segment routing; in [`vlan`] and [`authentication`] for kernels
//! with these features. [`flags`] tries every combination of TCP flags, and [`sizes`] jumbo frames and offloads.
//! [`authenticated`] has the loaded program look for authenticated knocks in such packets.

mod authenticated;
mod authentication;
mod destinations;
mod flags;
mod fragments;
mod ipv4;
mod ipv6;
mod link;
mod segments;
mod sizes;
mod target;
mod vlan;

use knockgate_tests::{lab::Family, scenario::Attach, wire::frame};
use netlab::packet::Packet;

use target::{Probe, Target};

/// One row: a way to send a packet.
struct Row {
    what: String,
    families: &'static [Family],
    probes: &'static [Probe],
    fate: Fate,
    /// Turns a plain packet into the frames to send.
    frames: Box<dyn Fn(Packet) -> Vec<Vec<u8>>>,
}

/// What happens to a row's frames if no gate denies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The service receives the packet.
    Served,
    /// The service receives it without knockgate; with knockgate, it is denied even with a grant.
    Malformed,
    /// The host itself drops it.
    Dropped,
}

const BOTH: &[Family] = &[Family::V4, Family::V6];
const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];
/// A datagram and a SYN.
const ANY: &[Probe] = &[Probe::Datagram, Probe::Syn];
const DATAGRAM: &[Probe] = &[Probe::Datagram];
const SYN: &[Probe] = &[Probe::Syn];

#[test]
fn native() {
    no_row_gets_past_the_gate(Target::build, Attach::Native);
}

#[test]
fn generic() {
    no_row_gets_past_the_gate(Target::build, Attach::Generic);
}

#[test]
fn tcx() {
    no_row_gets_past_the_gate(Target::build, Attach::Tcx);
}

/// At TCX the program sees such frames as they are. For XDP the kernel first makes one piece of them.
#[test]
fn in_pieces_at_tcx() {
    no_row_gets_past_the_gate(Target::build_in_pieces, Attach::Tcx);
}

mod of_modules {
    use knockgate_tests::scenario::Attach;

    #[test]
    fn native() {
        super::no_row_of_modules_gets_past_the_gate(Attach::Native);
    }

    #[test]
    fn generic() {
        super::no_row_of_modules_gets_past_the_gate(Attach::Generic);
    }

    #[test]
    fn tcx() {
        super::no_row_of_modules_gets_past_the_gate(Attach::Tcx);
    }
}

mod of_segments {
    use super::{Target, no_row_of_segments_gets_past_the_gate};
    use knockgate_tests::scenario::Attach;

    #[test]
    fn native() {
        no_row_of_segments_gets_past_the_gate(Target::build, Attach::Native);
    }

    #[test]
    fn generic() {
        no_row_of_segments_gets_past_the_gate(Target::build, Attach::Generic);
    }

    #[test]
    fn tcx() {
        no_row_of_segments_gets_past_the_gate(Target::build, Attach::Tcx);
    }

    #[test]
    fn without_link_headers() {
        let build = Target::build_without_link_headers;
        no_row_of_segments_gets_past_the_gate(build, Attach::Generic);
    }

    #[test]
    fn without_link_headers_at_tcx() {
        let build = Target::build_without_link_headers;
        no_row_of_segments_gets_past_the_gate(build, Attach::Tcx);
    }
}

#[test]
fn without_link_headers() {
    no_row_without_a_link_header_gets_past_the_gate(Attach::Generic);
}

#[test]
fn without_link_headers_at_tcx() {
    no_row_without_a_link_header_gets_past_the_gate(Attach::Tcx);
}

/// Tries the rows that do not concern link headers on an interface that has none.
fn no_row_without_a_link_header_gets_past_the_gate(attach: Attach) {
    if !attach.is_there() {
        return;
    }
    let Some(target) = Target::build_without_link_headers() else {
        return;
    };
    let rows = [ipv4::rows(), ipv6::rows(), fragments::rows()];
    let rows: Vec<Row> = rows.into_iter().flatten().collect();

    expect(&target, &rows, "without a gate", REACHES);
    target.up(attach);
    expect(&target, &rows, "past the gate", |_| false);
    target.grant();
    expect(&target, &rows, "under a grant", SERVED);
}

fn no_row_gets_past_the_gate(build: fn() -> Option<Target>, attach: Attach) {
    if !attach.is_there() {
        return;
    }
    let Some(target) = build() else {
        return;
    };
    let rows: Vec<Row> = [
        link::rows(),
        ipv4::rows(),
        ipv6::rows(),
        fragments::rows(),
        destinations::rows(),
    ]
    .into_iter()
    .flatten()
    .collect();

    expect(&target, &rows, "without a gate", REACHES);
    target.up(attach);
    expect(&target, &rows, "past the gate", |_| false);
    target.grant();
    expect(&target, &rows, "under a grant", SERVED);
}

fn no_row_of_modules_gets_past_the_gate(attach: Attach) {
    if !attach.is_there() {
        return;
    }
    let Some(target) = Target::build() else {
        return;
    };
    if !vlan::join(&target) || !authentication::agree(&target) {
        return;
    }
    let rows: Vec<Row> = [vlan::rows(), authentication::rows()]
        .into_iter()
        .flatten()
        .collect();

    expect(&target, &rows, "without a gate", REACHES);
    vlan::expect_clients(&target, true);
    target.up(attach);
    expect(&target, &rows, "past the gate", |_| false);
    vlan::expect_clients(&target, false);
    vlan::clients_knock(&target);
    vlan::expect_clients(&target, true);
    target.grant();
    expect(&target, &rows, "under a grant", SERVED);
}

fn no_row_of_segments_gets_past_the_gate(build: fn() -> Option<Target>, attach: Attach) {
    if !attach.is_there() {
        return;
    }
    let Some(target) = build() else {
        return;
    };
    segments::take(&target);
    let rows = segments::rows();

    expect(&target, &rows, "without a gate", REACHES);
    target.up(attach);
    expect(&target, &rows, "past the gate", |_| false);
    target.grant();
    expect(&target, &rows, "under a grant", SERVED);
}

const REACHES: fn(Fate) -> bool = |fate| fate != Fate::Dropped;
const SERVED: fn(Fate) -> bool = |fate| fate == Fate::Served;

/// Tries every row, and reports all that had an unexpected result.
#[track_caller]
fn expect(target: &Target, rows: &[Row], when: &str, served: impl Fn(Fate) -> bool) {
    let mut wrong = Vec::new();
    for row in rows {
        for &family in row.families {
            for &probe in row.probes {
                let expected = served(row.fate);
                if target.reaches(probe, family, &row.frames) != expected {
                    wrong.push(format!(
                        "{} ({family:?}, {probe:?}): {} {when}",
                        row.what,
                        if expected { "lost" } else { "served" }
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn row(
    what: impl Into<String>,
    families: &'static [Family],
    probes: &'static [Probe],
    fate: Fate,
    frames: impl Fn(Packet) -> Vec<Vec<u8>> + 'static,
) -> Row {
    Row {
        what: what.into(),
        families,
        probes,
        fate,
        frames: Box::new(frames),
    }
}

/// Returns a row that only edits bytes of the frame; the checksum of an untagged IPv4 header is corrected afterwards.
fn edited(
    what: &str,
    families: &'static [Family],
    probes: &'static [Probe],
    fate: Fate,
    edit: impl Fn(&mut Vec<u8>) + 'static,
) -> Row {
    row(what, families, probes, fate, move |packet| {
        let mut frame = frame(&packet);
        edit(&mut frame);
        sum_header(&mut frame);
        vec![frame]
    })
}

/// Corrects the checksum of an untagged IPv4 header.
fn sum_header(frame: &mut [u8]) {
    if frame[12..14] != [0x08, 0x00] {
        return;
    }
    let end = 14 + 4 * usize::from(frame[14] & 15).max(5);
    frame[24..26].fill(0);
    let sum = netlab::packet::checksum(&frame[14..end]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}
