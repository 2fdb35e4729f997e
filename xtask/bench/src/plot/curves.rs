//! Curves: real knocks that open the port, by the rate of the flood.

use serde_json::Value;

use super::svg::{Anchor, COLOURS, Picture};

/// The points of one contestant, by increasing rate.
#[derive(Debug, Clone, PartialEq)]
struct Curve {
    name: String,
    /// Rate in packets a second, and per cent.
    points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 600.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 340.0;
/// The decades of rates on the axis; the place below the first one means no flood.
const DECADES: (i32, i32) = (2, 7);

/// Draws the points of a part of the figures, one line for each curve.
pub fn draw(part: &Value, title: &str) -> Option<String> {
    let curves = curves(part);
    if curves.is_empty() {
        return None;
    }
    let mut picture = Picture::new(WIDTH, HEIGHT);
    picture.text((16.0, 26.0), Anchor::Start, "title", title);
    let unit = "per cent of real knocks that opened the port";
    picture.text((16.0, 46.0), Anchor::Start, "soft", unit);
    for percent in [0, 25, 50, 75, 100] {
        let y = height(f64::from(percent));
        picture.line(&[(LEFT, y), (RIGHT, y)], "line grid");
        picture.text((LEFT - 8.0, y + 4.0), Anchor::End, "soft", percent);
    }
    for (rate, name) in [
        (0.0, "none"),
        (1e3, "1 k"),
        (1e4, "10 k"),
        (1e5, "100 k"),
        (1e6, "1 M"),
    ] {
        let x = width(rate);
        picture.line(&[(x, BOTTOM), (x, BOTTOM + 5.0)], "line grid");
        picture.text((x, BOTTOM + 20.0), Anchor::Middle, "soft", name);
    }
    let below = "forged first knocks a second, the last point as many as one core sends";
    picture.text(
        (f64::midpoint(LEFT, RIGHT), BOTTOM + 42.0),
        Anchor::Middle,
        "soft",
        below,
    );
    let mut colours: Vec<&str> = Vec::new();
    let mut legend = Vec::new();
    for curve in &curves {
        // One colour for each contestant; its second line is dashed.
        let who = curve.name.split(", ").next().unwrap_or(&curve.name);
        let seen = colours.iter().filter(|name| **name == who).count();
        let known = colours.iter().position(|name| *name == who);
        let mut distinct: Vec<&str> = Vec::new();
        for name in &colours {
            if !distinct.contains(name) {
                distinct.push(name);
            }
        }
        let colour = known
            .and_then(|_| distinct.iter().position(|name| *name == who))
            .unwrap_or(distinct.len());
        colours.push(who);
        let dashed = if seen > 0 { " dashed" } else { "" };
        legend.push((curve, format!("c{}", colour % COLOURS), dashed));
    }
    // In reverse order, so that the first curves are on top.
    for (place, (curve, colour, dashed)) in legend.iter().enumerate().rev() {
        let points: Vec<(f64, f64)> = curve
            .points
            .iter()
            .map(|(rate, percent)| (width(*rate), height(*percent)))
            .collect();
        let above = curves[..place].iter().filter(|other| hides(other, curve));
        let wide = ["", " wide", " wider", " widest"][above.count().min(3)];
        picture.line(&points, &format!("line {colour}{dashed}{wide}"));
        for point in points {
            picture.dot(point, &format!("fill {colour}"));
        }
    }
    let mut y = TOP + 8.0;
    for (curve, colour, dashed) in &legend {
        let x = RIGHT + 30.0;
        picture.line(
            &[(x, y - 4.0), (x + 28.0, y - 4.0)],
            &format!("line {colour}{dashed}"),
        );
        picture.text((x + 36.0, y), Anchor::Start, "", &curve.name);
        y += 24.0;
    }
    Some(picture.finish())
}

/// Returns whether a curve that is drawn above another lies on it for a part of its length, so that it would not be seen.
fn hides(above: &Curve, below: &Curve) -> bool {
    let near = |(rate, percent): &(f64, f64)| {
        let same = |(other, value): &(f64, f64)| {
            (width(*rate) - width(*other)).abs() < 3.0 && (percent - value).abs() < 1.0
        };
        above.points.iter().any(same)
    };
    below.points.windows(2).any(|part| part.iter().all(near))
        || (below.points.first().is_some_and(near) && ends_on(above, below))
}

/// Returns whether a curve ends on another, between two points of the same height.
fn ends_on(above: &Curve, below: &Curve) -> bool {
    let Some((rate, percent)) = below.points.last() else {
        return false;
    };
    above.points.windows(2).any(|part| {
        let ((from, at), (to, also)) = (part[0], part[1]);
        from <= *rate
            && width(*rate) <= width(to) + 3.0
            && (at - percent).abs() < 1.0
            && (also - percent).abs() < 1.0
    })
}

fn width(rate: f64) -> f64 {
    let (first, last) = (f64::from(DECADES.0), f64::from(DECADES.1));
    let place = rate.max(1.0).log10().clamp(first, last);
    LEFT + 12.0 + (RIGHT - LEFT - 24.0) * (place - first) / (last - first)
}

fn height(percent: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * percent / 100.0
}

/// Returns the curves of a part that have at least two points.
fn curves(part: &Value) -> Vec<Curve> {
    let none = Vec::new();
    let mut curves: Vec<Curve> = Vec::new();
    for row in part["rows"].as_array().unwrap_or(&none) {
        let (Some(name), Some(place), Some(value)) = (
            row["point"]["curve"].as_str(),
            row["point"]["place"].as_f64(),
            row["value"]["value"].as_f64(),
        ) else {
            continue;
        };
        match curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.push((place, value)),
            None => curves.push(Curve {
                name: name.to_owned(),
                points: vec![(place, value)],
            }),
        }
    }
    curves.retain(|curve| curve.points.len() > 1);
    for curve in &mut curves {
        curve.points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    }
    curves
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn part() -> Value {
        let row = |curve: &str, place: f64, value: f64| json!({"point": {"curve": curve, "place": place}, "value": {"value": value}});
        json!({"rows": [
            row("ours, 20 ms apart", 1e6, 99.0),
            row("ours, 20 ms apart", 0.0, 100.0),
            row("ours, 200 ms apart", 0.0, 100.0),
            row("ours, 200 ms apart", 1e5, 97.0),
            row("nobody", 0.0, 100.0),
            {"name": "denied", "value": {"value": 1.0}},
        ]})
    }

    #[test]
    fn points_make_curves_in_the_order_of_their_rate() {
        let curves = curves(&part());
        assert_eq!(curves.len(), 2);
        assert_eq!(curves[0].points, [(0.0, 100.0), (1e6, 99.0)]);
        assert_eq!(curves[1].name, "ours, 200 ms apart");
    }

    #[test]
    fn a_contestant_has_one_colour_and_its_second_line_is_dashed() {
        let drawn = draw(&part(), "title").unwrap();
        assert_eq!(drawn.matches("class=\"line c0\"").count(), 2);
        assert_eq!(drawn.matches("class=\"line c0 dashed\"").count(), 2);
        assert!(!drawn.contains("class=\"line c1"), "{drawn}");
    }

    #[test]
    fn a_curve_below_others_is_seen() {
        let curve = |points: &[(f64, f64)]| Curve {
            name: String::new(),
            points: points.to_vec(),
        };
        let above = curve(&[(0.0, 100.0), (1e4, 100.0), (1e6, 100.0), (1e7, 0.0)]);
        assert!(hides(&above, &curve(&[(0.0, 100.0), (5e5, 99.5)])));
        assert!(hides(
            &above,
            &curve(&[(0.0, 100.0), (1e4, 100.0), (1e5, 0.0)])
        ));
        assert!(!hides(&above, &curve(&[(0.0, 100.0), (1e4, 50.0)])));
        assert!(!hides(&above, &curve(&[(0.0, 90.0), (1e6, 90.0)])));
    }

    #[test]
    fn everything_lies_within_the_frame() {
        for rate in [0.0, 1e3, 2.5e6, 1e9] {
            assert!((LEFT..=RIGHT).contains(&width(rate)), "{rate}");
        }
        assert!((height(100.0) - TOP).abs() < 1e-9 && (height(0.0) - BOTTOM).abs() < 1e-9);
        assert!(width(1e5) > width(1e4));
    }
}
