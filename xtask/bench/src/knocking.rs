//! Measures knocking, compared with other port knockers: how many gates a core can open, how soon a knock opens one,
//! and whether a real knock still does while forged ones flood the host.

mod flood;
mod knocker;
mod parts;
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
    figures::Part,
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
/// How many authenticated knocks are sent in one case.
const AUTHENTICATED: u32 = 100;
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
    /// First knocks; for authenticated ones, random bytes.
    Knocks,
    /// Authenticated knocks by who has the host's secret, and not the key.
    Forged,
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
    let mut parts = parts::parts(&cases);
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
    for (rate, aim) in [
        (Rate::None, Aim::Knocks),
        (Rate::Fastest, Aim::Knocks),
        (Rate::Fastest, Aim::Forged),
    ] {
        cases.push(case(Rival::Authenticated, STEPS[0], rate, aim));
    }
    for rate in [Rate::None, Rate::Fastest] {
        cases.push(case(Rival::KnockgateFwknop, STEPS[0], rate, Aim::Knocks));
    }
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
                Err(error) if !case.rival.is_ours() => case.failure = Some(format!("{error:#}")),
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
        Aim::Forged => standing.forgery()?,
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
            Aim::Forged => format!("{} with the host's secret", rate.name()),
            Aim::Denied => format!("{} at the guarded port", rate.name()),
        };
        format!("{}, {flood}", parts::who(self.rival, *step))
    }

    /// Returns how many sources knock, and the time from one to the next.
    ///
    /// Without a flood they do not overlap: knockd forgets the steps of all others when the knock that began first is
    /// complete, which is not an effect of the flood.
    fn turns(&self, plan: &Plan) -> (u32, Duration) {
        if self.rival == Rival::Authenticated {
            // Nothing is between the one packet of a knock and its answer, and making them costs nothing.
            return (AUTHENTICATED, STEPS[0]);
        }
        let long = self.step * 3;
        if self.rate == Rate::None && long > plan.every {
            (plan.knocks.div_ceil(3), long)
        } else {
            (plan.knocks, plan.every)
        }
    }
}
