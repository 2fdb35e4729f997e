//! Figures: what was measured, and comparisons between rows.

mod estimate;

use serde_json::{Value, json};

pub use self::estimate::{Figure, Samples, Slice};

/// A group of rows that were measured in the same rounds.
pub struct Part {
    /// The key by which programs find it in the figures.
    pub id: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    /// Remarks that a reader needs to understand the rows.
    pub notes: Vec<&'static str>,
    pub rows: Vec<Row>,
}

/// One quantity, measured once in each round.
pub struct Row {
    pub name: String,
    pub samples: Samples,
    pub against: Vec<Against>,
    /// Whether it is about knockgate; pictures then say so.
    pub is_ours: bool,
    /// The curve of which this is a point, and its place on the curve.
    pub point: Option<(String, f64)>,
    /// The reason why nothing was measured.
    pub missing: Option<String>,
}

/// A comparison of a row with another of its part, round by round.
#[derive(Debug, Clone)]
pub struct Against {
    pub floor: String,
    pub how: How,
    pub target: Option<Target>,
}

/// The target of a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// A value that is known, and how far from it is near enough.
    Near(f64, f64),
}

/// Whether a target was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Met,
    Missed,
    /// The interval reaches beyond the target.
    Undecided,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    Difference,
    Ratio,
    /// What the row adds to the floor, divided by what this other row adds to it.
    RatioOfDifferences(String),
}

/// Compares a row with a floor: the difference.
pub fn over(floor: impl Into<String>) -> Against {
    Against {
        floor: floor.into(),
        how: How::Difference,
        target: None,
    }
}

/// Compares a row with a floor: the ratio.
pub fn times(floor: impl Into<String>) -> Against {
    Against {
        floor: floor.into(),
        how: How::Ratio,
        target: None,
    }
}

/// Compares what a row adds to a floor with what `other` adds to it: the ratio, which does not depend on the speed of
/// the machine.
pub fn times_what(other: impl Into<String>, floor: impl Into<String>) -> Against {
    Against {
        floor: floor.into(),
        how: How::RatioOfDifferences(other.into()),
        target: None,
    }
}

impl Against {
    #[must_use]
    pub fn at_most(mut self, most: f64) -> Self {
        self.target = Some(Target::AtMost(most));
        self
    }

    #[must_use]
    pub fn at_least(mut self, least: f64) -> Self {
        self.target = Some(Target::AtLeast(least));
        self
    }

    #[must_use]
    pub fn near(mut self, known: f64, by: f64) -> Self {
        self.target = Some(Target::Near(known, by));
        self
    }
}

impl Target {
    /// Returns whether a figure meets the target. Of rounds, the median counts; of slices, the whole interval.
    pub fn outcome(self, figure: Figure, is_interval: bool) -> Outcome {
        let Figure { value, low, high } = figure;
        let (low, high) = if is_interval {
            (low, high)
        } else {
            (value, value)
        };
        let (least, most) = match self {
            Self::AtMost(most) => (f64::NEG_INFINITY, most),
            Self::AtLeast(least) => (least, f64::INFINITY),
            Self::Near(known, by) => (known - by, known + by),
        };
        if least <= low && high <= most {
            Outcome::Met
        } else if high < least || most < low {
            Outcome::Missed
        } else {
            Outcome::Undecided
        }
    }

    fn json(self) -> Value {
        match self {
            Self::AtMost(most) => json!({"at_most": most}),
            Self::AtLeast(least) => json!({"at_least": least}),
            Self::Near(known, by) => json!({"near": known, "by": by}),
        }
    }
}

impl Row {
    pub fn new(name: impl Into<String>, rounds: Vec<f64>, against: Vec<Against>) -> Self {
        Self::of(name, Samples::Rounds(rounds), against)
    }

    pub fn sliced(name: impl Into<String>, slices: Vec<Slice>, against: Vec<Against>) -> Self {
        Self::of(name, Samples::Slices(slices), against)
    }

    fn of(name: impl Into<String>, samples: Samples, against: Vec<Against>) -> Self {
        Self {
            name: name.into(),
            samples,
            against,
            is_ours: false,
            point: None,
            missing: None,
        }
    }

    /// Returns its own figure; `None` if nothing was measured.
    pub fn figure(&self) -> Option<Figure> {
        estimate::figure([&self.samples], |[value]| Some(value))
    }

    /// Returns whether its figures have an interval, rather than the range of all rounds.
    pub fn has_interval(&self) -> bool {
        matches!(self.samples, Samples::Slices(_))
    }

    /// Returns a row that could not be measured on this machine.
    pub fn absent(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            missing: Some(why.into()),
            ..Self::new(name, Vec::new(), Vec::new())
        }
    }

    #[must_use]
    pub fn of_knockgate(mut self, is_ours: bool) -> Self {
        self.is_ours = is_ours;
        self
    }

    #[must_use]
    pub fn on_curve(mut self, curve: impl Into<String>, place: f64) -> Self {
        self.point = Some((curve.into(), place));
        self
    }
}

impl Part {
    /// Compares a row with others of the same rounds. `None`: there is nothing to compare, or no meaningful ratio.
    pub fn compared(&self, row: &Row, against: &Against) -> Option<Figure> {
        let samples = |name: &str| {
            let row = self.rows.iter().find(|row| row.name == name)?;
            Some(&row.samples)
        };
        let floor = samples(&against.floor)?;
        match &against.how {
            How::Difference => {
                estimate::figure([&row.samples, floor], |[value, floor]| Some(value - floor))
            }
            How::Ratio => {
                estimate::figure([&row.samples, floor], |[value, floor]| Some(value / floor))
            }
            How::RatioOfDifferences(other) => estimate::figure(
                [&row.samples, floor, samples(other)?],
                // If the other row seems to add nothing, its floor was disturbed, and there is no ratio.
                |[value, floor, other]| (other > floor).then(|| (value - floor) / (other - floor)),
            ),
        }
    }

    pub fn json(&self) -> Value {
        let Self {
            id,
            title,
            unit,
            notes,
            rows,
        } = self;
        let rows: Vec<Value> = rows.iter().map(|row| self.row_json(row)).collect();
        json!({"id": id, "title": title, "unit": unit, "notes": notes, "rows": rows})
    }

    fn row_json(&self, row: &Row) -> Value {
        let Row {
            name,
            samples,
            against,
            is_ours,
            point,
            missing,
        } = row;
        let comparisons: Vec<Value> = against
            .iter()
            .map(|against| {
                let (how, other) = match &against.how {
                    How::Difference => ("difference", None),
                    How::Ratio => ("ratio", None),
                    How::RatioOfDifferences(other) => ("ratio of differences", Some(other)),
                };
                let figure = self.compared(row, against).map(Figure::json);
                let target = against.target.map(Target::json);
                let mut json =
                    json!({"floor": against.floor, "how": how, "is": figure, "target": target});
                if let Some(other) = other {
                    json["other"] = json!(other);
                }
                json
            })
            .collect();
        let value = row.figure().map(Figure::json);
        let mut row =
            json!({"name": name, "value": value, "rounds": samples.json(), "against": comparisons});
        if *is_ours {
            row["who"] = json!("knockgate");
        }
        if let Some((curve, place)) = point {
            row["point"] = json!({"curve": curve, "place": place});
        }
        if let Some(missing) = missing {
            row["missing"] = json!(missing);
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_a_direction() {
        let most = over("floor").at_most(30.0).target.unwrap();
        let met = |target: Target, value: f64| {
            let (low, high) = (value - 5.0, value + 5.0);
            target.outcome(Figure { value, low, high }, false) == Outcome::Met
        };
        assert!(met(most, 30.0) && met(most, -1.0) && !met(most, 30.1));
        let least = times("floor").at_least(0.99).target.unwrap();
        assert!(met(least, 0.99) && met(least, 1.0) && !met(least, 0.98));
        assert_eq!(least.json(), json!({"at_least": 0.99}));
    }

    #[test]
    fn an_interval_that_reaches_beyond_a_target_decides_nothing() {
        let figure = |low, high| Figure {
            value: f64::midpoint(low, high),
            low,
            high,
        };
        for (low, high, outcome) in [
            (8.0, 12.0, Outcome::Met),
            (7.9, 12.0, Outcome::Undecided),
            (9.0, 13.0, Outcome::Undecided),
            (12.1, 13.0, Outcome::Missed),
            (0.0, 7.0, Outcome::Missed),
        ] {
            let target = Target::Near(10.0, 2.0);
            assert_eq!(
                target.outcome(figure(low, high), true),
                outcome,
                "{low} {high}"
            );
        }
        assert_eq!(
            Target::AtMost(2.0).outcome(figure(1.0, 2.5), true),
            Outcome::Undecided
        );
    }

    #[test]
    fn a_row_says_what_it_lacks_and_where_it_belongs() {
        let part = Part {
            id: "flood",
            title: "",
            unit: "%",
            notes: Vec::new(),
            rows: vec![
                Row::new("here", vec![100.0], Vec::new()).on_curve("ours", 1e3),
                Row::absent("there", "no knockd"),
            ],
        };
        let json = part.json();
        assert_eq!(
            json["rows"][0]["point"],
            json!({"curve": "ours", "place": 1e3})
        );
        assert_eq!(json["rows"][0].get("missing"), None);
        assert_eq!(json["rows"][1]["missing"], "no knockd");
        assert_eq!(json["rows"][1]["value"], Value::Null);
    }

    #[test]
    fn rows_are_compared_within_a_round() {
        let row = |name: &str, rounds: &[f64], against| Row::new(name, rounds.into(), against);
        let part = Part {
            id: "",
            title: "",
            unit: "ns",
            notes: Vec::new(),
            rows: vec![
                row("floor", &[10.0, 20.0, 40.0], Vec::new()),
                row("row", &[13.0, 23.0, 43.0], vec![over("floor")]),
            ],
        };
        let spread = part
            .compared(&part.rows[1], &part.rows[1].against[0])
            .unwrap();
        assert_eq!((spread.value, spread.low, spread.high), (3.0, 3.0, 3.0));
        let ratio = part.compared(&part.rows[1], &times("floor")).unwrap();
        assert!((ratio.value - 1.15).abs() < 1e-9);
        assert_eq!(part.compared(&part.rows[1], &over("no such row")), None);
    }

    /// Returns a part with three rows: a floor, a row to compare with, and the row to compare.
    fn trio(floor: &[f64], other: &[f64], row: &[f64]) -> Part {
        let against = vec![times_what("other", "floor").at_most(1.5)];
        Part {
            id: "",
            title: "",
            unit: "ns",
            notes: Vec::new(),
            rows: vec![
                Row::new("floor", floor.into(), Vec::new()),
                Row::new("other", other.into(), Vec::new()),
                Row::new("row", row.into(), against),
            ],
        }
    }

    fn ratio(part: &Part) -> Option<Figure> {
        part.compared(&part.rows[2], &part.rows[2].against[0])
    }

    #[test]
    fn what_two_rows_add_to_a_floor_is_compared_within_a_round() {
        // 5 of 10, 30 of 20, 20 of 10: independent of the floor.
        let part = trio(
            &[100.0, 200.0, 300.0],
            &[110.0, 220.0, 310.0],
            &[105.0, 230.0, 320.0],
        );
        let spread = ratio(&part).unwrap();
        assert_eq!((spread.value, spread.low, spread.high), (1.5, 0.5, 2.0));
        let json = &part.json()["rows"][2]["against"][0];
        assert_eq!(json["how"], "ratio of differences");
        assert_eq!(
            (&json["floor"], &json["other"]),
            (&json!("floor"), &json!("other"))
        );
        assert_eq!(json["is"], json!({"value": 1.5, "low": 0.5, "high": 2.0}));
        assert_eq!(json["target"], json!({"at_most": 1.5}));
    }

    #[test]
    fn a_round_in_which_the_other_adds_nothing_is_left_out() {
        let disturbed = trio(
            &[100.0, 100.0, 150.0],
            &[110.0, 110.0, 110.0],
            &[105.0, 115.0, 120.0],
        );
        let spread = ratio(&disturbed).unwrap();
        assert_eq!((spread.low, spread.high), (0.5, 1.5));
    }

    #[test]
    fn there_is_no_ratio_to_what_is_noise() {
        let noise = trio(
            &[100.0, 100.0, 100.0, 100.0],
            &[101.0, 99.0, 100.0, 101.0],
            &[105.0; 4],
        );
        assert_eq!(ratio(&noise), None);
        assert_eq!(noise.json()["rows"][2]["against"][0]["is"], Value::Null);
        assert_eq!(
            noise.compared(&noise.rows[2], &times_what("no such row", "floor")),
            None
        );
    }
}
