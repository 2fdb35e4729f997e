//! Estimates from samples, and how far they can be trusted.

use anyhow::Result;
use fastrand::Rng;
use serde_json::{Value, json};

use crate::clock::number;

/// What was measured of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// One value in each round.
    Rounds(Vec<f64>),
    /// Many short measurements of CPU time, one in each round.
    Slices(Vec<Slice>),
}

/// The CPU time of two runs of different length. What both share, such as the system call, drops out in their difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice {
    /// Of the short run, ns.
    pub short: f64,
    /// Of the long run, ns.
    pub long: f64,
    /// How many packets the long run has more.
    pub packets: f64,
}

/// A figure with its range: of rounds, the median, the least and the most; of slices, the estimate and its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// The share of slices that are cheaper than what is taken for the cost. Other work on the machine, such as a neighbour on the
/// same core, only adds time, often for most of a run; but the very cheapest slice depends on how many there are.
const QUANTILE: f64 = 0.1;
/// How often rounds are drawn again for an interval.
const RESAMPLED: usize = 400;
/// The share of these that lies below the interval, and above it: 95 % lie within.
const TAIL: f64 = 0.025;

impl Slice {
    /// Measures a long run and one of a quarter of it. `measure` returns the CPU time of a run of so many packets, ns.
    pub fn of(packets: u32, mut measure: impl FnMut(u32) -> Result<u64>) -> Result<Self> {
        let quarter = packets / 4;
        // What was measured before has evicted much of what the caches held. Without this run, the short one would pay for that
        // and the long one would not.
        measure(quarter)?;
        Ok(Self {
            short: number(measure(quarter)?),
            long: number(measure(packets)?),
            packets: f64::from(packets - quarter),
        })
    }
}

impl Samples {
    pub fn count(&self) -> usize {
        match self {
            Self::Rounds(rounds) => rounds.len(),
            Self::Slices(slices) => slices.len(),
        }
    }

    pub fn json(&self) -> Value {
        match self {
            Self::Rounds(rounds) => json!(rounds),
            Self::Slices(slices) => slices
                .iter()
                .map(|slice| json!([slice.short, slice.long, slice.packets]))
                .collect(),
        }
    }
}

/// Computes a figure from rows that were measured in the same rounds: `of` gets one value of each row. Returns `None` if nothing
/// was measured, or if `of` has no value for most rounds.
pub fn figure<const N: usize>(
    rows: [&Samples; N],
    of: impl Fn([f64; N]) -> Option<f64>,
) -> Option<Figure> {
    let count = rows.iter().map(|row| row.count()).min()?;
    if count == 0 {
        return None;
    }
    if let Some(rounds) = all(rows, |row| match row {
        Samples::Rounds(rounds) => Some(rounds.as_slice()),
        Samples::Slices(_) => None,
    }) {
        let values = (0..count).filter_map(|round| of(rounds.map(|row| row[round])));
        let values: Vec<f64> = values.collect();
        return (2 * values.len() > count).then(|| Figure::of_rounds(values))?;
    }
    let slices = all(rows, |row| match row {
        Samples::Slices(slices) => Some(slices.as_slice()),
        Samples::Rounds(_) => None,
    })?;
    let value = of(slices.map(|row| cost(row.iter().take(count))))?;
    // The same rounds of every row: what disturbed one has often disturbed the others.
    let mut random = Rng::with_seed(1);
    let mut again = Vec::with_capacity(RESAMPLED);
    for _ in 0..RESAMPLED {
        let picked: Vec<usize> = (0..count).map(|_| random.usize(..count)).collect();
        again.extend(of(
            slices.map(|row| cost(picked.iter().map(|round| &row[*round])))
        ));
    }
    if 2 * again.len() <= RESAMPLED {
        return None;
    }
    again.sort_by(f64::total_cmp);
    Some(Figure {
        value,
        low: quantile(&again, TAIL).min(value),
        high: quantile(&again, 1.0 - TAIL).max(value),
    })
}

fn all<'s, const N: usize, T: Copy + Default>(
    rows: [&'s Samples; N],
    of: impl Fn(&'s Samples) -> Option<T>,
) -> Option<[T; N]> {
    let mut found = [T::default(); N];
    for (place, row) in found.iter_mut().zip(rows) {
        *place = of(row)?;
    }
    Some(found)
}

/// Returns the time of one packet, ns. Long and short runs are judged by themselves: the difference of two that were disturbed may
/// be anything.
fn cost<'s>(slices: impl Iterator<Item = &'s Slice>) -> f64 {
    let slices: Vec<&Slice> = slices.collect();
    let cheap = |of: fn(&Slice) -> f64| {
        let mut values: Vec<f64> = slices.iter().map(|slice| of(slice)).collect();
        values.sort_by(f64::total_cmp);
        quantile(&values, QUANTILE)
    };
    cheap(|slice| slice.long / slice.packets) - cheap(|slice| slice.short / slice.packets)
}

/// Returns a quantile of sorted values, interpolated between two of them.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few hundred values"
)]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = sorted[place as usize];
    let above = sorted[(place as usize + 1).min(sorted.len() - 1)];
    (above - below).mul_add(place.fract(), below)
}

impl Figure {
    /// Returns median, least and most; `None` if there are no values.
    pub fn of_rounds(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        Some(Self {
            low: *values.first()?,
            high: *values.last()?,
            value: quantile(&values, 0.5),
        })
    }

    pub fn json(self) -> Value {
        let Self { value, low, high } = self;
        json!({"value": value, "low": low, "high": high})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns slices of a row that costs this much a packet, on a machine where other work disturbs most slices.
    fn disturbed(cost: f64, seed: u64, count: usize) -> Samples {
        const CALL: f64 = 20_000.0;
        let mut random = Rng::with_seed(seed);
        let mut run = |packets: f64| {
            let slowed = if random.f64() < 0.7 {
                0.4f64.mul_add(random.f64(), 1.2)
            } else {
                0.01f64.mul_add(random.f64(), 1.0)
            };
            (CALL + packets * cost) * slowed
        };
        let slice = |_| Slice {
            short: run(10_000.0),
            long: run(50_000.0),
            packets: 40_000.0,
        };
        Samples::Slices((0..count).map(slice).collect())
    }

    #[test]
    fn ten_nanoseconds_are_found_on_a_busy_machine() {
        for seed in 0..20 {
            let (floor, row) = (
                disturbed(60.0, 2 * seed, 60),
                disturbed(70.0, 2 * seed + 1, 60),
            );
            let added = figure([&row, &floor], |[row, floor]| Some(row - floor)).unwrap();
            assert!((added.value - 10.0).abs() < 3.0, "{added:?}");
            assert!(
                added.low <= 10.0 + 1.5 && added.high >= 10.0 - 1.5,
                "{added:?}"
            );
        }
    }

    #[test]
    fn rounds_have_a_median_and_a_range() {
        let of = |rounds: &[f64]| figure([&Samples::Rounds(rounds.into())], |[value]| Some(value));
        let of_three = of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            (of_three.value, of_three.low, of_three.high),
            (2.0, 1.0, 3.0)
        );
        assert_eq!(of(&[4.0, 1.0]).map(|figure| figure.value), Some(2.5));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn an_estimate_lies_within_its_interval() {
        let row = disturbed(5.0, 7, 8);
        let figure = figure([&row], |[value]| Some(value)).unwrap();
        assert!(figure.low <= figure.value && figure.value <= figure.high);
    }

    #[test]
    fn rounds_and_slices_are_not_compared() {
        let rounds = Samples::Rounds(vec![1.0; 8]);
        assert_eq!(
            figure([&rounds, &disturbed(5.0, 1, 8)], |[a, b]| Some(a - b)),
            None
        );
    }
}
