//! Ways round a gate: frames sent through a real veth at a real listening service, with the host's own
//! reassembly behind the gate.
//!
//! Each row is tried three times. With the gate down it does what its [`Fate`] says, so that a row which
//! could never reach anything says so and why; with the gate up, nothing reaches the service; with the gate
//! up and a grant, it is as without a gate, except for what is malformed.
//!
//! What not every kernel has, VLAN devices and security associations, is tried where there is some: `cargo
//! xtask kernels` sees to it.
//!
//! [`target`] sends and sees, [`link`], [`ipv4`], [`ipv6`], [`fragments`] and [`destinations`] are the table,
//! [`segments`] what is added to it where the host takes segment routing,
//! [`vlan`] and [`authentication`] what is added to it on such a kernel, [`flags`] tries all that TCP has, and
//! [`sizes`] sends what is longer than a frame usually is, with offloads on and off.

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

/// One way to send a packet.
struct Row {
    what: String,
    families: &'static [Family],
    probes: &'static [Probe],
    fate: Fate,
    /// The frames that a plain packet becomes.
    frames: Box<dyn Fn(Packet) -> Vec<Vec<u8>>>,
}

/// What becomes of a row's frames where no gate denies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The service gets the packet.
    Served,
    /// The service gets it without a gate; with one, not even from a source with a grant.
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
    no_row_gets_past_the_gate(Attach::Native);
}

#[test]
fn generic() {
    no_row_gets_past_the_gate(Attach::Generic);
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
    fn without_link_headers() {
        let build = Target::build_without_link_headers;
        no_row_of_segments_gets_past_the_gate(build, Attach::Generic);
    }
}

/// The rows that have nothing to do with link headers, on an interface that has none.
#[test]
fn without_link_headers() {
    let Some(target) = Target::build_without_link_headers() else {
        return;
    };
    let rows = [ipv4::rows(), ipv6::rows(), fragments::rows()];
    let rows: Vec<Row> = rows.into_iter().flatten().collect();

    expect(&target, &rows, "without a gate", REACHES);
    target.up(Attach::Generic);
    expect(&target, &rows, "past the gate", |_| false);
    target.grant();
    expect(&target, &rows, "under a grant", SERVED);
}

fn no_row_gets_past_the_gate(attach: Attach) {
    let Some(target) = Target::build() else {
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

/// Tries every row, and names at once all that did otherwise than expected.
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

/// A row that changes nothing but bytes of the one frame; the checksum of an untagged IPv4 header is put
/// right again.
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

/// Puts the checksum of an IPv4 header right, where there is one and no tag before it.
fn sum_header(frame: &mut [u8]) {
    if frame[12..14] != [0x08, 0x00] {
        return;
    }
    let end = 14 + 4 * usize::from(frame[14] & 15).max(5);
    frame[24..26].fill(0);
    let sum = netlab::packet::checksum(&frame[14..end]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}
