//! Prints figures to the terminal.

use std::{fmt::Write as _, io::IsTerminal as _};

use crate::figures::{Against, Figure, How, Outcome, Part, Row, Target};

/// Prints a part.
pub fn print(part: &Part) {
    let bold = bold();
    println!("\n{}{}{} ({})", bold.0, part.title, bold.1, part.unit);
    for note in &part.notes {
        println!("  {note}");
    }
    let width = part
        .rows
        .iter()
        .map(|row| row.name.len())
        .max()
        .unwrap_or(0);
    for row in &part.rows {
        println!("  {:width$}  {}", row.name, line(part, row));
    }
}

fn line(part: &Part, row: &Row) -> String {
    let Some(value) = row.figure() else {
        let why = row.missing.as_deref().unwrap_or("it is not known why");
        return format!("not measured: {why}");
    };
    let mut line = format!("{:>22}", absolute(value));
    for against in &row.against {
        let Against { floor, how, target } = against;
        let Some(is) = part.compared(row, against) else {
            if let How::RatioOfDifferences(other) = how {
                let _ = write!(
                    line,
                    "  no ratio to what {other} adds: that is lost in noise"
                );
            }
            continue;
        };
        let of = match how {
            How::Difference => format!("over {floor}"),
            How::Ratio => format!("of {floor}"),
            How::RatioOfDifferences(other) => format!("of what {other} adds"),
        };
        let _ = if *how == How::Difference {
            write!(line, "  {} {of}", signed(is))
        } else if row.has_interval() && is.high - is.low > (is.value - 1.0).abs() {
            // A factor would claim less than what it may be wrong by.
            write!(line, "  between ×{:.2} and ×{:.2} {of}", is.low, is.high)
        } else {
            write!(line, "  ×{} {of}", fine(is))
        };
        if let Some(target) = target {
            let outcome = match target.outcome(is, row.has_interval()) {
                Outcome::Met => "met",
                Outcome::Missed => "MISSED",
                Outcome::Undecided => "undecided",
            };
            let _ = match target {
                Target::AtMost(most) => write!(line, " [at most {most}: {outcome}]"),
                Target::AtLeast(least) => write!(line, " [at least {least}: {outcome}]"),
                Target::Near(known, by) => write!(line, " [{known:.1} ± {by}: {outcome}]"),
            };
        }
    }
    line
}

fn absolute(figure: Figure) -> String {
    let Figure { value, low, high } = figure;
    format!("{value:.1} ({low:.1}–{high:.1})")
}

fn signed(figure: Figure) -> String {
    let Figure { value, low, high } = figure;
    format!("{value:+.1} ({low:+.1}–{high:+.1})")
}

fn fine(figure: Figure) -> String {
    let Figure { value, low, high } = figure;
    format!("{value:.2} ({low:.2}–{high:.2})")
}

fn bold() -> (&'static str, &'static str) {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if colour {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    }
}
