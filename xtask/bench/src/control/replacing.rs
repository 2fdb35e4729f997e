//! Replaces the configuration in place, over and over, while one core sends as fast as it can.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Result, ensure};

use super::{Desk, ROUNDS, finish};
use crate::{
    Plan,
    clock::number,
    figures::{Part, Row, over},
    frame::{self, Transport},
    instance::{Instance, OPEN, PROTECTED, Setup},
    knocking::{Junk, Rate, Sent, send_all},
    programs::Programs,
};

const CALM: &str = "to the protected port, let through; nothing is replaced";
const CALM_OPEN: &str = "to an open port, lost; nothing is replaced";

/// A stream, and whether the configuration is replaced meanwhile.
struct Case {
    name: &'static str,
    port: u16,
    floor: Option<&'static str>,
    rounds: Vec<Measured>,
}

#[derive(Clone, Copy)]
struct Measured {
    /// Packets that were let through, or lost.
    amiss: u64,
    sent: Sent,
    replaced: u32,
}

/// Measures streams to the protected port, of which nothing may pass, and to an open port, of which everything must.
pub(super) fn measure(desk: &Desk<'_>, programs: &mut Programs, plan: &Plan) -> Result<Vec<Part>> {
    let _sinks = desk.host.sinks(&[PROTECTED, OPEN])?;
    let case = |name, port, floor| Case {
        name,
        port,
        floor,
        rounds: Vec::new(),
    };
    let mut cases = [
        case(CALM, PROTECTED, None),
        case("to the protected port, let through", PROTECTED, Some(CALM)),
        case(CALM_OPEN, OPEN, None),
        case("to an open port, lost", OPEN, Some(CALM_OPEN)),
    ];
    let setup = Setup::default();
    let instance = Instance::up(desk.host, desk.binary, desk.wire, &setup)?;
    for _ in 0..plan.slow_rounds.min(ROUNDS) {
        for case in &mut cases {
            let measured = case.once(desk, programs, &instance, plan)?;
            case.rounds.push(measured);
        }
    }
    let row = |case: &Case, of: fn(&Measured) -> f64| {
        let rounds = case.rounds.iter().map(of).collect();
        Row::new(case.name, rounds, Vec::new())
    };
    let amiss = cases.iter().map(|case| {
        let against = case.floor.map(|floor| over(floor).at_most(0.0));
        Row {
            against: against.into_iter().collect(),
            ..row(case, |measured| number(measured.amiss))
        }
    });
    let rates = cases
        .iter()
        .map(|case| row(case, |measured| measured.sent.rate() / 1e3));
    let replaced = cases.iter().filter(|case| case.floor.is_some());
    let replaced = replaced.map(|case| row(case, |measured| f64::from(measured.replaced)));
    let part = |id, title, unit, notes, rows| Part {
        id,
        title,
        unit,
        notes,
        rows,
    };
    Ok(vec![
        part(
            "replace_amiss",
            "Replacement in place under the fastest stream of one core",
            "packets, median (min–max)",
            vec!["`knockgate reload` of another configuration, again and again on another core"],
            amiss.collect(),
        ),
        part(
            "replace_sent",
            "Rate of these streams",
            "thousand packets a second, median (min–max)",
            Vec::new(),
            rates.collect(),
        ),
        part(
            "replace_count",
            "Replacements meanwhile",
            "median (min–max)",
            Vec::new(),
            replaced.collect(),
        ),
    ])
}

impl Case {
    fn once(
        &self,
        desk: &Desk<'_>,
        programs: &mut Programs,
        instance: &Instance,
        plan: &Plan,
    ) -> Result<Measured> {
        let junk = Junk::to(frame::ipv4(Transport::Udp, 0, 40000, self.port), self.port);
        let stop = AtomicBool::new(false);
        let before = desk.host.reached()?;
        let (sent, replaced) = thread::scope(|scope| {
            let sending =
                scope.spawn(|| send_all(programs, desk.wire, &junk, Rate::Fastest, &stop));
            let begun = std::time::Instant::now();
            let mut replaced = 0;
            let mut replace = || {
                while begun.elapsed() < plan.flooded {
                    if self.floor.is_none() {
                        thread::sleep(plan.flooded / 10);
                        continue;
                    }
                    replaced += 1;
                    instance.configure(&other(replaced))?;
                    finish(instance.on(desk.host).arg("reload"))?;
                }
                anyhow::Ok(())
            };
            let done = replace();
            stop.store(true, Ordering::Relaxed);
            let sent = sending
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            done?;
            anyhow::Ok((sent, replaced))
        })?;
        ensure!(
            self.floor.is_none() || replaced > 0,
            "nothing was replaced while packets were sent"
        );
        let reached = desk.host.reached()? - before;
        let amiss = if self.port == PROTECTED {
            reached
        } else {
            // Other packets that the host got meanwhile would hide as many that were lost.
            ensure!(reached <= sent.packets, "the host got more than was sent");
            sent.packets - reached
        };
        Ok(Measured {
            amiss,
            sent,
            replaced,
        })
    }
}

/// A configuration other than the one before.
fn other(number: u32) -> Setup {
    let open_for = if number.is_multiple_of(2) { "2h" } else { "3h" };
    Setup {
        open_for,
        ..Setup::default()
    }
}
