//! What a packet costs on a wire: frames that the kernel makes go over a veth pair, and sender and
//! receiver share one CPU, so that nothing is lost and CPU time is the whole price.

mod rows;
mod targets;
mod traffic;

use std::{net::UdpSocket, path::Path};

use anyhow::{Result, ensure};
use aya::programs::{Xdp, XdpMode};

use crate::{
    Plan,
    clock::{self, Softirq, number},
    figures::{Against, Part, Row},
    gate::{Gate, KNOCKS, OPEN, PROTECTED},
    host::{Host, Wire},
    judge::Judge as _,
    minimal::Minimal,
    programs::{Programs, Traffic},
};

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Native,
    Generic,
}

/// Who stands at the host's end of a wire.
struct Contestant {
    wire: Wire,
    kind: Kind,
    /// Where it is no guest of the common host.
    own_host: Option<OwnHost>,
}

/// A host of a contestant's own, with sockets that take what passes.
struct OwnHost {
    host: Host,
    _sinks: Vec<UdpSocket>,
}

enum Kind {
    Nobody,
    /// Attached for as long as this value lives.
    Floor(#[expect(dead_code, reason = "it is kept, not used")] Xdp),
    Minimal(Minimal),
    Gate(Gate),
    /// nftables on the host.
    Rules,
}

/// One row to be measured.
struct Case {
    name: String,
    /// Index of the contestant.
    who: usize,
    frame: Vec<u8>,
    traffic: Traffic,
    expected: Expected,
    against: Vec<Against>,
    rounds: Vec<f64>,
}

/// How every frame of a row must fare.
#[derive(Debug, Clone, Copy)]
struct Expected {
    /// What gates count it as.
    reason: &'static str,
    /// Whether it reaches the host.
    delivered: bool,
}

/// Who stands on which wire, the rows that this makes, and those that nobody is here for.
type LineUp = (Vec<Contestant>, Vec<Case>, Vec<Row>);

/// Measures everything in one mode.
pub fn measure(
    host: &Host,
    programs: &mut Programs,
    binary: &Path,
    cpu: usize,
    mode: Mode,
    plan: &Plan,
) -> Result<Part> {
    let _sinks = sinks(host)?;
    let (contestants, mut cases, absent) = rows::line_up(host, programs, binary, mode)?;
    let mut meter = Meter {
        host,
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
                contestants[case.who].had_room()?;
                cheapest = cheapest.min(meter.sample(case)?);
            }
            case.rounds.push(cheapest);
        }
    }
    Ok(Part {
        id: match mode {
            Mode::Native => "live_native",
            Mode::Generic => "live_generic",
        },
        title: match mode {
            Mode::Native => "Live over veth, native",
            Mode::Generic => "Live over veth, generic",
        },
        unit: "ns of CPU a packet, sender, wire and host included, median (min–max)",
        notes: vec![
            "what passes ends in a UDP socket that nobody reads; knocks pass, as they always do",
            "minimal gate: a gate for one sequence that reads no tags, options or IPv6, and looks each source up once",
            "nftables: sets as large as knockgate's tables; native and generic are all the same to it",
            "targets in ns are for a processor on which `bare drop` is 64 ns; on another they say little",
            "targets in × are for any processor: what a row adds to its floor, by what the minimal gate adds to it in the same round",
            "unguarded has no such target: what the minimal gate adds there is not above the noise",
        ],
        rows: cases
            .into_iter()
            .map(Case::into_row)
            .chain(absent)
            .collect(),
    })
}

/// What passes ends in a socket that nobody reads. Knock ports have one, too: a closed port's unreachables
/// are limited in rate, so their price would depend on how long the bench runs.
fn sinks(host: &Host) -> Result<Vec<UdpSocket>> {
    host.sinks(&[&[PROTECTED, OPEN], &KNOCKS[..]].concat())
}

/// Sends, and reads the clocks.
struct Meter<'m> {
    host: &'m Host,
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

impl Contestant {
    /// Makes sure that every source that has knocked has its grant.
    fn had_room(&self) -> Result<()> {
        match &self.kind {
            Kind::Minimal(gate) => gate.had_room(),
            // A gate that has no room counts its knocks all the same; nftables' sets may fill, as anybody's would.
            Kind::Nobody | Kind::Floor(_) | Kind::Gate(_) | Kind::Rules => Ok(()),
        }
    }
}

impl Kind {
    /// How many packets have been judged so, where that is counted.
    fn judged(&self, reason: &str) -> Result<Option<u64>> {
        match self {
            Self::Gate(gate) => gate.packets(Some(reason)).map(Some),
            Self::Minimal(gate) if reason != "unguarded" => gate.packets(Some(reason)).map(Some),
            Self::Minimal(_) | Self::Nobody | Self::Floor(_) | Self::Rules => Ok(None),
        }
    }
}

impl Case {
    /// Makes sure that every frame arrives and fares as the row's name says. Warms up, too: sends to every
    /// source that a row of passing frames has, so that sessions are there.
    fn check(&mut self, meter: &mut Meter<'_>, contestant: &Contestant) -> Result<()> {
        let Contestant {
            wire,
            kind,
            own_host,
        } = contestant;
        let host = own_host.as_ref().map_or(meter.host, |own| &own.host);
        self.traffic.interface = wire.sender;
        let frames = u64::from(meter.frames);
        let reached = host.reached()?;
        let Expected { reason, delivered } = self.expected;
        let before = kind.judged(reason)?;
        meter.sample(self)?;
        let fared = match (before, kind.judged(reason)?) {
            (Some(before), Some(after)) => after - before,
            _ => frames,
        };
        let reached = host.reached()? - reached;
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
        Row::new(name, rounds, against)
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
