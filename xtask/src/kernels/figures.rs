//! The figures of verifiers, in `docs/development/verifier.md`.

use std::fs;

use anyhow::{Context as _, Result};

use crate::workspace;

const PAGE: &str = "docs/development/verifier.md";

/// The figures of one entry of the program on one kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Figures {
    release: String,
    entry: String,
    instructions: u64,
    peak_states: u64,
    /// The largest stack frame, bytes.
    frame: u64,
}

impl Figures {
    /// Reads the lines `verifier: RELEASE: ENTRY: N instructions, N peak states, N bytes of stack` in a suite's output.
    pub(super) fn find(said: &str) -> Vec<Self> {
        let lines = said.lines().map(str::trim);
        let lines = lines.filter_map(|line| line.strip_prefix("verifier: "));
        lines.filter_map(Self::read).collect()
    }

    fn read(line: &str) -> Option<Self> {
        let (release, rest) = line.split_once(": ")?;
        let (entry, figures) = rest.split_once(": ")?;
        let number = |name: &str| {
            let figure = figures
                .split(", ")
                .find_map(|figure| figure.strip_suffix(name));
            figure?.trim().parse().ok()
        };
        Some(Self {
            release: release.to_owned(),
            entry: entry.to_owned(),
            instructions: number("instructions")?,
            peak_states: number("peak states")?,
            frame: number("bytes of stack")?,
        })
    }

    /// Returns the version, such as `[6, 1]`.
    fn version(&self) -> Vec<u32> {
        let numbers = self.release.split(['.', '-', '+']).take(2);
        numbers.filter_map(|number| number.parse().ok()).collect()
    }
}

/// Sorts figures, oldest kernel first.
pub(super) fn sort(figures: &mut [Figures]) {
    figures.sort_by_key(|row| (row.version(), row.entry.clone()));
}

/// Returns a table in Markdown.
pub(super) fn table(figures: &[Figures]) -> String {
    let mut table = String::from(
        "| kernel | release | entry | instructions processed | peak states | largest stack frame, bytes |\n\
         |---|---|---|---:|---:|---:|\n",
    );
    table.extend(figures.iter().map(|row| {
        let Figures {
            release,
            entry,
            instructions,
            peak_states,
            frame,
        } = row;
        let kernel: Vec<_> = row.version().iter().map(u32::to_string).collect();
        let cells = [
            kernel.join("."),
            release.clone(),
            entry.clone(),
            grouped(*instructions),
            grouped(*peak_states),
            grouped(*frame),
        ];
        format!("| {} |\n", cells.join(" | "))
    }));
    table
}

/// Replaces the figures on the page.
pub(super) fn write(figures: &[Figures]) -> Result<()> {
    let path = workspace::root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let page = replaced(&page, &table(figures)).with_context(|| format!("no table in {PAGE}"))?;
    fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))?;
    println!("Written to {PAGE}.");
    Ok(())
}

/// Returns the page with another table.
fn replaced(page: &str, table: &str) -> Option<String> {
    let begin = page.find("| kernel |")?;
    let length = page[begin..]
        .find("\n\n")
        .map_or(page.len() - begin, |end| end + 1);
    Some([&page[..begin], table, &page[begin + length..]].concat())
}

/// Returns a number with thousands separators, such as 12,345.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_go_from_a_suite_to_the_page() {
        let said = "running 1 test\ntest it ... \nverifier: 6.1.0-9-cloud-amd64: knockgate: 1234567 instructions, \
                    89 peak states, 168 bytes of stack\r\nok\n";
        let figures = Figures::find(said);
        let page = "Before.\n\n| kernel | old |\n|---|---|\n| 5.4 | 1 |\n\nAfter.\n";
        assert_eq!(
            replaced(page, &table(&figures)).expect("there is a table"),
            "Before.\n\n\
             | kernel | release | entry | instructions processed | peak states | largest stack frame, bytes |\n\
             |---|---|---|---:|---:|---:|\n\
             | 6.1 | 6.1.0-9-cloud-amd64 | knockgate | 1,234,567 | 89 | 168 |\n\nAfter.\n"
        );
    }

    #[test]
    fn a_line_that_lacks_a_figure_is_none() {
        assert_eq!(
            Figures::find("verifier: 6.1.0: knockgate: 5 instructions, 6 peak states"),
            []
        );
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let numbers = [0, 999, 1_000, 65_536, 1_000_000].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "65,536", "1,000,000"]);
    }
}
