//! Measures the cost of a packet on a wire: the kernel sends frames over a veth pair, and sender and receiver share one
//! CPU, so that no frame is lost and CPU time is the whole cost.

mod rows;
mod targets;
mod traffic;

use std::{net::UdpSocket, path::Path};

use anyhow::{Result, bail, ensure};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};

use crate::{
    Plan,
    clock::{self, Softirq, number},
    figures::{Against, Part, Row, Slice},
    host::{Host, Wire},
    instance::{Instance, KNOCKS, OPEN, PROTECTED},
    judge::Judge as _,
    minimal::Minimal,
    programs::{Programs, Traffic},
};

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Native,
    Generic,
    /// Of knockgate and the bare drop alone: the others are XDP programs.
    Tcx,
}

/// What is measured at the host's end of a wire.
struct Contestant {
    wire: Wire,
    kind: Kind,
    /// Its own host, if it does not share the common one.
    own_host: Option<OwnHost>,
}

/// A contestant's own host, with sockets that receive the packets that pass.
struct OwnHost {
    host: Host,
    _sinks: Vec<UdpSocket>,
}

enum Kind {
    Nobody,
    /// Attached for as long as this value lives.
    Floor(#[expect(dead_code, reason = "it is kept, not used")] Xdp),
    /// As above.
    FloorAtTcx(#[expect(dead_code, reason = "it is kept, not used")] Ebpf),
    Minimal(Minimal),
    Instance(Instance),
    /// Rules of nftables on the host.
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
    slices: Vec<Slice>,
}

/// The expected result of every frame of a row.
#[derive(Debug, Clone, Copy)]
struct Expected {
    /// The reason under which instances count it.
    reason: &'static str,
    /// Whether it reaches the host.
    delivered: bool,
}

/// The contestants, the rows to be measured, and rows that cannot be measured on this machine.
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
    let (mut contestants, mut cases, absent) = rows::line_up(host, programs, binary, cpu, mode)?;
    let mut meter = Meter {
        host,
        programs,
        softirq: Softirq::of(cpu)?,
        frames: plan.frames,
    };
    for case in &mut cases {
        case.check(&mut meter, &contestants[case.who])?;
    }
    let before = Served::so_far(&contestants)?;
    for round in 0..plan.slices {
        let count = cases.len();
        for turn in 0..count {
            // Each round begins with another case, and the direction alternates.
            let turn = if round % 2 == 0 {
                turn
            } else {
                count - 1 - turn
            };
            let case = &mut cases[(turn + 5 * round) % count];
            contestants[case.who].is_fit()?;
            let slice = meter.slice(case)?;
            case.slices.push(slice);
        }
    }
    let service = Served::so_far(&contestants)?.since(&before);
    Ok(Part {
        id: match mode {
            Mode::Native => "live_native",
            Mode::Generic => "live_generic",
            Mode::Tcx => "live_tcx",
        },
        title: match mode {
            Mode::Native => "Live over veth, native",
            Mode::Generic => "Live over veth, generic",
            Mode::Tcx => "Live over veth, at TCX",
        },
        unit: "ns of CPU a packet, sender, wire and host included (95 % interval)",
        notes: vec![
            "packets that pass end in a UDP socket that nothing reads; knocks always pass",
            "minimal gate: a gate for one sequence that reads no tags, options or IPv6, and looks each source up once",
            "nftables: sets as large as knockgate's tables; native and generic make no difference to it",
            "targets in ns are for a processor on which `bare drop` takes 64 ns",
            "targets in × are for any processor: what a row adds to its floor, divided by what the minimal gate adds",
            "unguarded has no such target: what the minimal gate adds there is within the noise",
            "where the service has freed places, it runs on another CPU, and its time is in a row of its own",
        ],
        rows: cases
            .into_iter()
            .map(|case| {
                let is_ours = matches!(contestants[case.who].kind, Kind::Instance(_));
                case.into_row().of_knockgate(is_ours)
            })
            .chain(absent)
            .chain([service])
            .collect(),
    })
}

/// What the service has done so far, on the one instance that has it.
struct Served {
    /// CPU time, ms.
    time: f64,
    /// Grants that were given there.
    grants: u64,
}

impl Served {
    fn so_far(contestants: &[Contestant]) -> Result<Self> {
        for contestant in contestants {
            if let Kind::Instance(instance) = &contestant.kind
                && let Some(time) = instance.service_time()?
            {
                let grants = instance.knocks("opened")?;
                return Ok(Self { time, grants });
            }
        }
        bail!("no instance has a service")
    }

    fn since(&self, before: &Self) -> Row {
        let grants = number(self.grants - before.grants);
        let each = (self.time - before.time) * 1e6 / grants;
        let name = "the service, for each grant that was given";
        Row::new(name, vec![each], Vec::new()).of_knockgate(true)
    }
}

/// Opens sockets for the packets that pass, also at knock ports: ICMP errors of closed ports are limited in rate, so
/// their cost would depend on the length of the run.
fn sinks(host: &Host) -> Result<Vec<UdpSocket>> {
    host.sinks(&[&[PROTECTED, OPEN], &KNOCKS[..]].concat())
}

/// Sends frames and measures their CPU time.
struct Meter<'m> {
    host: &'m Host,
    programs: &'m mut Programs,
    softirq: Softirq,
    frames: u32,
}

impl Meter<'_> {
    fn slice(&mut self, case: &mut Case) -> Result<Slice> {
        Slice::of(self.frames, |frames| self.send(case, frames))
    }

    /// Sends frames, and returns the CPU time that they took, ns.
    fn send(&mut self, case: &mut Case, frames: u32) -> Result<u64> {
        let Case { frame, traffic, .. } = case;
        let before = clock::thread() + self.softirq.spent()?;
        self.programs.send(frame, traffic, frames)?;
        Ok(clock::thread() + self.softirq.spent()? - before)
    }
}

impl Contestant {
    /// Checks that every source that has knocked has its grant, and that the service runs where it is a part of it.
    fn is_fit(&mut self) -> Result<()> {
        match &mut self.kind {
            Kind::Minimal(minimal) => minimal.had_room(),
            // knockgate counts knocks even without room for a grant.
            Kind::Instance(instance) => instance.is_served(),
            // Sets of nftables may become full.
            Kind::Nobody | Kind::Floor(_) | Kind::FloorAtTcx(_) | Kind::Rules => Ok(()),
        }
    }
}

impl Kind {
    /// Returns how many packets were counted under a reason; `None` if they are not counted.
    fn judged(&self, reason: &str) -> Result<Option<u64>> {
        match self {
            Self::Instance(instance) => instance.packets(Some(reason)).map(Some),
            Self::Minimal(minimal) if reason != "unguarded" => {
                minimal.packets(Some(reason)).map(Some)
            }
            Self::Minimal(_)
            | Self::Nobody
            | Self::Floor(_)
            | Self::FloorAtTcx(_)
            | Self::Rules => Ok(None),
        }
    }
}

impl Case {
    /// Checks that every frame arrives and has the expected result. Also warms up: each source with a grant has its flow, and
    /// these have begun in the order of addresses, so that sources that take turns find them scattered in memory.
    fn check(&mut self, meter: &mut Meter<'_>, contestant: &Contestant) -> Result<()> {
        let Contestant {
            wire,
            kind,
            own_host,
        } = contestant;
        let host = own_host.as_ref().map_or(meter.host, |own| &own.host);
        self.traffic.interface = wire.sender;
        let frames = u64::from(meter.frames);
        let Expected { reason, delivered } = self.expected;
        if reason == "grant" {
            let mut flows = Traffic {
                sources: 0,
                ..self.traffic
            };
            meter
                .programs
                .send(&self.frame, &mut flows, self.traffic.sources)?;
        }
        let reached = host.reached()?;
        let before = kind.judged(reason)?;
        meter.send(self, meter.frames)?;
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
            slices,
            who: _,
            frame: _,
            traffic: _,
            expected: _,
        } = self;
        Row::sliced(name, slices, against)
    }
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Native, Self::Generic, Self::Tcx];

    /// Returns the mode of XDP, if it is one.
    fn of_xdp(self) -> Option<XdpMode> {
        match self {
            Self::Native => Some(XdpMode::Driver),
            Self::Generic => Some(XdpMode::Skb),
            Self::Tcx => None,
        }
    }

    fn of_knockgate(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
        }
    }
}
