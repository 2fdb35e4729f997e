//! Other programs' configurations, turned into knockgate's.
//!
//! [`knockd`] and [`fwknop`] read their files and say of every line what became of it. `gates` puts together what
//! they found and writes it; `firewall` understands the commands with which such programs open ports, and
//! `shell` takes a line of commands apart.
//!
//! What would be weaker than it was is never written: it is left out, and the report says so.

mod firewall;
pub mod fwknop;
mod gates;
pub mod knockd;
mod shell;

use std::fmt;

/// What came of a file.
#[derive(Debug)]
pub struct Imported {
    /// The configuration, which passes `check`. `None`: not one gate could be written.
    pub configuration: Option<String>,
    pub report: Report,
}

/// What became of each line, in the order of the file.
#[derive(Debug, Default)]
pub struct Report {
    pub remarks: Vec<Remark>,
}

/// What became of one line.
#[derive(Debug)]
pub struct Remark {
    /// From 1; 0: something that the file does not say, such as a default.
    pub line: usize,
    /// The key or what else names the line. Never a value: sequences and keys are secret.
    pub key: String,
    pub fate: Fate,
    /// How it was carried over, or why not.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Carried,
    NotCarried,
    /// Left out, since what could have been written is weaker than the original.
    Weaker,
    /// The other program does not understand it either.
    Invalid,
}

impl Report {
    fn add(&mut self, line: usize, key: &str, fate: Fate, text: impl Into<String>) {
        self.remarks.push(Remark {
            line,
            key: key.to_owned(),
            fate,
            text: text.into(),
        });
    }

    /// Returns whether something is missing that cannot be written without making it weaker, or that could not be
    /// read.
    pub fn is_weaker(&self) -> bool {
        let mut remarks = self.remarks.iter();
        remarks.any(|remark| matches!(remark.fate, Fate::Weaker | Fate::Invalid))
    }

    /// Adds what was said of a section. `written`: whether anything of it was; otherwise nothing of it was carried over.
    fn add_section(&mut self, of_section: Self, line: usize, title: &str, written: bool) {
        let remarks = of_section.remarks.into_iter();
        self.remarks
            .extend(remarks.filter(|remark| written || remark.fate != Fate::Carried));
        if !written && !self.remarks.iter().any(|remark| remark.line == line) {
            self.add(line, title, Fate::NotCarried, "see its lines");
        }
    }

    /// Takes back that these lines were carried over.
    fn withdraw(&mut self, lines: &[usize], why: &str) {
        for remark in &mut self.remarks {
            if remark.fate == Fate::Carried && lines.contains(&remark.line) {
                remark.fate = Fate::NotCarried;
                why.clone_into(&mut remark.text);
            }
        }
    }

    fn in_order(mut self) -> Self {
        self.remarks.sort_by_key(|remark| remark.line);
        self
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Carried => "carried over",
            Self::NotCarried => "not carried over",
            Self::Weaker => "left out, as it would be weaker",
            Self::Invalid => "not understood",
        })
    }
}

/// Returns what may be the name of a gate or user: the text with every other character replaced by `-`.
fn name_of(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name = text.chars().map(|c| if allowed(c) { c } else { '-' });
    name.take(64).collect()
}
