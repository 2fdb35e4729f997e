//! Measures how many gates one core can open in a second: whole knocks of constantly new sources, run by the program
//! alone.

use std::{path::Path, thread};

use anyhow::{Result, ensure};
use aya::programs::Xdp;

use crate::{
    Plan, clock,
    figures::{Part, Row, times},
    host::Host,
    instance::{Instance, Setup, knock_frame, knocks},
    judge::Judge as _,
    programs::{Floor, Programs, Traffic, slope},
};

const FLOOR: &str = "the same packets, dropped unread";
/// The first address of sources that knock.
const NEWCOMERS: u32 = 0x2000_0000;

pub fn measure(host: &Host, programs: &mut Programs, binary: &Path, plan: &Plan) -> Result<Part> {
    let wire = host.wire("rate")?;
    let setup = Setup {
        // Room for all grants, which end before the table is full.
        grants: 1 << 20,
        open_for: "1s",
        ..Setup::default()
    };
    let instance = Instance::up(host, binary, &wire, &setup)?;
    let drop = programs.floor(Floor::Drop)?;
    let mut traffic = Traffic {
        first: NEWCOMERS,
        steps: 3,
        ports: knocks(),
        hold: 31,
        ..Traffic::default()
    };
    let (mut floor, mut opened) = (Vec::new(), Vec::new());
    // On a thread of its own, since CPU time is measured by thread and CPU.
    thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            clock::stay()?;
            for _ in 0..plan.rounds {
                let mut best = |program: &Xdp| -> Result<f64> {
                    let mut most = 0.0;
                    for _ in 0..plan.samples {
                        most = f64::max(most, per_second(programs, program, &mut traffic)?);
                    }
                    Ok(most / 1e3)
                };
                floor.push(best(&drop)?);
                opened.push(best(instance.program())?);
            }
            anyhow::Ok(())
        });
        measuring
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let refused = instance.knocks("table_full")?;
    ensure!(
        refused == 0 && instance.knocks("opened")? > 0,
        "{refused} knocks were refused for want of room"
    );
    Ok(Part {
        id: "knock_rate",
        title: "Knocks that open, through the program alone, one core",
        unit: "thousand a second, median (min–max)",
        notes: vec!["three steps a knock, and each knock from a source that was never seen before"],
        rows: vec![
            Row::new(FLOOR, floor, Vec::new()),
            Row::new("knockgate", opened, vec![times(FLOOR)]),
        ],
    })
}

/// Returns whole knocks a second of CPU time.
fn per_second(programs: &mut Programs, program: &Xdp, traffic: &mut Traffic) -> Result<f64> {
    /// A multiple of a knock's steps, and of four.
    const PACKETS: u32 = 60_000;
    let spent = slope(PACKETS, |count| {
        programs.vary(program, &knock_frame(), traffic, count)
    })?;
    Ok(1e9 / (spent * f64::from(traffic.steps)))
}
