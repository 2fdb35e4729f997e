//! What was measured of knocks, in tables.

use std::time::Duration;

use super::{Aim, Case, Measured, SIZED, STEPS, flood::Rate, rivals::Rival};
use crate::figures::{Figure, Part, Row, over, times};

impl Case {
    /// Returns a row of one quantity; `None` if it is not available.
    fn row(&self, of: impl Fn(&Measured) -> Option<f64>) -> Option<Row> {
        if let Some(failure) = &self.failure {
            return Some(Row::absent(self.name(), failure));
        }
        let rounds: Vec<f64> = self.rounds.iter().filter_map(of).collect();
        (!rounds.is_empty()).then(|| Row::new(self.name(), rounds, Vec::new()))
    }
}

pub(super) fn who(rival: Rival, step: Duration) -> String {
    if rival.steps() > 1 {
        format!("{}, {} ms apart", rival.name(), step.as_millis())
    } else {
        rival.name()
    }
}

pub(super) fn parts(cases: &[Case]) -> Vec<Part> {
    let calm = |case: &&Case| case.rate == Rate::None && case.step == STEPS[0];
    let nobody = cases[0].name();
    let median = |values: &[f64]| Figure::of_rounds(values.to_vec()).map(|figure| figure.value);
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
            Figure::of_rounds(measured.outcome.in_vain.clone()).map(|figure| figure.high)
        })?;
        let against = over(&nobody);
        // What a process verifies takes a moment.
        let at_once = case.rival.is_ours() && case.rival != Rival::KnockgateFwknop;
        row.against = vec![if at_once {
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
                Rival::Authenticated => against.at_least(1.0),
                Rival::Knockgate(_) if case.step == STEPS[0] => against.at_least(0.99),
                Rival::Knockgate(SIZED) => against.at_least(0.95),
                _ => against,
            }];
        }
        let sent = case.rounds.iter().map(|measured| measured.sent * 1e3);
        let place = Figure::of_rounds(sent.collect()).map_or(0.0, |figure| figure.value);
        // The others are measured at two rates, which make no curve.
        let single = [Rival::Authenticated, Rival::KnockgateFwknop];
        Some(
            if case.aim == Aim::Knocks && !single.contains(&case.rival) {
                row.on_curve(who(case.rival, case.step), place)
            } else {
                row
            },
        )
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
        .filter(|case| case.rival.is_ours())
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
                "a flood: first knocks from constantly changing sources; for fwknop's, packets with a wrong HMAC; for authenticated knocks, random bytes",
                "with the host's secret: what passes the mask, as anybody with a key of the host can make it, and has a wrong tag",
                "fwknop's client: from many sources and above `refusals`, a flood keeps clients out in proportion",
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
