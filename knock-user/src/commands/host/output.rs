//! Tables for people and documents for scripts.

use std::io::{self, BufWriter, Write as _};

use anyhow::Result;
use ipnet::IpNet;
use serde::Serialize;

use crate::values::Port;

/// Prints one JSON document.
pub fn json(document: &impl Serialize) -> Result<()> {
    // Standard output writes out every line by itself: a million rows would be millions of calls.
    let mut out = BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, document).map_err(io::Error::from)?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

/// Prints rows under their headings, in columns. Headings ending with `>` are of numbers, which are
/// aligned to the right. Where there is no row, prints `none` instead.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]], none: &str) -> Result<()> {
    let mut out = BufWriter::new(anstream::stdout().lock());
    if rows.is_empty() {
        writeln!(out, "{none}")?;
        out.flush()?;
        return Ok(());
    }
    let titles = headings.map(|heading| heading.trim_end_matches('>'));
    let mut widths = titles.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for ((cell, heading), width) in cells.iter().zip(headings).zip(widths) {
            let padding = " ".repeat(width - cell.len());
            let (before, after) = if heading.ends_with('>') {
                (padding.as_str(), "")
            } else {
                ("", padding.as_str())
            };
            line.extend([before, cell, after, "  "]);
        }
        line.truncate(line.trim_end().len());
        line
    };
    let bold = anstyle::Style::new().bold();
    writeln!(out, "{bold}{}{bold:#}", line(titles))?;
    for row in rows {
        let cells: [&str; N] = std::array::from_fn(|column| row[column].as_str());
        writeln!(out, "{}", line(cells))?;
    }
    out.flush()?;
    Ok(())
}

/// Prints one line, or an empty one between tables. Unlike `println!`, no panic where the reader has
/// gone.
pub fn line(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

/// `22/tcp 22/udp at 10.0.0.0/24`: what a gate protects, and where, if it has destinations of its own.
pub fn protects(ports: &[Port], at: &[IpNet]) -> String {
    let ports = joined(ports);
    if at.is_empty() {
        ports
    } else {
        format!("{ports} at {}", joined(at))
    }
}

fn joined(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(" ")
}

/// `41.3s`, `2m 05s`, `3h 12m`: how long, for people.
pub fn duration(nanoseconds: u64) -> String {
    let tenths = nanoseconds / 100_000_000;
    let seconds = tenths / 10;
    match seconds {
        0..60 => format!("{seconds}.{}s", tenths % 10),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(41_340_000_000), "41.3s");
        assert_eq!(duration(125_000_000_000), "2m 05s");
        assert_eq!(duration(11_520_000_000_000), "3h 12m");
    }
}
