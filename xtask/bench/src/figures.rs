//! What was measured, and what it is compared with.

use serde_json::{Value, json};

/// A group of rows that were measured in the same rounds.
pub struct Part {
    pub title: &'static str,
    pub unit: &'static str,
    /// What a reader has to know to read the rows.
    pub notes: Vec<&'static str>,
    pub rows: Vec<Row>,
}

/// One thing that was measured, once a round.
pub struct Row {
    pub name: String,
    pub rounds: Vec<f64>,
    pub against: Vec<Against>,
}

/// A comparison of a row with another of its part, round by round.
#[derive(Debug, Clone)]
pub struct Against {
    pub floor: String,
    pub how: How,
    /// The most that it should come to.
    pub target: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Difference,
    Ratio,
}

/// The middle and the ends of what was measured in several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// By how much a row is above a floor.
pub fn over(floor: impl Into<String>) -> Against {
    Against {
        floor: floor.into(),
        how: How::Difference,
        target: None,
    }
}

/// How many times a floor a row is.
pub fn times(floor: impl Into<String>) -> Against {
    Against {
        floor: floor.into(),
        how: How::Ratio,
        target: None,
    }
}

impl Against {
    #[must_use]
    pub fn at_most(mut self, target: f64) -> Self {
        self.target = Some(target);
        self
    }
}

impl Spread {
    /// `None` where nothing was measured.
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
    /// How a row compares in each round.
    pub fn compared(&self, row: &Row, against: &Against) -> Option<Spread> {
        let floor = self.rows.iter().find(|floor| floor.name == against.floor)?;
        let each = row.rounds.iter().zip(&floor.rounds);
        Spread::of(match against.how {
            How::Difference => each.map(|(value, floor)| value - floor).collect(),
            How::Ratio => each.map(|(value, floor)| value / floor).collect(),
        })
    }

    pub fn json(&self) -> Value {
        let Self {
            title,
            unit,
            notes,
            rows,
        } = self;
        let rows: Vec<Value> = rows.iter().map(|row| self.row_json(row)).collect();
        json!({"title": title, "unit": unit, "notes": notes, "rows": rows})
    }

    fn row_json(&self, row: &Row) -> Value {
        let Row {
            name,
            rounds,
            against,
        } = row;
        let comparisons: Vec<Value> = against
            .iter()
            .map(|against| {
                let how = match against.how {
                    How::Difference => "difference",
                    How::Ratio => "ratio",
                };
                let spread = self.compared(row, against).map(Spread::json);
                json!({"floor": against.floor, "how": how, "is": spread, "target": against.target})
            })
            .collect();
        let value = Spread::of(rounds.clone()).map(Spread::json);
        json!({"name": name, "value": value, "rounds": rounds, "against": comparisons})
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
    fn rows_are_compared_within_a_round() {
        let row = |name: &str, rounds: &[f64], against| Row {
            name: name.into(),
            rounds: rounds.into(),
            against,
        };
        let part = Part {
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
}
