//! `deny = "reject"`: a protected port answers like a closed one.
//!
//! Every row is sent to a protected port and, with only the port changed, to one where nothing listens. knockgate's
//! answer for the first must equal this kernel's answer for the second, field by field.
//!
//! [`frame`] makes frames, [`testbed`] sends them, and [`answer`] parses answers. [`tcp`], [`udp`] and [`link`] are the
//! rows; [`vlan`] has rows for kernels with VLAN devices. [`limits`] counts answers, [`stacked`] guards devices above a
//! veth, [`run`] needs no network, and [`scanner`] runs nmap.

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

/// The expected answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Both ports answer.
    Answer,
    /// Neither port answers.
    Silence,
    /// Only the closed port answers, as documented.
    OnlyHost,
    /// As [`OnlyHost`](Self::OnlyHost) on some kernels, and neither port on others.
    AtMostHost,
    /// Both ports answer on some kernels, and neither on others.
    AsHost,
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

#[test]
fn tcx() {
    the_gate_answers_as_the_host_does(Attach::Tcx);
}

fn the_gate_answers_as_the_host_does(attach: Attach) {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    if !attach.is_there() {
        return;
    }
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
                Expected::AtMostHost => gate.is_none(),
                Expected::AsHost => gate == host,
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
