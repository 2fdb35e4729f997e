//! Measures knocking, compared with other port knockers: how many gates a core can open, how soon a knock opens one,
//! and whether a real knock still does while forged ones flood the host.

mod flood;
mod knocker;
mod rate;
mod rivals;

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use netlab::{packet::SYN, socket::PacketSocket};

pub use self::flood::{Junk, Rate, Sent, flood, send_all};
use self::{
    knocker::{Attempt, Outcome, Pace},
    rivals::{Rival, Standing},
};
use crate::{
    Plan, clock,
    figures::{Part, Row, Spread, over, times},
    frame::{self, Transport},
    host::Host,
    instance::{PROTECTED, Setup},
    programs::Programs,
    service::Service,
};

/// `limits.sources` with room for the sources of the fastest flood during a slow knock.
const SIZED: u32 = 1 << 20;
/// The first address of sources of real knocks.
const KNOCKERS: u32 = 0x0a01_0000;
/// Time between the steps of a knock: by a program, and by a person or over a slow line.
const STEPS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];
/// How long a flood lasts before the first knock.
const LEAD: Duration = Duration::from_millis(400);

/// One case, measured once in each round.
struct Case {
    rival: Rival,
    step: Duration,
    rate: Rate,
    aim: Aim,
    rounds: Vec<Measured>,
    /// The reason why it is no longer measured.
    failure: Option<String>,
}

/// The packets of a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// First knocks.
    Knocks,
    /// SYNs to the protected port.
    Denied,
}

struct Measured {
    outcome: Outcome,
    /// Packets of the flood, thousands a second.
    sent: f64,
    /// CPU time of the service, per cent of a core.
    cpu: Option<f64>,
    /// Resident memory of the service, MiB.
    memory: Option<f64>,
}

/// Measures everything that needs a host that answers.
pub fn measure(
    host: &Host,
    programs: &mut Programs,
    binary: &Path,
    plan: &Plan,
) -> Result<Vec<Part>> {
    let mut cases = cases(plan);
    // Daemons and knocks must not use the flood's CPU; threads and children of this thread do not.
    thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            clock::stay_away()?;
            all(programs, binary, plan, &mut cases)
        });
        measuring
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let mut parts = parts(&cases);
    parts.insert(0, rate::measure(host, programs, binary, plan)?);
    Ok(parts)
}

fn cases(plan: &Plan) -> Vec<Case> {
    let case = |rival: Rival, step, rate, aim| Case {
        rival,
        step,
        rate,
        aim,
        rounds: Vec::new(),
        failure: rival.lacks(),
    };
    let default = Rival::Knockgate(Setup::default().sources);
    let mut cases = vec![case(Rival::Nobody, STEPS[0], Rate::None, Aim::Knocks)];
    for rival in [default, Rival::Recipe, Rival::Knockd, Rival::Fwknopd] {
        // A knock with one step has no time between steps.
        for step in &STEPS[..rival.steps().min(STEPS.len())] {
            let rates = plan.floods.iter();
            cases.extend(rates.map(|rate| case(rival, *step, *rate, Aim::Knocks)));
        }
    }
    for rate in [Rate::None, Rate::Fastest] {
        cases.push(case(Rival::Knockgate(SIZED), STEPS[1], rate, Aim::Knocks));
    }
    cases.push(case(default, STEPS[0], Rate::Fastest, Aim::Denied));
    cases
}

fn all(programs: &mut Programs, binary: &Path, plan: &Plan, cases: &mut [Case]) -> Result<()> {
    for round in 0..plan.slow_rounds {
        let count = cases.len();
        for turn in 0..count {
            let turn = if round % 2 == 0 {
                turn
            } else {
                count - 1 - turn
            };
            let case = &mut cases[(turn + 5 * round) % count];
            if case.failure.is_some() {
                continue;
            }
            let name = format!("k{round}-{turn}");
            let standing = case.rival.stand(binary, &name);
            match standing.and_then(|standing| once(programs, &standing, case, plan)) {
                Ok(measured) => case.rounds.push(measured),
                // A failure of another daemon affects its own row only.
                Err(error) if !case.is_ours() => case.failure = Some(format!("{error:#}")),
                Err(error) => {
                    return Err(error).with_context(|| format!("knocks at {}", case.name()));
                }
            }
        }
    }
    Ok(())
}

/// Sends a frame. Tries again for 5 ms if a flood has filled the wire, since the wire is not what is measured. Returns
/// whether the frame was sent.
fn send(socket: &PacketSocket, frame: &[u8]) -> io::Result<bool> {
    for _ in 0..50 {
        if socket.send(frame)? {
            return Ok(true);
        }
        thread::sleep(Duration::from_micros(100));
    }
    Ok(false)
}

fn once(
    programs: &mut Programs,
    standing: &Standing,
    case: &Case,
    plan: &Plan,
) -> Result<Measured> {
    let junk = match case.aim {
        Aim::Knocks => standing.junk()?,
        Aim::Denied => Junk::to(
            frame::ipv4(Transport::Tcp(SYN), 0, 40000, PROTECTED),
            PROTECTED,
        ),
    };
    let (knocks, every) = case.turns(plan);
    let mut attempts = HashMap::new();
    for source in KNOCKERS..KNOCKERS + knocks {
        attempts.insert(source, Attempt::new(source, standing.knock(source)?));
    }
    let pace = Pace {
        step: case.step,
        every,
        patience: plan.patience,
    };
    let stop = AtomicBool::new(false);
    let (wire, rate) = (&standing.wire, case.rate);
    thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(programs, wire, &junk, rate, &stop));
        let measured = (|| {
            if rate != Rate::None {
                thread::sleep(LEAD);
            }
            let before = spent(standing)?;
            let begun = std::time::Instant::now();
            let outcome = knocker::knock(wire, attempts, pace)?;
            let elapsed = begun.elapsed().as_secs_f64() * 1e3;
            let cpu = spent(standing)?.zip(before);
            let memory = standing.service.as_ref().map(Service::memory);
            Ok(Measured {
                outcome,
                sent: 0.0,
                cpu: cpu.map(|(after, before)| 100.0 * (after - before) / elapsed),
                memory: memory.transpose()?,
            })
        })();
        stop.store(true, Ordering::Relaxed);
        let sent = flooding
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        measured.map(|measured| Measured {
            sent: sent / 1e3,
            ..measured
        })
    })
}

fn spent(standing: &Standing) -> Result<Option<f64>> {
    let service = standing.service.as_ref();
    service.map(Service::cpu).transpose()
}

impl Case {
    fn name(&self) -> String {
        let Self {
            step, rate, aim, ..
        } = self;
        let flood = match aim {
            Aim::Knocks => rate.name(),
            Aim::Denied => format!("{} at the guarded port", rate.name()),
        };
        format!("{}, {flood}", who(self.rival, *step))
    }

    fn is_ours(&self) -> bool {
        matches!(self.rival, Rival::Knockgate(_))
    }

    /// Returns how many sources knock, and the time from one to the next.
    ///
    /// Without a flood they do not overlap: knockd forgets the steps of all others when the knock that began first is
    /// complete, which is not an effect of the flood.
    fn turns(&self, plan: &Plan) -> (u32, Duration) {
        let long = self.step * 3;
        if self.rate == Rate::None && long > plan.every {
            (plan.knocks.div_ceil(3), long)
        } else {
            (plan.knocks, plan.every)
        }
    }

    /// Returns a row of one quantity; `None` if it is not available.
    fn row(&self, of: impl Fn(&Measured) -> Option<f64>) -> Option<Row> {
        if let Some(failure) = &self.failure {
            return Some(Row::absent(self.name(), failure));
        }
        let rounds: Vec<f64> = self.rounds.iter().filter_map(of).collect();
        (!rounds.is_empty()).then(|| Row::new(self.name(), rounds, Vec::new()))
    }
}

fn who(rival: Rival, step: Duration) -> String {
    if rival.steps() > 1 {
        format!("{}, {} ms apart", rival.name(), step.as_millis())
    } else {
        rival.name()
    }
}

fn parts(cases: &[Case]) -> Vec<Part> {
    let calm = |case: &&Case| case.rate == Rate::None && case.step == STEPS[0];
    let nobody = cases[0].name();
    let median = |values: &[f64]| Spread::of(values.to_vec()).map(|spread| spread.median);
    let calm_of = |case: &Case| {
        let same = |other: &&Case| other.rival == case.rival && other.step == case.step;
        let calm = cases
            .iter()
            .filter(same)
            .find(|other| other.rate == Rate::None);
        calm.map(Case::name).unwrap_or_default()
    };

    let soon = cases.iter().filter(calm).filter_map(|case| {
        let mut row = case.row(|measured| median(&measured.outcome.delays))?;
        row.against = vec![over(&nobody)];
        Some(row)
    });
    let vain = cases.iter().filter(calm).filter_map(|case| {
        let mut row = case.row(|measured| {
            Spread::of(measured.outcome.in_vain.clone()).map(|spread| spread.most)
        })?;
        let against = over(&nobody);
        row.against = vec![if case.is_ours() {
            against.at_most(0.0)
        } else {
            against
        }];
        Some(row)
    });
    let success = cases.iter().filter_map(|case| {
        let mut row = case.row(|measured| Some(measured.outcome.opened))?;
        if case.rate != Rate::None {
            let against = times(calm_of(case));
            row.against = vec![match case.rival {
                Rival::Knockgate(_) if case.step == STEPS[0] => against.at_least(0.99),
                Rival::Knockgate(SIZED) => against.at_least(0.95),
                _ => against,
            }];
        }
        let sent = case.rounds.iter().map(|measured| measured.sent * 1e3);
        let place = Spread::of(sent.collect()).map_or(0.0, |spread| spread.median);
        Some(match case.aim {
            Aim::Knocks => row.on_curve(who(case.rival, case.step), place),
            Aim::Denied => row,
        })
    });
    let fastest = || cases.iter().filter(|case| case.rate == Rate::Fastest);
    let sent = fastest().filter_map(|case| case.row(|measured| Some(measured.sent)));
    let cpu = cases.iter().filter_map(|case| {
        let mut row = case.row(|measured| measured.cpu)?;
        if case.rate != Rate::None {
            row.against = vec![over(calm_of(case))];
        }
        Some(row)
    });
    let memory = cases
        .iter()
        .filter(|case| case.is_ours())
        .filter_map(|case| {
            let mut row = case.row(|measured| measured.memory)?;
            if case.rate != Rate::None {
                row.against = vec![over(calm_of(case))];
            }
            Some(row)
        });

    let part = |id, title, unit, notes, rows| Part {
        id,
        title,
        unit,
        notes,
        rows,
    };
    vec![
        part(
            "knock_opens",
            "From the last step of a knock to the first answer of the port",
            "µs, median of a round's knocks, median (min–max) of rounds",
            vec![
                "a SYN goes right behind the last step, then one every 5 ms",
                "no gate: a SYN without a knock before it, which costs a little more than one that follows a knock",
            ],
            soon.collect(),
        ),
        part(
            "knock_in_vain",
            "Unanswered SYNs before that answer",
            "of a round's slowest knock, median (min–max) of rounds",
            Vec::new(),
            vain.collect(),
        ),
        part(
            "flood",
            "Real knocks that open the port while forged ones flood the host",
            "per cent, median (min–max)",
            vec![
                "a flood: first knocks from constantly changing sources; for fwknopd, packets with a wrong HMAC",
                "sized for it: with limits.sources = 1,048,576",
                "nftables: its ingress hook, sets of as many sources as knockgate's default",
            ],
            success.collect(),
        ),
        part(
            "flood_sent",
            "Rate of the fastest flood",
            "thousand packets a second, median (min–max)",
            Vec::new(),
            sent.collect(),
        ),
        part(
            "flood_cpu",
            "CPU time of services meanwhile",
            "per cent of a core, median (min–max)",
            vec!["knockgate: of `knockgate run`, which no gate needs"],
            cpu.collect(),
        ),
        part(
            "flood_memory",
            "Resident memory of `knockgate run` meanwhile",
            "MiB, median (min–max)",
            Vec::new(),
            memory.collect(),
        ),
    ]
}
