//! `deny = "reject"`: a guarded port answers as a closed one.
//!
//! Every row is sent to a guarded port and, with nothing changed but the port, to one where nothing
//! listens. What this very kernel answers for the second must be what the gate answers for the first,
//! field by field. [`frame`] makes frames, [`testbed`] sends them, [`answer`] takes answers apart, [`tcp`], [`udp`] and
//! [`link`] are the rows,
//! [`vlan`] those on a kernel that has VLANs, [`limits`] counts answers, [`stacked`] puts the gate on
//! devices above a veth, [`run`] needs no network, and [`scanner`] asks nmap.

mod answer;
mod frame;
mod limits;
mod link;
mod run;
mod scanner;
mod stacked;
mod tcp;
mod testbed;
mod udp;
mod vlan;

use knockgate_tests::{
    lab::{Family, Lab},
    scenario::Attach,
};

use testbed::Testbed;

/// One packet, for any destination port.
struct Row {
    what: String,
    families: &'static [Family],
    frame: Box<dyn Fn(Family, u16) -> Vec<u8>>,
    expected: Expected,
}

/// What is known beforehand of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// A closed port answers.
    Answer,
    /// A closed port does not.
    Silence,
    /// It does, and the gate does not: the documentation says so.
    OnlyHost,
}

const BOTH: &[Family] = &[Family::V4, Family::V6];
const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];

#[test]
fn native() {
    the_gate_answers_as_the_host_does(Attach::Native);
}

#[test]
fn generic() {
    the_gate_answers_as_the_host_does(Attach::Generic);
}

fn the_gate_answers_as_the_host_does(attach: Attach) {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    let testbed = Testbed::new(lab, attach);
    testbed.without_limits();
    testbed.up();
    let rows = [tcp::rows(), udp::rows(), link::rows()];
    let mut wrong = Vec::new();
    for row in rows.into_iter().flatten() {
        for &family in row.families {
            let [host, gate] = [testbed::CLOSED, testbed::GUARDED].map(|port| {
                let frame = (row.frame)(family, port);
                testbed.ask(family, &frame)
            });
            let fits = match row.expected {
                Expected::Answer => host.is_some() && gate == host,
                Expected::Silence => host.is_none() && gate.is_none(),
                Expected::OnlyHost => host.is_some() && gate.is_none(),
            };
            if !fits {
                let Row { what, expected, .. } = &row;
                wrong.push(format!(
                    "{what} ({family:?}, {expected:?}):\n  host {host:?}\n  gate {gate:?}"
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} rows:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn row(
    what: impl Into<String>,
    families: &'static [Family],
    expected: Expected,
    frame: impl Fn(Family, u16) -> Vec<u8> + 'static,
) -> Row {
    Row {
        what: what.into(),
        families,
        frame: Box::new(frame),
        expected,
    }
}
