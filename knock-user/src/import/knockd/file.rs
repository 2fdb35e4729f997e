//! Sections and directives, as knockd tells them apart.

use crate::import::{Fate, Report};

/// `[name]` and what stands below.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) directives: Vec<Directive>,
}

#[derive(Debug)]
pub(super) struct Directive {
    pub(super) line: usize,
    /// In lower case: knockd takes any.
    pub(super) key: String,
    /// Empty for `UseSyslog`, which has none.
    pub(super) value: String,
}

/// Reads a file. A `#` begins a comment at the start of a line only; behind a value it is a part of it.
pub(super) fn read(text: &str, report: &mut Report) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            sections.push(Section {
                line: number,
                name: name.to_owned(),
                directives: Vec::new(),
            });
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let key = key.trim().to_ascii_lowercase();
        // A line that is no directive might be anything, a secret among it.
        let shown = if key.contains(char::is_whitespace) {
            "the line"
        } else {
            &key
        };
        if !line.contains('=') && key != "usesyslog" {
            report.add(number, shown, Fate::Invalid, "it has no equals sign");
            continue;
        }
        match sections.last_mut() {
            Some(section) => section.directives.push(Directive {
                line: number,
                value: value.trim().to_owned(),
                key,
            }),
            None => report.add(
                number,
                shown,
                Fate::Invalid,
                "it stands before any [section]",
            ),
        }
    }
    sections
}
