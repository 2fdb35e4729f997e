//! Bars: the cost of each row, and how much of it is its floor.

use serde_json::Value;

use super::svg::{Anchor, Picture};

/// One bar.
#[derive(Debug, Clone, PartialEq)]
struct Bar {
    name: String,
    value: f64,
    /// The part of the floor.
    floor: f64,
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 390.0;
const RIGHT: f64 = 820.0;
const TOP: f64 = 64.0;
const STEP: f64 = 19.0;

/// Draws a part of the figures: each floor, and below it the rows whose first comparison is with it.
pub fn draw(part: &Value, title: &str) -> Option<String> {
    let groups = groups(part);
    let most = groups
        .iter()
        .flatten()
        .map(|bar| bar.value)
        .fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let rows = groups.iter().map(|group| group.len() + 1).sum::<usize>();
    let height = TOP + STEP * f64::from(u32::try_from(rows).ok()?) + 10.0;
    let mut picture = Picture::new(WIDTH, height);
    picture.text((16.0, 26.0), Anchor::Start, "title", title);
    let unit = "grey: the floor that a row is compared with; colour: what the row costs above it";
    picture.text((16.0, 44.0), Anchor::Start, "soft", unit);
    let scale = (RIGHT - LEFT) / most;
    let mut y = TOP;
    for (colour, group) in groups.iter().enumerate() {
        for (place, bar) in group.iter().enumerate() {
            let Bar { name, value, floor } = bar;
            let middle = y + STEP / 2.0 + 4.0;
            picture.text((LEFT - 8.0, middle), Anchor::End, "", name);
            let height = STEP - 5.0;
            let grey = floor.min(*value) * scale;
            picture.bar((LEFT, y + 2.0), (grey, height), "floor");
            let class = format!("fill c{}", colour % super::svg::COLOURS);
            picture.bar(
                (LEFT + grey, y + 2.0),
                (value * scale - grey, height),
                &class,
            );
            let label = if place == 0 {
                format!("{value:.0}")
            } else {
                format!("{value:.0}  ({:+.0})", value - floor)
            };
            picture.text(
                (LEFT + value * scale + 6.0, middle),
                Anchor::Start,
                "soft",
                label,
            );
            y += STEP;
        }
        y += STEP;
    }
    Some(picture.finish())
}

/// Returns groups of a floor and the rows whose first comparison is with it.
fn groups(part: &Value) -> Vec<Vec<Bar>> {
    let none = Vec::new();
    let rows = part["rows"].as_array().unwrap_or(&none);
    let value = |row: &Value| row["value"]["value"].as_f64();
    let value_of = |name: &str| {
        let row = rows.iter().find(|row| row["name"] == name)?;
        value(row)
    };
    let mut groups: Vec<Vec<Bar>> = Vec::new();
    for row in rows {
        let first = row["against"].as_array().and_then(|against| {
            against
                .iter()
                .find(|against| against["how"] == "difference")
        });
        let (Some(name), Some(value), Some(first)) = (row["name"].as_str(), value(row), first)
        else {
            continue;
        };
        let (Some(floor_name), Some(above)) =
            (first["floor"].as_str(), first["is"]["value"].as_f64())
        else {
            continue;
        };
        let Some(floor) = value_of(floor_name) else {
            continue;
        };
        let name = match row["who"].as_str() {
            Some(who) => format!("{who}, {name}"),
            None => name.to_owned(),
        };
        let bar = Bar {
            name,
            value,
            // Differences within rounds vary less than the difference of two rows' own.
            floor: value - above,
        };
        match groups.iter_mut().find(|group| group[0].name == floor_name) {
            Some(group) => group.push(bar),
            None => groups.push(vec![
                Bar {
                    name: floor_name.to_owned(),
                    value: floor,
                    floor,
                },
                bar,
            ]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ours(mut row: Value) -> Value {
        row["who"] = json!("knockgate");
        row
    }

    fn part() -> Value {
        let row = |name: &str, value: f64, floor: Option<&str>| {
            let against = floor.map_or(json!([]), |floor| {
                json!([
                    {"floor": "drop", "how": "ratio", "is": {"value": 2.0}},
                    {"floor": floor, "how": "difference", "is": {"value": 4.0}}
                ])
            });
            json!({"name": name, "value": {"value": value}, "against": against})
        };
        json!({"rows": [
            row("drop", 20.0, None),
            row("pass", 30.0, None),
            row("denied", 25.0, Some("drop")),
            row("granted", 34.0, Some("pass")),
            ours(row("refused", 26.0, Some("drop"))),
            {"name": "absent", "value": null, "against": [], "missing": "no nft"},
        ]})
    }

    #[test]
    fn rows_stand_below_their_floor() {
        let groups = groups(&part());
        let names: Vec<Vec<&str>> = groups
            .iter()
            .map(|group| group.iter().map(|bar| bar.name.as_str()).collect())
            .collect();
        assert_eq!(
            names,
            [
                vec!["drop", "denied", "knockgate, refused"],
                vec!["pass", "granted"]
            ]
        );
        assert!((groups[0][1].floor - 21.0).abs() < 1e-9);
    }

    #[test]
    fn every_bar_is_drawn_and_fits() {
        let drawn = draw(&part(), "title").unwrap();
        for name in ["drop", "denied", "knockgate, refused", "pass", "granted"] {
            assert!(drawn.contains(&format!(">{name}</text>")), "{name}");
        }
        assert!(!drawn.contains("absent"));
        assert!(drawn.contains(">25  (+4)</text>"), "{drawn}");
    }

    #[test]
    fn nothing_measured_is_nothing_drawn() {
        assert_eq!(draw(&json!({"rows": []}), "title"), None);
    }
}
