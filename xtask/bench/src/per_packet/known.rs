//! Whether the bench finds a difference that is known: about ten nanoseconds.

use anyhow::Result;

use super::{Case, UNIT, Work, finer, measure, rows::denied_frame};
use crate::{
    Plan,
    figures::{Part, over, times_what},
    programs::{Programs, run, slope},
};

/// What is added, ns, about: how fast the processor is differs from minute to minute.
const ADDED: f64 = 10.0;
/// How many times as many multiplications add so much that it is measured exactly ...
const TIMES: u32 = 20;
/// ... and how far from that number the bench may be: two nanoseconds of ten.
const BY: f64 = 4.0;

/// Measures three programs that drop after multiplications that wait for each other: many; some more, which take ten
/// nanoseconds; and twenty times as many more. How many times as much these add is known. All have many, since a processor
/// makes the first ones while it does something else.
pub fn known(programs: &mut Programs, plan: &Plan) -> Result<Part> {
    let turns = whole(ADDED / each(programs)?);
    let counts = [0, turns, TIMES * turns].map(|more| TIMES * turns + more);
    let [first, more, many] = counts.map(|turns| format!("XDP_DROP, after {turns}"));
    let programs_of = |turns| programs.waiting(turns);
    let [of_first, of_more, of_many] = counts.map(programs_of);
    let (of_first, of_more, of_many) = (of_first?, of_more?, of_many?);
    let hot = || Work::Hot(denied_frame());
    let cases = vec![
        Case::new(first.clone(), &of_first, hot(), Vec::new()),
        Case::new(more.clone(), &of_more, hot(), vec![over(first.clone())]),
        Case::new(
            many,
            &of_many,
            hot(),
            vec![
                over(first.clone()),
                times_what(more, first).near(f64::from(TIMES), BY),
            ],
        ),
    ];
    Ok(Part {
        id: "known",
        title: "A difference that is known",
        unit: UNIT,
        notes: vec![
            "multiplications, each of what the one before has come to: twenty times as many more take twenty times as much longer",
            "if the bench finds that, it can tell apart what the fewer ones add",
        ],
        rows: measure(programs, cases, &finer(plan))?,
    })
}

/// Returns the time of one multiplication, ns.
fn each(programs: &Programs) -> Result<f64> {
    const MANY: u32 = 2_000;
    const TRIES: usize = 5;
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
