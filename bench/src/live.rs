//! What a packet costs on a wire: frames that the kernel makes go over a veth pair, and sender and
//! receiver share one CPU, so that nothing is lost and CPU time is the whole price.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{Xdp, XdpMode};

use crate::{
    Plan,
    clock::{self, Softirq, number},
    figures::{Against, Part, Row, over},
    frame::{self, SYN, Transport},
    gate::{GRANTED, Gate, KNOCKS, OPEN, PROTECTED, Setup, knock_frame, knocks},
    programs::{Floor, Programs, Traffic},
    stage::{Stage, Wire},
};

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Native,
    Generic,
}

/// Sources that are granted nothing: as many as there may be in a row, then the next row's.
const STRANGERS: u32 = 0x0b00_0000;
const NEWCOMERS: u32 = 0x3000_0000;

/// Grants that the gates hold.
const GRANTS: [u32; 3] = [1, 1_000, 100_000];

/// Who stands at the host's end of a wire.
struct Contestant {
    wire: Wire,
    kind: Kind,
}

enum Kind {
    Nobody,
    Floor {
        which: Floor,
        /// Attached for as long as it lives.
        _program: Xdp,
    },
    Gate(Gate),
}

/// One row to be measured.
struct Case {
    name: String,
    /// Index of the contestant.
    who: usize,
    frame: Vec<u8>,
    traffic: Traffic,
    /// What the gate must count every frame as; without a gate, whether frames must reach the host.
    expected: Expected,
    against: Vec<Against>,
    rounds: Vec<f64>,
}

#[derive(Debug, Clone, Copy)]
enum Expected {
    Reason(&'static str),
    Delivered(bool),
}

/// Measures everything in one mode.
pub fn measure(
    stage: &Stage,
    programs: &mut Programs,
    binary: &Path,
    cpu: usize,
    mode: Mode,
    plan: &Plan,
) -> Result<Part> {
    // What passes ends in a socket that nobody reads. Knock ports have one, too: a closed port's
    // unreachables are limited in rate, so their price would depend on how long the bench runs.
    let _sinks = stage.sinks(&[&[PROTECTED, OPEN], &KNOCKS[..]].concat())?;
    let contestants = contestants(stage, programs, binary, mode)?;
    let mut cases = cases(mode, &contestants);
    let mut meter = Meter {
        stage,
        programs,
        softirq: Softirq::of(cpu)?,
        frames: plan.frames,
    };
    for case in &mut cases {
        case.check(&mut meter, &contestants[case.who])?;
    }
    for round in 0..plan.rounds {
        let count = cases.len();
        for turn in 0..count {
            // Another beginning each time, and there and back by turns.
            let turn = if round % 2 == 0 {
                turn
            } else {
                count - 1 - turn
            };
            let case = &mut cases[(turn + 5 * round) % count];
            let mut cheapest = f64::INFINITY;
            for _ in 0..plan.samples {
                cheapest = cheapest.min(meter.sample(case)?);
            }
            case.rounds.push(cheapest);
        }
    }
    Ok(Part {
        title: match mode {
            Mode::Native => "Live over veth, native",
            Mode::Generic => "Live over veth, generic",
        },
        unit: "ns of CPU a packet, sender, wire and host included, median (min–max)",
        notes: vec![
            "what passes ends in a UDP socket that nobody reads; knocks pass, as they always do",
        ],
        rows: cases.into_iter().map(Case::into_row).collect(),
    })
}

fn contestants(
    stage: &Stage,
    programs: &mut Programs,
    binary: &Path,
    mode: Mode,
) -> Result<Vec<Contestant>> {
    let mut contestants = vec![Contestant {
        wire: stage.wire("nobody")?,
        kind: Kind::Nobody,
    }];
    for (name, floor) in [("drop", Floor::Drop), ("parse", Floor::Parse)] {
        let wire = stage.wire(name)?;
        let mut program = programs.floor(floor)?;
        stage.inside(|| {
            program
                .attach_to_if_index(wire.host, mode.of_aya())
                .with_context(|| format!("can't attach the {name} program"))
        })?;
        contestants.push(Contestant {
            wire,
            kind: Kind::Floor {
                which: floor,
                _program: program,
            },
        });
    }
    for grants in GRANTS {
        let wire = stage.wire(&format!("gate{grants}"))?;
        let setup = Setup {
            attach: mode.of_knockgate(),
            // Room for the grants that whole knocks will earn.
            grants: 1 << 20,
            ..Setup::default()
        };
        let gate = Gate::up(stage, binary, &wire, &setup)?;
        gate.grant(programs, grants)?;
        contestants.push(Contestant {
            wire,
            kind: Kind::Gate(gate),
        });
    }
    Ok(contestants)
}

fn cases(mode: Mode, contestants: &[Contestant]) -> Vec<Case> {
    let denied = frame::ipv4(Transport::Tcp(SYN), STRANGERS, 40000, PROTECTED);
    let datagram = |port| frame::ipv4(Transport::Udp, STRANGERS, 40000, port);
    let from = |first, sources, port| Traffic {
        first,
        sources,
        steps: 1,
        ports: [port; 4],
        hold: 31,
        ..Traffic::default()
    };
    // Targets are for native mode, and the sum of the floor and what may be added to it.
    let target = |at_most: Option<f64>, against: Against| Against {
        target: at_most.filter(|_| mode == Mode::Native),
        ..against
    };
    let mut cases = Vec::new();
    for (who, contestant) in contestants.iter().enumerate() {
        let mut add = |name: String, frame: &[u8], traffic, expected, against| {
            cases.push(Case {
                name,
                who,
                frame: frame.to_vec(),
                traffic,
                expected,
                against,
                rounds: Vec::new(),
            });
        };
        let flood = from(STRANGERS, 65_536, PROTECTED);
        let passing = from(STRANGERS, 65_536, OPEN);
        match &contestant.kind {
            Kind::Nobody => {
                let delivered = Expected::Delivered(true);
                add(
                    "no program, UDP to 443".into(),
                    &datagram(OPEN),
                    passing,
                    delivered,
                    vec![],
                );
                let knock = from(STRANGERS, 65_536, KNOCKS[0]);
                add(
                    "no program, UDP to 7101".into(),
                    &knock_frame(),
                    knock,
                    delivered,
                    vec![],
                );
                let granted = from(GRANTED, 1_000, PROTECTED);
                add(
                    "no program, UDP to 22".into(),
                    &datagram(PROTECTED),
                    granted,
                    delivered,
                    vec![],
                );
            }
            Kind::Floor {
                which: Floor::Parse,
                ..
            } => {
                let against = vec![over("bare drop")];
                add(
                    "parse only, SYN to 22".into(),
                    &denied,
                    flood,
                    Expected::Delivered(false),
                    against,
                );
                let against = vec![over("no program, UDP to 443")];
                add(
                    "parse only, UDP to 443".into(),
                    &datagram(OPEN),
                    passing,
                    Expected::Delivered(true),
                    against,
                );
            }
            Kind::Floor { .. } => {
                add(
                    "bare drop".into(),
                    &denied,
                    flood,
                    Expected::Delivered(false),
                    vec![],
                );
            }
            Kind::Gate(gate) => {
                let grants: u32 = gate.name.trim_start_matches("gate").parse().unwrap_or(0);
                let most = if grants > 1_000 { 50.0 } else { 30.0 };
                let against = vec![
                    target(Some(most), over("bare drop")),
                    over("parse only, SYN to 22"),
                ];
                add(
                    format!("denied, {grants} grants"),
                    &denied,
                    flood,
                    Expected::Reason("no_grant"),
                    against,
                );
                let against = vec![
                    target(Some(25.0), over("no program, UDP to 443")),
                    over("parse only, UDP to 443"),
                ];
                add(
                    format!("unguarded, {grants} grants"),
                    &datagram(OPEN),
                    passing,
                    Expected::Reason("unguarded"),
                    against,
                );
                let most = (grants <= 1_000).then_some(35.0);
                let against = vec![target(most, over("no program, UDP to 22"))];
                let granted = from(GRANTED, grants, PROTECTED);
                add(
                    format!("granted, {grants} grants"),
                    &datagram(PROTECTED),
                    granted,
                    Expected::Reason("grant"),
                    against,
                );
                if grants == 1 {
                    knocking(&mut add, &target);
                }
            }
        }
    }
    cases
}

/// Knocks, which the host takes delivery of as of any packet: compared with the same without a program.
fn knocking(
    add: &mut impl FnMut(String, &[u8], Traffic, Expected, Vec<Against>),
    target: &impl Fn(Option<f64>, Against) -> Against,
) {
    /// The bare drop's price, by which targets for programs that keep knocks to themselves are less.
    const DROP: f64 = 64.0;
    let floor = "no program, UDP to 7101";
    let traffic = |first, sources, steps| Traffic {
        first,
        sources,
        steps,
        ports: knocks(),
        hold: 15,
        ..Traffic::default()
    };
    let frame = knock_frame();
    let rows = [
        (
            "first knock, 32,768 sources",
            traffic(NEWCOMERS, 32_768, 1),
            120.0,
        ),
        (
            "first knock, 1,048,576 sources",
            traffic(NEWCOMERS + 0x0100_0000, 1 << 20, 1),
            300.0,
        ),
        (
            "whole knocks, ever new sources",
            traffic(NEWCOMERS + 0x0200_0000, 0, 3),
            280.0,
        ),
    ];
    for (name, traffic, most) in rows {
        let against = vec![target(Some(most - DROP), over(floor))];
        add(
            name.into(),
            &frame,
            traffic,
            Expected::Reason("knock"),
            against,
        );
    }
}

/// Sends, and reads the clocks.
struct Meter<'m> {
    stage: &'m Stage,
    programs: &'m mut Programs,
    softirq: Softirq,
    frames: u32,
}

impl Meter<'_> {
    /// ns of CPU a frame.
    fn sample(&mut self, case: &mut Case) -> Result<f64> {
        let Case { frame, traffic, .. } = case;
        let before = clock::thread() + self.softirq.spent()?;
        self.programs.send(frame, traffic, self.frames)?;
        let spent = clock::thread() + self.softirq.spent()? - before;
        Ok(number(spent) / f64::from(self.frames))
    }
}

impl Case {
    /// Makes sure that every frame arrives and fares as the row's name says. Warms up, too: sends to every
    /// source that a row of passing frames has, so that sessions are there.
    fn check(&mut self, meter: &mut Meter<'_>, contestant: &Contestant) -> Result<()> {
        let Contestant { wire, kind } = contestant;
        self.traffic.interface = wire.sender;
        let frames = u64::from(meter.frames);
        let reached = meter.stage.reached()?;
        let judged = |reason| match kind {
            Kind::Gate(gate) => gate.packets(reason),
            Kind::Nobody | Kind::Floor { .. } => Ok(0),
        };
        let (delivered, fared) = match self.expected {
            Expected::Delivered(delivered) => {
                meter.sample(self)?;
                (delivered, frames)
            }
            Expected::Reason(reason) => {
                let before = judged(Some(reason))?;
                meter.sample(self)?;
                (reason != "no_grant", judged(Some(reason))? - before)
            }
        };
        let reached = meter.stage.reached()? - reached;
        ensure!(
            fared == frames && reached == if delivered { frames } else { 0 },
            "`{}`: of {frames} frames {reached} reached the host and {fared} were judged as expected",
            self.name
        );
        Ok(())
    }

    fn into_row(self) -> Row {
        let Self {
            name,
            against,
            rounds,
            who: _,
            frame: _,
            traffic: _,
            expected: _,
        } = self;
        Row {
            name,
            rounds,
            against,
        }
    }
}

impl Mode {
    pub const ALL: [Self; 2] = [Self::Native, Self::Generic];

    fn of_aya(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }

    fn of_knockgate(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}
