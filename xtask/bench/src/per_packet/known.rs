//! Whether the bench finds a difference that is known: ten nanoseconds.

use anyhow::Result;

use super::{Case, UNIT, Work, finer, measure, rows::denied_frame};
use crate::{
    Plan,
    figures::{Part, over},
    programs::{Programs, run, slope},
};

const NONE: &str = "XDP_DROP, after no multiplication";
/// What is added, ns.
const ADDED: f64 = 10.0;
/// How far from it the bench may be, ns.
const BY: f64 = 2.0;
/// Multiplications that take so long that nothing else matters.
const MANY: u32 = 2_000;

/// Measures a program that drops, and one that does so ten nanoseconds later.
pub fn known(programs: &mut Programs, plan: &Plan) -> Result<Part> {
    let none = programs.waiting(0)?;
    let each = each(programs)?;
    let turns = whole(ADDED / each);
    let some = programs.waiting(turns)?;
    let hot = || Work::Hot(denied_frame());
    let cases = vec![
        Case::new(NONE, &none, hot(), Vec::new()),
        Case::new(
            format!("the same, after {turns}"),
            &some,
            hot(),
            vec![over(NONE).near(f64::from(turns) * each, BY)],
        ),
    ];
    Ok(Part {
        id: "known",
        title: "A difference that is known",
        unit: UNIT,
        notes: vec![
            "multiplications that wait for each other: what one takes was measured by 2,000 in a run",
            "the goal is what so many take, so the row shows what the bench can tell apart in this run",
        ],
        rows: measure(programs, cases, &finer(plan))?,
    })
}

/// Returns the time of one multiplication, ns.
fn each(programs: &Programs) -> Result<f64> {
    const TRIES: usize = 20;
    const RUNS: u32 = 4_000;
    let many = programs.waiting(MANY)?;
    let mut least = f64::INFINITY;
    for _ in 0..TRIES {
        least = least.min(slope(RUNS, |count| run(&many, &denied_frame(), count))?);
    }
    Ok(least / f64::from(MANY))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few dozen"
)]
fn whole(turns: f64) -> u32 {
    turns.round().clamp(1.0, 1_000.0) as u32
}
