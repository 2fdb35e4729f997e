//! Prints figures to the terminal.

use std::{fmt::Write as _, io::IsTerminal as _};

use crate::figures::{Against, How, Part, Row, Spread, Target};

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
    let Some(value) = Spread::of(row.rounds.clone()) else {
        let why = row.missing.as_deref().unwrap_or("it is not known why");
        return format!("not measured: {why}");
    };
    let mut line = format!("{:>22}", spread(value));
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
        let _ = match how {
            How::Difference => write!(line, "  {} over {floor}", signed(is)),
            How::Ratio => write!(line, "  ×{} of {floor}", fine(is)),
            How::RatioOfDifferences(other) => {
                write!(line, "  ×{} of what {other} adds", fine(is))
            }
        };
        if let Some(target) = target {
            let met = if target.met(is.median) {
                "met"
            } else {
                "MISSED"
            };
            let _ = match target {
                Target::AtMost(most) => write!(line, " [at most {most}: {met}]"),
                Target::AtLeast(least) => write!(line, " [at least {least}: {met}]"),
            };
        }
    }
    line
}

fn spread(spread: Spread) -> String {
    let Spread {
        median,
        least,
        most,
    } = spread;
    format!("{median:.1} ({least:.1}–{most:.1})")
}

fn signed(spread: Spread) -> String {
    let Spread {
        median,
        least,
        most,
    } = spread;
    format!("{median:+.1} ({least:+.1}–{most:+.1})")
}

fn fine(spread: Spread) -> String {
    let Spread {
        median,
        least,
        most,
    } = spread;
    format!("{median:.2} ({least:.2}–{most:.2})")
}

fn bold() -> (&'static str, &'static str) {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if colour {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    }
}
