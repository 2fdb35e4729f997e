//! Figures: what was measured, and comparisons between rows.

use serde_json::{Value, json};

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
    pub rounds: Vec<f64>,
    pub against: Vec<Against>,
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
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    Difference,
    Ratio,
    /// What the row adds to the floor, divided by what this other row adds to it.
    RatioOfDifferences(String),
}

/// Median, minimum and maximum of several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
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
}

impl Target {
    pub fn met(self, median: f64) -> bool {
        match self {
            Self::AtMost(most) => median <= most,
            Self::AtLeast(least) => median >= least,
        }
    }

    fn json(self) -> Value {
        match self {
            Self::AtMost(most) => json!({"at_most": most}),
            Self::AtLeast(least) => json!({"at_least": least}),
        }
    }
}

impl Row {
    pub fn new(name: impl Into<String>, rounds: Vec<f64>, against: Vec<Against>) -> Self {
        Self {
            name: name.into(),
            rounds,
            against,
            point: None,
            missing: None,
        }
    }

    /// Returns a row that could not be measured on this machine.
    pub fn absent(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            missing: Some(why.into()),
            ..Self::new(name, Vec::new(), Vec::new())
        }
    }

    #[must_use]
    pub fn on_curve(mut self, curve: impl Into<String>, place: f64) -> Self {
        self.point = Some((curve.into(), place));
        self
    }
}

impl Spread {
    /// Returns the spread of values; `None` if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[half]
        } else {
            f64::midpoint(values[half - 1], values[half])
        };
        Some(Self {
            median,
            least,
            most,
        })
    }

    fn json(self) -> Value {
        let Self {
            median,
            least,
            most,
        } = self;
        json!({"median": median, "min": least, "max": most})
    }
}

impl Part {
    /// Compares a row within each round.
    pub fn compared(&self, row: &Row, against: &Against) -> Option<Spread> {
        let rounds = |name: &str| {
            let row = self.rows.iter().find(|row| row.name == name)?;
            Some(&row.rounds)
        };
        let each = row.rounds.iter().zip(rounds(&against.floor)?);
        Spread::of(match &against.how {
            How::Difference => each.map(|(value, floor)| value - floor).collect(),
            How::Ratio => each.map(|(value, floor)| value / floor).collect(),
            How::RatioOfDifferences(other) => {
                let each: Vec<_> = each.zip(rounds(other)?).collect();
                // If the other row seems to add nothing, its floor was disturbed in that round, and the round is left
                // out. If that happens often, there is no meaningful ratio.
                let ratios: Vec<f64> = each
                    .iter()
                    .filter(|((_, floor), other)| other > floor)
                    .map(|((value, floor), other)| (*value - *floor) / (*other - *floor))
                    .collect();
                if 2 * ratios.len() <= each.len() {
                    return None;
                }
                ratios
            }
        })
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
            rounds,
            against,
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
                let spread = self.compared(row, against).map(Spread::json);
                let target = against.target.map(Target::json);
                let mut json =
                    json!({"floor": against.floor, "how": how, "is": spread, "target": target});
                if let Some(other) = other {
                    json["other"] = json!(other);
                }
                json
            })
            .collect();
        let value = Spread::of(rounds.clone()).map(Spread::json);
        let mut row =
            json!({"name": name, "value": value, "rounds": rounds, "against": comparisons});
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
    fn spreads_have_a_middle() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.least, spread.most), (2.0, 1.0, 3.0));
        let even = Spread::of(vec![4.0, 1.0]);
        assert_eq!(
            even.map(|spread| spread.json()["median"] == 2.5),
            Some(true)
        );
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn targets_have_a_direction() {
        let most = over("floor").at_most(30.0).target.unwrap();
        assert!(most.met(30.0) && most.met(-1.0) && !most.met(30.1));
        let least = times("floor").at_least(0.99).target.unwrap();
        assert!(least.met(0.99) && least.met(1.0) && !least.met(0.98));
        assert_eq!(least.json(), json!({"at_least": 0.99}));
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
        assert_eq!((spread.median, spread.least, spread.most), (3.0, 3.0, 3.0));
        let ratio = part.compared(&part.rows[1], &times("floor")).unwrap();
        assert!((ratio.median - 1.15).abs() < 1e-9);
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

    fn ratio(part: &Part) -> Option<Spread> {
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
        assert_eq!((spread.median, spread.least, spread.most), (1.5, 0.5, 2.0));
        let json = &part.json()["rows"][2]["against"][0];
        assert_eq!(json["how"], "ratio of differences");
        assert_eq!(
            (&json["floor"], &json["other"]),
            (&json!("floor"), &json!("other"))
        );
        assert_eq!(json["is"], json!({"median": 1.5, "min": 0.5, "max": 2.0}));
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
        assert_eq!((spread.least, spread.most), (0.5, 1.5));
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
